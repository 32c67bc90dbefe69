"""The three dialects of a connection, and how a publication, a reply, an error, an event is spelled in each.

| dialect  | a publication               | a reply                                      |
|----------|-----------------------------|----------------------------------------------|
| house    | envelope                    | an envelope too, under the stream ``!reply`` |
| combined | envelope                    | ``{"result": …, "id": …}``                   |
| raw      | the publication's data only | the same                                     |

Everything here returns the bytes of one JSON text. The engine's bytes are spliced, never written anew.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Any

import msgspec

from marketfeed.wire.messages import RequestError, RequestId

__all__ = ["Dialect", "Shape", "event_text", "offset_tail", "publication_head", "split_tail"]

_encode = msgspec.json.encode
_OFFSET = b',"offset":"'


class Shape(IntEnum):
    """What stands around the data of a publication."""

    DATA = 0
    ENVELOPE = 1
    OFFSET = 2
    """An envelope that says the publication's offset, too."""

    @property
    def is_enveloped(self) -> bool:
        return self is not Shape.DATA


class Dialect(Enum):
    """How a connection speaks; `SET_PROPERTY combined` moves it between COMBINED and RAW."""

    HOUSE = "house"
    COMBINED = "combined"
    RAW = "raw"

    @property
    def enveloped(self) -> bool:
        """Whether a publication comes inside ``{"stream": …, "data": …}``."""
        return self is not Dialect.RAW

    def reply(self, result: Any, request_id: RequestId, **further: Any) -> bytes:
        """The answer to a request that succeeded; `further` stands beside its result."""
        repeated = {} if request_id is msgspec.UNSET else {"id": request_id}
        if self is Dialect.HOUSE:
            return _encode({"stream": "!reply", "data": {"e": "reply", **repeated, "result": result, **further}})
        return _encode({"result": result, **repeated, **further})

    def error(self, error: RequestError) -> bytes:
        """The answer to a request that failed."""
        fault = {"code": int(error.code), "msg": error.message}
        repeated = {} if error.request_id is msgspec.UNSET else {"id": error.request_id}
        if self is Dialect.HOUSE:
            return _encode({"stream": "!error", "data": {"e": "error", **fault, **repeated}})
        return _encode({"error": fault, **repeated})

    def event(self, event: msgspec.Struct) -> bytes:
        """A control event."""
        return event_text(event, self.enveloped)


def publication_head(spelling: str) -> bytes:
    """What stands before a publication's data in its envelope; a closing brace stands behind."""
    return b'{"stream":' + _encode(spelling) + b',"data":'


def offset_tail(offset: str) -> bytes:
    """What stands behind a publication's data in an envelope with its offset, of ASCII without quotes."""
    return b',"offset":"%b"}' % offset.encode()


def split_tail(text: bytes, shape: Shape) -> tuple[bytes, str]:
    """The data and the offset in what stands behind the head of an envelope; without one, the offset is empty."""
    if shape is not Shape.OFFSET:
        return text[:-1], ""
    data, _, tail = text.rpartition(_OFFSET)
    return data, tail[:-2].decode()


def event_text(event: msgspec.Struct, enveloped: bool) -> bytes:
    """A control event; its tag is the name of its stream."""
    data = _encode(event)
    if not enveloped:
        return data
    return publication_head(f"!{event.__struct_config__.tag}") + data + b"}"
