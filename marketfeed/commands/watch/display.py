"""What `marketfeed watch` shows: a message of the server, spelled as one line. Pure.

1. The server is not trusted. Any message is spelled as a line, without an exception.
2. A line holds only printable characters and, where colour is asked for, the codes of `COLOURS`: nothing that a
   server sends can move the cursor, hide text or start a new line.
3. Numbers are shown in the engine's own spelling, never converted first.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Any

import msgspec

from marketfeed.commands.messages import Event, Publication, Refusal
from marketfeed.model.kinds import SHOWN
from marketfeed.model.kinds.columns import WORD, as_text, clean, word
from marketfeed.model.kinds.kind import StreamKind

__all__ = ["COLOURS", "market_of", "paint", "show_event", "show_publication", "show_refusal"]

COLOURS = {"buy": "\x1b[32m", "sell": "\x1b[31m", "time": "\x1b[2m", "end": "\x1b[0m"}

_LISTED = 5
_QUALITY = {
    "thinned": "something is left out or merged, for this client reads too slowly",
    "live": "everything comes again",
}


class _Envelope(msgspec.Struct):
    data: msgspec.Raw


def show_publication(
    publication: Publication, received: datetime, *, colour: bool = False, kinds: Mapping[str, StreamKind] = SHOWN
) -> str:
    """The line for a publication, of one market. `kinds`: by their names, and what their publications have as `e`."""
    time = paint("time", f"{received:%H:%M:%S}.{received.microsecond // 1000:03}", colour)
    event = publication.data.get("e")
    kind = kinds.get(event) if isinstance(event, str) else None
    if kind is not None and kind.columns is not None:
        columns = [column.label + paint(column.side, column.text, colour) for column in kind.columns(publication.data)]
        return f"{time}  {market_of(publication, kinds):<12}  {_kind(kind):<6}  {'  '.join(columns)}".rstrip()
    stream = f"{clean(publication.stream, 2 * WORD)}  " if publication.stream else ""
    return f"{time}  {stream}{_compact(publication.text)}"


def show_event(event: Event, zone: tzinfo) -> str:
    """The line for a control event; times are shown in `zone`."""
    if event.name == "gap":
        return _show_gap(event.data, zone)
    if event.name == "quality":
        return _show_quality(event.data, zone)
    if event.name == "serverShutdown":
        after = event.reconnect_after
        return "the server is shutting down" + ("" if after is None else f"; it asks to stay away for {after:.1f} s")
    return f"event {clean(event.name, WORD)}: {_compact(event.text)}"


def show_refusal(refusal: Refusal) -> str:
    """The line for a request that has failed."""
    return f"error {word(refusal.code)}: {clean(as_text(refusal.message))}"


# Publications.


def _kind(kind: StreamKind) -> str:
    """How long candles are stands in a column of its own."""
    return kind.name.partition("_")[0]


def market_of(publication: Publication, kinds: Mapping[str, StreamKind] = SHOWN) -> str:
    """From the stream's name, which may be reversed (docs/protocol.md#streams), or else from the data."""
    left, at, rest = publication.stream.partition("@")
    if not at:
        return word(publication.data.get("s"))
    right = rest.partition("@")[0]
    return word(left.upper() if right in kinds and left not in kinds else right)


# Events.


def _show_gap(data: dict[str, Any], zone: tzinfo) -> str:
    streams = _streams(data.get("streams"))
    since, reason = _moment(data.get("from"), zone), word(data.get("reason"))
    if data.get("to") is None:
        return f"gap: {streams}: what is published since {since} may be missing ({reason})"
    until = _moment(data.get("to"), zone)
    return f"gap closed: {streams}: what was published from {since} to {until} may be missing ({reason})"


def _show_quality(data: dict[str, Any], zone: tzinfo) -> str:
    streams, level = _streams(data.get("streams")), word(data.get("level"))
    told = _QUALITY.get(level, f"the quality is {level}")
    return f"quality: {streams}: since {_moment(data.get('E'), zone)} {told}"


def _streams(listed: Any) -> str:
    """The first of a list of names."""
    names = [word(name) for name in listed] if isinstance(listed, list) else []
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _moment(value: Any, zone: tzinfo) -> str:
    """A time in ms since 1970, to be read by a human."""
    try:
        return f"{datetime.fromtimestamp(int(value) / 1000, zone):%H:%M:%S}"
    except (TypeError, ValueError, OverflowError, OSError):
        return word(value)


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


def paint(colour_of: str, text: str, colour: bool) -> str:
    """`text` in one of `COLOURS`, where colours are wanted."""
    if not colour or not text or colour_of not in COLOURS:
        return text
    return COLOURS[colour_of] + text + COLOURS["end"]
