"""One answer of the admin port."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["HTML", "JSON", "Page", "as_json"]

JSON = "application/json"
HTML = "text/html; charset=utf-8"
_TEXT = "text/plain; charset=utf-8"


class Page(msgspec.Struct, frozen=True):
    """`media`: its Content-Type."""

    body: bytes
    media: str = _TEXT
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


def as_json(value: Any, status: int = 200) -> Page:
    return Page(msgspec.json.encode(value), JSON, status)
