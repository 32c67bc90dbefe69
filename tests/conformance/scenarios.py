"""The scenarios of clients/conformance/, read: what is repeated in them is written out, and patterns are compared.

clients/conformance/README.md describes all of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from tests.docs_runner import ROOT

__all__ = ["PLACE", "differs", "log_of", "matches", "matrix", "scenarios", "schema", "steps_of"]

PLACE = ROOT / "clients" / "conformance"
_NOT_SCENARIOS = {"schema.json", "matrix.json"}


@cache
def scenarios() -> dict[str, dict[str, Any]]:
    """Name → scenario; the name is that of the file and its own, as ``resume/recovered``."""
    found = {}
    for path in sorted(PLACE.glob("*.json")):
        if path.name not in _NOT_SCENARIOS:
            for scenario in json.loads(path.read_text(encoding="utf-8"))["scenarios"]:
                name = f"{path.stem}/{scenario['name']}"
                assert name not in found, f"two scenarios {name}"
                found[name] = scenario
    return found


def schema() -> Any:
    return json.loads((PLACE / "schema.json").read_text(encoding="utf-8"))


def matrix() -> Any:
    return json.loads((PLACE / "matrix.json").read_text(encoding="utf-8"))


def steps_of(scenario: dict[str, Any], sizes: dict[str, int]) -> Iterator[dict[str, Any]]:
    """All steps, with those that are repeated written out. `sizes`: the name of a loop → how often it goes round."""
    yield from _expand(scenario["steps"], "steps", sizes, None)


def log_of(scenario: dict[str, Any], sizes: dict[str, int]) -> list[dict[str, Any]]:
    """All that is expected to be told."""
    return list(_expand(scenario["log"], "log", sizes, None))


def _expand(items: list[Any], inner: str, sizes: dict[str, int], turn: int | None) -> Iterator[dict[str, Any]]:
    for item in items:
        if "times" in item:
            times = item["times"]
            for number in range(times if isinstance(times, int) else sizes[times]):
                yield from _expand(item[inner], inner, sizes, number)
        else:
            yield _fill(item, turn)


def _fill(value: Any, turn: int | None) -> Any:
    """A value with the number of the turn in it, and long texts written out."""
    if isinstance(value, dict):
        if set(value) == {"$n"}:
            assert turn is not None, "$n outside of a loop"
            return turn + value["$n"]
        if set(value) == {"$repeat"}:
            text, count = value["$repeat"]
            return text * count
        return {_fill(key, turn): _fill(each, turn) for key, each in value.items()}
    if isinstance(value, list):
        return [_fill(each, turn) for each in value]
    if isinstance(value, str) and turn is not None:
        return re.sub(r"\{n([+-]\d+)?\}", lambda found: str(turn + int(found[1] or 0)), value)
    return value


def matches(expected: Any, found: Any, is_part: bool = False) -> bool:
    """Whether it is as expected. `is_part`: an object may have more fields than are expected, but not less."""
    if isinstance(expected, dict):
        if set(expected) == {"$any"}:
            return True
        if set(expected) == {"$between"}:
            low, high = expected["$between"]
            return isinstance(found, int | float) and low <= found <= high
        if set(expected) == {"$set"}:
            return isinstance(found, list) and sorted(map(str, found)) == sorted(map(str, expected["$set"]))
        if not isinstance(found, dict) or not (is_part or set(expected) == set(found)):
            return False
        return all(key in found and matches(value, found[key], is_part) for key, value in expected.items())
    if isinstance(expected, list):
        if not isinstance(found, list) or len(expected) != len(found):
            return False
        return all(matches(one, other, is_part) for one, other in zip(expected, found, strict=True))
    return (type(expected) is type(found) and bool(expected == found)) or _same_number(expected, found)


def _same_number(expected: Any, found: Any) -> bool:
    numbers = isinstance(expected, int | float) and isinstance(found, int | float)
    return numbers and not isinstance(expected, bool) and not isinstance(found, bool) and expected == found


def differs(expected: list[Any], found: list[Any]) -> str:
    """What is wrong with a log, for a person; empty: nothing."""
    for place, entry in enumerate(expected):
        if place >= len(found):
            return f"entry {place} is missing: {_short(entry)}"
        if not matches(entry, found[place]):
            return f"entry {place} is {_short(found[place])}, not {_short(entry)}"
    if len(found) > len(expected):
        return f"entry {len(expected)} is one too many: {_short(found[len(expected)])}"
    return ""


def _short(entry: Any) -> str:
    text = json.dumps(entry)
    return text if len(text) < 600 else f"{text[:600]}…"
