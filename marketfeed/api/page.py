"""One answer of the admin port."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

__all__ = ["HTML", "JSON", "NOTHING", "Answer", "Page", "Query", "as_json", "later"]

JSON = "application/json"
HTML = "text/html; charset=utf-8"
_TEXT = "text/plain; charset=utf-8"


class Page(msgspec.Struct, frozen=True):
    """`media`: its Content-Type."""

    body: bytes
    media: str = _TEXT
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


Query = Mapping[str, str]
Answer = Callable[[Query], Page | Deferred[Page]]

NOTHING = Page(b"there is nothing here\n", status=404)


def as_json(value: Any, status: int = 200) -> Page:
    return Page(msgspec.json.encode(value), JSON, status)


def later(found: Any, make: Callable[[Any], Page]) -> Page | Deferred[Page]:
    """The page that is made of what is found; where that is a Deferred, then."""
    return found.addCallback(make) if isinstance(found, Deferred) else make(found)
