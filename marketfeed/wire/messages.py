"""What clients and the server say to each other: requests, error codes, control events.

The shapes are those of docs/protocol.md#requests. How each is spelled for a connection is in `dialects`.
"""

from __future__ import annotations

from enum import IntEnum, unique
from typing import Annotated, Any

import msgspec

from marketfeed.model.nesting import TOO_DEEP, is_too_deep

__all__ = [
    "ErrorCode",
    "Expiring",
    "Gap",
    "GapReason",
    "Quality",
    "QualityLevel",
    "Request",
    "RequestError",
    "RequestId",
    "ServerShutdown",
    "invalid_request",
    "parse_request",
]

RequestId = int | str | None | msgspec.UnsetType

_ID_LENGTH = 36
_Id = (
    Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | Annotated[str, msgspec.Meta(max_length=_ID_LENGTH)] | None
)
"""A `RequestId` as it may come."""

_any_json = msgspec.json.Decoder(msgspec.Raw)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


@unique
class ErrorCode(IntEnum):
    """The `code` of an error reply; the numbers are Binance's where Binance has one."""

    PROPERTY_NAME = 0
    PROPERTY_VALUE = 1
    INVALID_REQUEST = 2
    INVALID_JSON = 3
    TOO_MANY_SUBSCRIPTIONS = 4
    NOT_PERMITTED = 5
    AUTHENTICATION_FAILED = 6
    TOO_MANY_REQUESTS = 7


class RequestError(Exception):
    """A request that is answered with an error; the connection stays open."""

    def __init__(self, code: ErrorCode, message: str, request_id: RequestId = msgspec.UNSET) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.request_id = request_id


def invalid_request(fault: str, request_id: RequestId = msgspec.UNSET) -> RequestError:
    """What a client is told of a request in which a field is missing or wrong."""
    return RequestError(ErrorCode.INVALID_REQUEST, f"invalid request: {fault}", request_id)


class Request(msgspec.Struct, frozen=True):
    """A well-formed request; whether the method exists and its params fit is the session's to say."""

    method: str
    params: Any = msgspec.UNSET
    id: _Id | msgspec.UnsetType = msgspec.UNSET
    since: Any = msgspec.UNSET
    limit: Any = msgspec.UNSET
    rewind: Any = msgspec.UNSET
    before: Any = msgspec.UNSET


_request = msgspec.json.Decoder(Request)


def parse_request(payload: bytes) -> Request:
    """Read one text message. Raises `RequestError`: code 3, not JSON or too deep; or 2, a field is missing or wrong."""
    if is_too_deep(payload):
        raise RequestError(ErrorCode.INVALID_JSON, f"invalid JSON: {TOO_DEEP}")
    try:
        request = _request.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _parse_carefully(payload)
    return request if payload.isascii() else _parse_carefully(payload)


def _parse_carefully(payload: bytes) -> Request:
    """The same, for a request in which something may be wrong: it says what."""
    try:
        payload.decode()
        _any_json.decode(payload)  # all of it, or what is broken further on would pass for a wrong field
        fields = _fields.decode(payload)
    except UnicodeDecodeError as error:
        raise RequestError(ErrorCode.INVALID_JSON, f"invalid JSON: not UTF-8 (byte {error.start})") from None
    except msgspec.ValidationError:
        raise invalid_request("expected a JSON object with a method") from None
    except msgspec.DecodeError as error:
        raise RequestError(ErrorCode.INVALID_JSON, _json_fault(str(error), len(payload))) from None
    request_id = _field(fields, "id", msgspec.UNSET)
    try:
        if request_id is not msgspec.UNSET:
            msgspec.convert(request_id, _Id)
    except msgspec.ValidationError:
        fault = f"id must be a signed 64-bit integer, a string of up to {_ID_LENGTH} characters, or null"
        raise invalid_request(fault) from None
    method = _field(fields, "method", request_id)
    if not isinstance(method, str):
        fault = "method is missing" if method is msgspec.UNSET else "method must be a string"
        raise invalid_request(fault, request_id)
    values = [_field(fields, name, request_id) for name in ("params", "since", "limit", "rewind", "before")]
    params, since, limit, rewind, before = values
    return Request(method, params, request_id, since, limit, rewind, before)


def _field(fields: dict[str, msgspec.Raw], name: str, request_id: RequestId) -> Any:
    """The value of one field, UNSET when it is absent. The fields that nobody asks for are never read."""
    try:
        return msgspec.json.decode(fields[name]) if name in fields else msgspec.UNSET
    except msgspec.DecodeError:  # well-formed all the same
        raise invalid_request(f"{name} has a number out of range", request_id) from None


def _json_fault(error: str, size: int) -> str:
    if "truncated" in error:
        return f"invalid JSON: unexpected end (byte {size})"
    return f"invalid JSON: {error.removeprefix('JSON is malformed: ')}"


class GapReason:
    """Why publications may have been missed."""

    SOURCE_DOWN = "source-down"
    SOURCE_REFUSED = "source-refused"
    ENGINE_SILENT = "engine-silent"
    NO_CANDLES = "no-candles"
    BOOK_UNKNOWN = "book-unknown"
    SEQUENCE = "sequence"

    WHILE_FLOWING = frozenset((ENGINE_SILENT, NO_CANDLES, BOOK_UNKNOWN))
    """The stream is confirmed, and nothing can be published on it."""


class Gap(msgspec.Struct, frozen=True, tag_field="e", tag="gap", rename={"since": "from", "until": "to"}):
    """Publications of `streams` (as this client spelled them) may have been missed.

    `since` and `until` are in ms since 1970: the last moment known good, and the first again; the latter is None
    while the gap lasts.
    """

    streams: list[str]
    reason: str
    since: int
    until: int | None


class QualityLevel:
    """Whether a client gets all that is published on its streams."""

    THINNED = "thinned"
    LIVE = "live"


class Quality(msgspec.Struct, frozen=True, tag_field="e", tag="quality", rename={"at": "E"}):
    """Of `streams` (as this client spelled them) something is left out or merged, or is not any more.

    `at` is in ms since 1970.
    """

    streams: list[str]
    level: str
    at: int


class ServerShutdown(msgspec.Struct, frozen=True, tag_field="e", tag="serverShutdown", rename={"at": "E"}):
    """Sent before a drain closes the connection; `at` is in ms since 1970, `reconnectAfter` in ms."""

    at: int
    reconnectAfter: int


class Expiring(msgspec.Struct, frozen=True, tag_field="e", tag="expiring", rename={"at": "E", "expires": "expiresAt"}):
    """Sent one minute before the client's token expires; AUTH renews it. Both in ms since 1970."""

    at: int
    expires: int
