"""The kinds of streams that an operator declares, in the tables `[streams.<kind>]` of the file (OPTIONS.md)."""

from __future__ import annotations

import re
from typing import Any

from marketfeed.model.streams import BUILT_IN, LossPolicy, StreamKind

__all__ = ["BadSetting", "read_kinds"]

_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_POLICIES = " or ".join(f'"{policy.value}"' for policy in LossPolicy)


class BadSetting(ValueError):
    """A setting cannot be used; the message is the line to show."""


def read_kinds(tables: Any, path: str) -> tuple[StreamKind, ...]:
    """`tables`: what stands under `streams` in the file at `path`. Raises `BadSetting`."""
    if not isinstance(tables, dict):
        raise BadSetting(f"streams in {path}: expected tables, as [streams.orders]")
    return tuple([_read_kind(name, table, path) for name, table in tables.items()])


def _read_kind(name: str, table: Any, path: str) -> StreamKind:
    where = f"streams.{repr(name[:80])[1:-1]} in {path}"
    if not _KIND.fullmatch(name):
        raise BadSetting(f"{where}: expected a kind of up to 32 of the characters A-Z a-z 0-9 _, a letter first")
    if name in {kind.name for kind in BUILT_IN}:
        raise BadSetting(f"{where}: this kind is built in; expected another name")
    if not isinstance(table, dict):
        raise BadSetting(f'{where}: expected a table, as private = true and loss = "keep"')
    for field in table:
        if field not in ("loss", "private"):
            raise BadSetting(f"{where}: {repr(field[:80])[1:-1]} is unknown; expected loss or private")
    loss, private = table.get("loss"), table.get("private", False)
    if loss not in [policy.value for policy in LossPolicy]:
        raise BadSetting(f"{where}: loss is missing or unknown; expected {_POLICIES}")
    if not isinstance(private, bool):
        raise BadSetting(f"{where}: private: expected true or false")
    return StreamKind(name, LossPolicy(loss), private)
