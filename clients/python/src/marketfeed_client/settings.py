"""What a feed is told, checked: whoever says something that cannot be hears at once what would be accepted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TypeAlias, TypeVar
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

__all__ = ["Askable", "Moment", "Times", "address", "market", "moment", "stream_name", "whole"]

T = TypeVar("T")

Askable: TypeAlias = T | Callable[[], T | Awaitable[T]]
"""A value, or a function that is asked for it before each attempt to connect; it may be a coroutine function."""

Moment: TypeAlias = int | datetime
"""A moment: in ms since 1970, or a datetime that has a time zone."""

_LONGEST = 2_000_000.0
_EARLIEST = 10**11
_LATEST = 10**16
_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """The times of a feed, in seconds."""

    backoff_base: float = 0.5
    """The bound of the first pause between attempts."""
    backoff_most: float = 30.0
    """The bound of all pauses."""
    stable_after: float = 10.0
    """A connection that lasts so long is good: the pauses begin anew."""
    connect_timeout: float = 15.0
    """How long an attempt may take, with the questions for address and token."""
    ping_interval: float = 15.0
    """After so long without a message a sign of life is asked for."""
    ping_timeout: float = 10.0
    """A connection that gives none for so long is dead."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LONGEST:
                raise TypeError(
                    f"{field.name}: expected seconds, more than 0 and at most {_LONGEST:.0f}, not {value!r}"
                )


def whole(name: str, value: object, most: int) -> int:
    """A whole number from 1 to `most`."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
        return value
    raise TypeError(f"{name}: expected a whole number from 1 to {most}, not {value!r}")


def moment(name: str, value: object) -> int:
    """A moment in ms since 1970. 0 is before everything; any other one before 1973 was meant in another unit."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise TypeError(f"{name}: expected a datetime with a time zone, as datetime.now(UTC), not {value!r}")
        return round(value.timestamp() * 1000)
    if isinstance(value, int) and not isinstance(value, bool) and (value == 0 or _EARLIEST <= value <= _LATEST):
        return value
    raise TypeError(
        f"{name}: expected ms since 1970, a whole number as 1790000000000, or a datetime with a time zone, not "
        f"{value!r}: times are in ms since 1970, not in seconds"
    )


def stream_name(name: object) -> str:
    """The name of a stream, which is the server's to judge: here it is only seen that it may be one."""
    if isinstance(name, str) and 0 < name.find("@", 1) < len(name) - 1:
        return name
    raise TypeError(f"stream: expected a name as trade@TATA_INR, not {name!r}")


def market(name: object) -> str:
    """A market, as in the names of its streams."""
    if isinstance(name, str) and name and not set(name) & set("@!/"):
        return name
    raise TypeError(f"market: expected a market, as TATA_INR, not {name!r}")


def address(given: object, affinity: str) -> str:
    """The address to connect to, with the `affinity` that brings the client back to the same of several instances."""
    try:
        parts = urlsplit(given if isinstance(given, str) else "")
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or parts.scheme not in _SCHEMES:
        raise TypeError(
            "url: expected an address as wss://feed.example.com/, which begins with ws://, wss://, http:// or "
            f"https://, not {given!r}"
        )
    query = parts.query
    if not any(name == "affinity" for name, _ in parse_qsl(query, keep_blank_values=True)):
        query = f"{query}{'&' if query else ''}affinity={quote(affinity, safe='')}"
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, parts.path or "/", query, ""))
