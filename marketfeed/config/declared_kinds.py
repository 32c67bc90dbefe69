"""The kinds of streams that an operator declares, in the tables `[streams.<kind>]` of the file.

What they may hold, and what it means: docs/operations/data.md#kinds-of-streams.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import LossPolicy, StreamKind

__all__ = ["BadSetting", "read_kinds"]

_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_FIELD = re.compile(r"[!#-\[\]-~]{1,64}")  # what a decoder can be asked for: neither " nor \
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
    if not isinstance(table, dict):
        raise BadSetting(f'{where}: expected a table, as private = true and loss = "keep"')
    built_in = next((kind for kind in BUILT_IN if kind.name == name), None)
    is_made = built_in is not None and not built_in.is_published
    if built_in is not None and not (is_made and "loss" in table):  # otherwise it is the engine's
        return _read_built_in(built_in, table, where)
    for field in table:
        if field not in ("loss", "private", "ids", "silence", "rate"):
            found = repr(field[:80])[1:-1]
            raise BadSetting(f"{where}: {found} is unknown; expected loss, private, ids, silence or rate")
    loss, private = table.get("loss"), table.get("private", False)
    if loss not in [policy.value for policy in LossPolicy]:
        raise BadSetting(f"{where}: loss is missing or unknown; expected {_POLICIES}")
    if not isinstance(private, bool):
        raise BadSetting(f"{where}: private: expected true or false")
    kind = StreamKind(name, LossPolicy(loss), private, _read_ids(table, where), _read_silence(table, where))
    return msgspec.structs.replace(kind, path_rate=_read_rate(kind, table, where))


def _read_built_in(kind: StreamKind, table: dict[str, Any], where: str) -> StreamKind:
    """A built-in kind is what it is, but for ids that are its engine's own, and for how long that may be silent."""
    permitted, why = ["ids", "silence"], ""
    if kind.loss is LossPolicy.MERGE:
        permitted, why = ["silence"], ", and has its ids in U and u"
    if kind.from_book is not None:
        permitted, why = [], f', and made of {kind.from_book.of}, unless it has "loss" and is the engine\'s'
    if kind.rates:
        permitted.append("rate")
    if not table or not set(permitted).issuperset(table):
        few = " and ".join(filter(None, (", ".join(permitted[:-1]), permitted[-1])))
        raise BadSetting(f"{where}: this kind is built in{why}; expected another name, or nothing but {few}")
    ids, silence, rate = _read_ids(table, where), _read_silence(table, where), _read_rate(kind, table, where)
    return msgspec.structs.replace(kind, ids=ids, silence=silence, path_rate=rate)


def _read_rate(kind: StreamKind, table: dict[str, Any], where: str) -> int:
    """The ms that a name without a rate stands for, on `/stream` and `/ws`; 0 where none are given."""
    if "rate" not in table:
        return 0
    if not kind.rates:
        raise BadSetting(f'{where}: rate: every publication counts with loss = "keep"; expected no rate')
    rate = table["rate"]
    if type(rate) is not int or rate not in kind.rates:
        raise BadSetting(f"{where}: rate: expected {' or '.join(map(str, kind.rates))}, in ms")
    return rate


def _read_silence(table: dict[str, Any], where: str) -> float:
    """The seconds without publications that mean that the engine is silent; 0 where none are given."""
    seconds = table.get("silence", 0.0)
    if "silence" in table and (isinstance(seconds, bool) or not isinstance(seconds, int | float)):
        seconds = -1.0
    if "silence" in table and not 1 <= seconds < 1e9:
        raise BadSetting(f"{where}: silence: expected a number of seconds, 1 or more (up to 9 digits)")
    return float(seconds)


def _read_ids(table: dict[str, Any], where: str) -> str | None:
    """The field of a kind's publications that counts up by one."""
    ids = table.get("ids")
    if ids is not None and not (isinstance(ids, str) and _FIELD.fullmatch(ids)):
        raise BadSetting(f'{where}: ids: expected the name of a field of up to 64 characters, as "t"')
    return ids
