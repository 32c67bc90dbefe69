"""What the fields of a request hold, by method (docs/protocol.md#requests), what HISTORY answers, and what is too much.

Each function returns what its field says, or raises `RequestError` with what is wrong and what would be accepted.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from enum import Enum
from typing import Any

import msgspec

from marketfeed.boundaries import Entry
from marketfeed.model.streams import BadStreamName, StreamKinds, StreamName
from marketfeed.wire.messages import ErrorCode, Request, RequestError, RequestId, invalid_request, parse_request

__all__ = [
    "MOST_HISTORY",
    "Property",
    "as_history",
    "before_of",
    "history_of",
    "kept_elsewhere",
    "property_of",
    "refusal_of",
    "refused",
    "rewind_of",
    "since_of",
    "streams_of",
    "token_of",
    "too_many",
    "too_many_streams",
    "unknown_method",
    "unknown_offset",
    "value_of",
]

MOST_HISTORY = 1000
_HISTORY = 100
"""Publications that HISTORY answers where it names no limit."""
_AROUND = len('{"offset":"","data":},')
_SHOWN = 80  # of what a client sent, the most that an error repeats


class Property(Enum):
    """What can be set for a connection; all are true or false."""

    COMBINED = "combined"
    OFFSETS = "offsets"
    SNAPSHOT = "snapshot"
    EVENTS = "events"


_PROPERTIES = ", ".join(each.value for each in Property)


def streams_of(request: Request, kinds: StreamKinds, most: int, *, on_paths: bool = False) -> dict[str, StreamName]:
    """The streams that `params` names, by spelling; at most `most`. `on_paths`: on `/stream` or `/ws`."""
    params = request.params
    if not isinstance(params, list):
        fault = "params is missing" if params is msgspec.UNSET else "params must be a list"
        raise invalid_request(f'{fault}; expected streams, as ["trade@TATA_INR"]')
    if len(params) > most:
        raise too_many_streams(most)
    streams = {}
    for index, spelling in enumerate(params):
        if not isinstance(spelling, str):
            raise invalid_request(f"params[{index}] must be the name of a stream")
        try:
            streams[spelling] = kinds.parse(spelling, on_paths=on_paths)
        except BadStreamName as error:
            raise invalid_request(f"params[{index}]: {error}") from None
    return streams


def since_of(request: Request, streams: Container[str], present: Container[str]) -> dict[str, str]:
    """The offsets that `since` names, by spelling: of streams among `streams` that are not `present` already."""
    since = request.since
    if since is msgspec.UNSET or since is None:
        return {}
    if not isinstance(since, dict):
        raise invalid_request('since must be an object, as {"trade@TATA_INR":"<offset>"}')
    for spelling, offset in since.items():
        shown = repr(spelling[:_SHOWN])
        if spelling not in streams:
            raise invalid_request(f"since names {shown}, which params does not")
        if spelling in present:
            raise invalid_request(f"since names {shown}, which is subscribed already; unsubscribe first")
        if not isinstance(offset, str):
            raise invalid_request(f"since: the offset of {shown} must be a string")
    return since


def rewind_of(request: Request, streams: Mapping[str, StreamName], since: Container[str]) -> int:
    """How many of the last publications `rewind` asks for, of those of `streams` that `since` does not name; or 0."""
    count = request.rewind
    if count is msgspec.UNSET or count is None:
        return 0
    if type(count) is not int or not 1 <= count <= MOST_HISTORY:
        raise invalid_request(f"rewind must be a whole number from 1 to {MOST_HISTORY}")
    for spelling, name in streams.items():
        if not name.kind.is_rewound and spelling not in since:
            fault = f"rewind: {spelling} has no last publications that say something by themselves"
            raise invalid_request(f"{fault}; subscribe to it without rewind")
    return count


def history_of(request: Request, kinds: StreamKinds, *, on_paths: bool = False) -> tuple[dict[str, StreamName], int]:
    """The one stream of a HISTORY, by its spelling, and the most publications that it asks for."""
    params = request.params
    if not isinstance(params, list) or len(params) != 1:
        raise invalid_request('params must be one stream, as ["trade@TATA_INR"]')
    limit = _HISTORY if request.limit is msgspec.UNSET else request.limit
    if type(limit) is not int or not 1 <= limit <= MOST_HISTORY:
        raise invalid_request(f"limit must be a whole number from 1 to {MOST_HISTORY}")
    return streams_of(request, kinds, 1, on_paths=on_paths), limit


def before_of(request: Request) -> str | None:
    """The offset before which a HISTORY ends; None: it ends with the newest publication."""
    before = request.before
    if before is msgspec.UNSET or before is None:
        return None
    if not isinstance(before, str):
        raise invalid_request("before must be an offset, a string")
    return before


def unknown_offset(spelling: str) -> RequestError:
    """What a client is told that asks what was before a place which its stream does not have here."""
    fault = f"before is no offset of {spelling} that is known here"
    return invalid_request(f"{fault}; expected one that came on this connection, or none for the newest")


def no_history(name: StreamName) -> RequestError:
    """What a client is told that asks for the past of what is made of another stream."""
    made = name.kind.from_book
    of = "" if made is None else f"; it is made of {made.of}@{name.market}, which has"
    return invalid_request(f"params[0]: {name} has no history{of}")


def kept_elsewhere(name: StreamName, request_id: RequestId) -> RequestError:
    """What a client is told that asks for the past of what the candle service makes, where nothing of it is kept."""
    kind, _, interval = name.kind.name.partition("_")
    past = "the last 24 hours are at GET /api/v3/ticker/24hr"
    if kind == "kline":
        past = f"past candles are at GET /api/v3/klines?symbol={name.market}&interval={interval}"
    return invalid_request(f"params[0]: {name} has no history here; {past}", request_id)


def as_history(entries: list[Entry], most: int) -> list[dict[str, Any]]:
    """What HISTORY answers: of `entries`, oldest first, the newest that take at most `most` bytes of text."""
    kept = []
    for offset, data in reversed(entries):
        most -= len(offset) + len(data) + _AROUND
        if most < 0:
            break
        kept.append({"offset": offset, "data": msgspec.Raw(data)})
    return kept[::-1]


def property_of(request: Request) -> Property:
    """The property that GET_PROPERTY asks for."""
    params = request.params
    if not isinstance(params, list) or len(params) != 1:
        raise invalid_request('params must be one property, as ["combined"]')
    return _property(params[0])


def value_of(request: Request) -> tuple[Property, Any]:
    """What SET_PROPERTY sets; whether the value fits it is not looked at."""
    params = request.params
    if not isinstance(params, list) or len(params) != 2:
        raise invalid_request('params must be a property and its value, as ["combined",true]')
    return _property(params[0]), params[1]


def unknown_method(known: Iterable[str]) -> RequestError:
    """What a client is told of a method that is none of these; it is not repeated."""
    return invalid_request(f"method must be one of {', '.join(known)}")


def token_of(request: Request) -> str:
    """The token of an AUTH."""
    params = request.params
    if not isinstance(params, list) or len(params) != 1 or not isinstance(params[0], str):
        raise invalid_request('params must be one token, as ["eyJ…"]')
    return params[0]


def too_many_streams(most: int) -> RequestError:
    """What a client is told that wants more than `most` streams."""
    return too_many(f"too many subscriptions: at most {most} on a connection")


def too_many(why: str, request_id: RequestId = msgspec.UNSET) -> RequestError:
    """What a client is told for whose streams there is no room."""
    return RequestError(ErrorCode.TOO_MANY_SUBSCRIPTIONS, why, request_id)


def refusal_of(payload: bytes, why: str) -> RequestError:
    """What a client is told about a request that is one too many; only its id is of interest."""
    try:
        return refused(parse_request(payload).id, why)
    except RequestError as error:
        return refused(error.request_id, why)


def refused(request_id: RequestId, why: str) -> RequestError:
    """What a client is told about a request that it may try again later."""
    return RequestError(ErrorCode.TOO_MANY_REQUESTS, f"too many requests: {why}; try again later", request_id)


def _property(name: Any) -> Property:
    if not isinstance(name, str):
        raise invalid_request("params[0] must be the name of a property")
    try:
        return Property(name)
    except ValueError:
        raise RequestError(ErrorCode.PROPERTY_NAME, f"unknown property: expected one of {_PROPERTIES}") from None
