"""JSON Schema of Structs, as OpenAPI 3.1 and AsyncAPI 3.0 want it.

1. msgspec writes JSON Schema 2020-12, which is what OpenAPI 3.1 takes.
2. AsyncAPI 3.0 takes draft 07: a tuple is `items` and `additionalItems: false`, a discriminator the name of the field.
3. What is published leaves room for fields of later versions. The tests hold the daemon to the strict form, in which
   only what is `Open` has further fields.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.structs import Open

__all__ = ["components", "draft_07"]

_REF = "#/components/schemas/"


def components(types: Sequence[Any], *, strict: bool = False) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A schema for each of the types, and those that they refer to, by name."""
    found, named = msgspec.json.schema_components(types, ref_template=_REF + "{name}")
    assert len({_plain(name) for name in named}) == len(named), "two Structs of one name"
    every = {_plain(name): _renamed(schema) for name, schema in sorted(named.items(), key=lambda item: _plain(item[0]))}
    if strict:
        has_more = {each.__name__ for each in _below(Open)}
        for name, schema in every.items():
            if "properties" in schema and name not in has_more:
                schema["additionalProperties"] = False
    return [_renamed(each) for each in found], every


def draft_07(schema: Any) -> Any:
    """The same schema in the words of draft 07."""
    if isinstance(schema, list):
        return [draft_07(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: draft_07(value) for name, value in schema.items()}
    if "prefixItems" in made:
        made["items"], made["additionalItems"] = made.pop("prefixItems"), False
    if isinstance(made.get("discriminator"), dict):
        made["discriminator"] = made["discriminator"]["propertyName"]
    return made


def _below(base: type) -> list[type]:
    found: list[type] = [base]
    below: type
    for below in base.__subclasses__():
        found += _below(below)
    return found


def _plain(name: str) -> str:
    """The name of a component, without where the Struct is from, and what only Python needs of it."""
    return (
        re.sub(r"_+", "_", re.sub(r"(schemas|marketfeed)\.[\w.]*\.", "", name)).strip("_").replace("NoneType", "Null")
    )


def _renamed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_renamed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _renamed(value) for name, value in schema.items() if name != "title"}
    if isinstance(made.get("description"), str):
        made["description"] = inspect.cleandoc(made["description"])  # as Python 3.13 and later have it of themselves
    if isinstance(made.get("$ref"), str):
        made["$ref"] = _REF + _plain(made["$ref"].removeprefix(_REF))
    if isinstance(made.get("discriminator"), dict):
        mapping = made["discriminator"].get("mapping", {})
        made["discriminator"]["mapping"] = {tag: _REF + _plain(ref.removeprefix(_REF)) for tag, ref in mapping.items()}
    return made
