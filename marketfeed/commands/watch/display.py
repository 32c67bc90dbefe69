"""What `marketfeed watch` shows: a message of the server is read, then spelled as one line. Pure.

1. The server is not trusted. Any bytes are read as some message, any message is spelled as a line; neither raises.
2. A line holds only printable characters and, where colour is asked for, the codes of `COLOURS`: nothing that a
   server sends can move the cursor, hide text or start a new line.
3. Numbers are shown in the engine's own spelling, never converted first.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

__all__ = [
    "COLOURS",
    "Event",
    "Message",
    "Publication",
    "Refusal",
    "Reply",
    "clean",
    "read_message",
    "show_event",
    "show_publication",
    "show_refusal",
]

COLOURS = {"buy": "\x1b[32m", "sell": "\x1b[31m", "time": "\x1b[2m", "end": "\x1b[0m"}

_WORD = 40  # characters of a market, a price, a quantity
_TEXT = 2000  # characters of everything else that has no bounds of its own
_LISTED = 5
_LONGEST_DECIMAL = 64
_KINDS = {"trade": "trade", "depth": "depth", "depthUpdate": "depth", "ticker": "ticker", "24hrTicker": "ticker"}
_EVENTS = ("gap", "serverShutdown", "expiring")


class Publication(msgspec.Struct, frozen=True):
    """What was published on a stream, or anything else that is none of the other messages.

    `stream` is empty where the dialect names none. `data` has every number as text. `text`: the message as it came.
    """

    stream: str
    data: dict[str, Any]
    text: str


class Reply(msgspec.Struct, frozen=True):
    """A request has succeeded."""


class Refusal(msgspec.Struct, frozen=True):
    """A request has failed."""

    code: Any
    message: Any


class Event(msgspec.Struct, frozen=True):
    """A control event (docs/protocol.md)."""

    name: str
    data: dict[str, Any]
    text: str

    @property
    def reconnect_after(self) -> float | None:
        """Seconds that the server asks to stay away, where it does."""
        milliseconds = _decimal(self.data.get("reconnectAfter"))
        return None if milliseconds is None else float(milliseconds) / 1000


Message = Publication | Reply | Refusal | Event


class _Envelope(msgspec.Struct):
    data: msgspec.Raw


_read_json = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).decode


def read_message(payload: bytes) -> Message:
    """Read one message of any dialect."""
    text = payload.decode("utf-8", "replace")
    try:
        fields = _read_json(text)
    except (ValueError, RecursionError):
        return Publication("", {}, text)
    if not isinstance(fields, dict):
        return Publication("", {}, text)
    stream, data = fields.get("stream"), fields.get("data")
    if isinstance(stream, str) and isinstance(data, dict):
        return _read_envelope(stream, data, text)
    name = fields.get("e")
    if name in _EVENTS:
        return Event(name, fields, text)
    if name is None and isinstance(fields.get("error"), dict):
        return Refusal(fields["error"].get("code"), fields["error"].get("msg"))
    if name is None and "result" in fields:
        return Reply()
    return Publication("", fields, text)


def _read_envelope(stream: str, data: dict[str, Any], text: str) -> Message:
    if stream == "!reply":
        return Reply()
    if stream == "!error":
        return Refusal(data.get("code"), data.get("msg"))
    if stream.startswith("!"):
        return Event(stream[1:], data, text)
    return Publication(stream, data, text)


def show_publication(publication: Publication, received: datetime, *, colour: bool = False) -> str:
    """The line for a publication."""
    time = _paint("time", f"{received:%H:%M:%S}.{received.microsecond // 1000:03}", colour)
    name = publication.data.get("e")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is not None:
        return f"{time}  {_market(publication):<12}  {kind:<6}  {_SPELLINGS[kind](publication.data, colour)}"
    stream = f"{clean(publication.stream, 2 * _WORD)}  " if publication.stream else ""
    return f"{time}  {stream}{_compact(publication.text)}"


def show_event(event: Event, zone: tzinfo) -> str:
    """The line for a control event; times are shown in `zone`."""
    if event.name == "gap":
        return _show_gap(event.data, zone)
    if event.name == "serverShutdown":
        after = event.reconnect_after
        return "the server is shutting down" + ("" if after is None else f"; it asks to stay away for {after:.1f} s")
    return f"event {clean(event.name, _WORD)}: {_compact(event.text)}"


def show_refusal(refusal: Refusal) -> str:
    """The line for a request that has failed."""
    return f"error {_word(refusal.code)}: {clean(_as_text(refusal.message))}"


def clean(text: str, limit: int = _TEXT) -> str:
    """`text` without anything that a terminal would not simply print, and not longer than `limit`."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


# Publications.


def _show_trade(data: dict[str, Any], colour: bool) -> str:
    side = "-"
    if isinstance(data.get("m"), bool):
        side = "sell" if data["m"] else "buy"  # where the buyer is the maker, the taker has sold
    return f"{_word(data.get('p')):>14}  {_word(data.get('q')):>14}  {_paint(side, side, colour)}"


def _show_depth(data: dict[str, Any], colour: bool) -> str:
    bids, asks = (side if isinstance(side, list) else [] for side in (data.get("b"), data.get("a")))
    best_bid = _paint("buy", f"{_best(bids, max):<22}", colour)
    best_ask = _paint("sell", f"{_best(asks, min):<22}", colour)
    whole = ", snapshot" if data.get("snapshot") is True else ""
    return f"bid {best_bid}  ask {best_ask}  {_count(bids, 'bid')}, {_count(asks, 'ask')}{whole}"


def _show_ticker(data: dict[str, Any], colour: bool) -> str:
    changes = [_signed(data.get("p")), _signed(data.get("P"), "%")]
    change = "  ".join(f"{text:>10}" for text in changes if text)
    side = "sell" if change.lstrip().startswith("-") else "buy"
    return f"{_word(data.get('c')):>14}  {_paint(side, change, colour)}".rstrip()


_SPELLINGS: dict[str, Callable[[dict[str, Any], bool], str]] = {
    "trade": _show_trade,
    "depth": _show_depth,
    "ticker": _show_ticker,
}


def _market(publication: Publication) -> str:
    """From the stream's name, which may be reversed (docs/protocol.md), or else from the data."""
    left, at, rest = publication.stream.partition("@")
    if not at:
        return _word(publication.data.get("s"))
    right = rest.partition("@")[0]
    return _word(left.upper() if right in _KINDS and left not in _KINDS else right)


def _best(levels: list[Any], best: Callable[..., tuple[Decimal, Any]]) -> str:
    """The changed level that is nearest to the other side, gone ones too: that is where the price is made."""
    good = [
        (price, level)
        for level in levels
        if isinstance(level, list) and len(level) > 1 and (price := _decimal(level[0])) is not None
    ]
    if not good:
        return "-"
    _, (price, quantity, *_) = best(good, key=lambda item: item[0])
    return f"{_word(price)} gone" if _decimal(quantity) == 0 else f"{_word(price)} x {_word(quantity)}"


def _count(levels: list[Any], noun: str) -> str:
    return f"{len(levels)} {noun}" if len(levels) == 1 else f"{len(levels)} {noun}s"


def _signed(value: Any, unit: str = "") -> str:
    if _decimal(value) is None:
        return ""
    text = _word(value) + unit
    return text if text.startswith(("-", "+")) else f"+{text}"


# Events.


def _show_gap(data: dict[str, Any], zone: tzinfo) -> str:
    listed = data.get("streams")
    names = [_word(name) for name in listed] if isinstance(listed, list) else []
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    streams = ", ".join(names[:_LISTED]) + more
    since, reason = _moment(data.get("from"), zone), _word(data.get("reason"))
    if data.get("to") is None:
        return f"gap: {streams}: what is published since {since} may be missing ({reason})"
    until = _moment(data.get("to"), zone)
    return f"gap closed: {streams}: what was published from {since} to {until} may be missing ({reason})"


def _moment(value: Any, zone: tzinfo) -> str:
    """A time in ms since 1970, to be read by a human."""
    try:
        return f"{datetime.fromtimestamp(int(value) / 1000, zone):%H:%M:%S}"
    except (TypeError, ValueError, OverflowError, OSError):
        return _word(value)


# Values.


def _word(value: Any) -> str:
    return clean(_as_text(value), _WORD) or "-"


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else "-"


def _decimal(value: Any) -> Decimal | None:
    """The finite number that a text spells, or None."""
    if not isinstance(value, str) or len(value) > _LONGEST_DECIMAL:
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _compact(text: str) -> str:
    """A JSON text, without its envelope, on one line with nothing that means nothing; or any other text as it is."""
    try:
        body = bytes(msgspec.json.decode(text, type=_Envelope).data).decode()
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        body = text
    try:
        body = msgspec.json.format(body, indent=-1)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        body = " ".join(body.split())
    return clean(body)


def _paint(colour_of: str, text: str, colour: bool) -> str:
    if not colour or not text or colour_of not in COLOURS:
        return text
    return COLOURS[colour_of] + text + COLOURS["end"]
