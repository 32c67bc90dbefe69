"""What a trading engine publishes, and what is wrong with it (docs/protocol.md#what-the-engine-publishes).

1. A payload is read once. What clients get as `data` are the engine's own bytes, a slice of the payload.
2. What its kind requires is said by the kind (`kinds`).
3. A payload is wrapped when its `stream` names this stream and its `data` is what the kind requires; any other is read
   bare, where `stream` and `data` are fields like others.
4. A payload that a strict daemon drops raises `BadPublication`, which says why, and holds the bytes that a lenient
   one forwards all the same.
5. Nearly all payloads are good and plainly written. They are read quickly, by what is sure to be good; any other is
   read with care, and both ways agree about what they both can read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, ClassVar, Final

import msgspec

from marketfeed.model.kinds.fields import Plain
from marketfeed.model.nesting import MAX_NESTING, TOO_DEEP, is_too_deep
from marketfeed.model.streams import StreamName

__all__ = ["BadPublication", "DropReason", "PublicationReader"]

_BLANKS: Final = b" \t\r\n"  # of JSON
_SHOWN: Final = 80  # of what an engine wrote, the most that a fault repeats
_KEPT: Final = 2048  # bytes of a payload, beyond which what it is read as would take too much memory in every stream
_SHALLOW: Final = 2 * (MAX_NESTING + 1)  # bytes; what has fewer cannot nest too deeply


class DropReason:
    """Why a publication is dropped; the names under which drops are counted."""

    TOO_LARGE: ClassVar = "too-large"
    NOT_UTF8: ClassVar = "not-utf8"
    NOT_JSON: ClassVar = "not-json"
    NOT_OBJECT: ClassVar = "not-object"
    WRONG_STREAM: ClassVar = "wrong-stream"
    BAD_FIELD: ClassVar = "bad-field"

    ALL: ClassVar = (TOO_LARGE, NOT_UTF8, NOT_JSON, NOT_OBJECT, WRONG_STREAM, BAD_FIELD)


class BadPublication(ValueError):
    """The payload is not what its kind requires. `data`: a JSON object that could be forwarded, or None."""

    def __init__(self, reason: str, fault: str, data: bytes | None = None) -> None:
        super().__init__(fault)
        self.reason = reason
        self.fault = fault
        self.data = data


# Not a class statement: this module is compiled, and msgspec's classes are not to be.
_Envelope: Any = msgspec.defstruct("_Envelope", [("stream", str), ("data", msgspec.Raw)], gc=False)
_envelope = msgspec.json.Decoder(_Envelope)
_any_json = msgspec.json.Decoder(msgspec.Raw)
_WRAPPED: Final = b'{"stream"'
_BRACES: Final = b"}}"
_BRACE: Final = ord("{")
_BRACKET: Final = ord("[")


@lru_cache
def _decoder(shape: Any) -> Callable[[bytes], Any]:
    """One for all streams of a kind."""
    return msgspec.json.Decoder(shape).decode


class PublicationReader:
    """Reads the payloads of one stream.

    `names`: what the `stream` of a wrapped payload may be: the stream's name, with and without the channel prefix.
    """

    __slots__ = (
        "_check",
        "_decode",
        "_decode_plain",
        "_head",
        "_heads",
        "_is_good",
        "_is_shaped",
        "_max_payload",
        "_names",
        "_plain_size",
        "_start",
        "data",
        "plain",
    )

    def __init__(self, stream: StreamName, names: Iterable[str], max_payload: int) -> None:
        shape = stream.kind.shape
        self._check = shape.fault
        self._is_good = shape.is_good
        self._is_shaped = shape.plain is not None
        self._decode = _decoder(shape.fields)
        self._names = frozenset(names)
        self._heads = tuple([_head(name, blank) for name in self._names for blank in (b"", b" ")])
        self._head = self._heads[0]
        self._max_payload = max_payload
        plain: Any = shape.plain or Plain
        self._decode_plain = _decoder(plain)
        self._plain_size = max_payload if self._is_shaped else -1
        self._start = len(self._head) - 1
        self.data = b""
        """What was read last of all that is plainly written, and not large;"""
        self.plain: Plain | None = None
        """and what it was read as, for whoever would read it again."""

    def read(self, payload: bytes) -> bytes:
        """The bytes of the publication's data. Raises `BadPublication`."""
        size = len(payload)
        if size <= self._plain_size and payload.isascii():
            data = payload
            if payload.startswith(self._head) and payload.endswith(_BRACES):
                data = payload[self._start : -1]
            elif payload.startswith(_WRAPPED):
                data = self._plainly_unwrapped(payload)
            try:
                plain = self._decode_plain(data)
                if self._is_good(plain) and (
                    size < _SHALLOW
                    or (_BRACE not in data[1:] and (_BRACKET not in data or plain.has_few_lists(data)))
                    or not is_too_deep(payload)
                ):
                    if size < _KEPT:
                        self.data, self.plain = data, plain
                    return data
            except (msgspec.DecodeError, RecursionError):
                pass
        return self._read_carefully(payload)

    def _plainly_unwrapped(self, payload: bytes) -> bytes:
        """The data of a payload that is wrapped for this stream as most encoders write it; otherwise nothing."""
        for head in self._heads if payload.endswith(_BRACES) else ():
            if payload.startswith(head):
                self._head = head  # the engine goes on as it has begun
                self._start = len(head) - 1
                return payload[self._start : -1]
        return b""

    def _read_carefully(self, payload: bytes) -> bytes:
        if len(payload) > self._max_payload:
            raise BadPublication(
                DropReason.TOO_LARGE, f"{len(payload)} bytes, more than --max-payload {self._max_payload}"
            )
        if not payload.isascii():
            try:
                payload.decode()
            except UnicodeDecodeError as error:
                raise BadPublication(DropReason.NOT_UTF8, f"not UTF-8 at byte {error.start}") from None
        if is_too_deep(payload):
            raise BadPublication(DropReason.NOT_JSON, TOO_DEEP)
        try:
            if self._is_shaped and not payload.startswith(_WRAPPED) and self._fault(payload) is None:
                return payload
            return self._unwrapped(payload)
        except msgspec.DecodeError as error:
            raise BadPublication(DropReason.NOT_JSON, _short(str(error))) from None

    def _unwrapped(self, payload: bytes) -> bytes:
        """The data of a payload that is wrapped for this stream, in any layout, or else the payload itself."""
        try:
            envelope: Any = _envelope.decode(payload)
        except msgspec.ValidationError:
            envelope = None
        data = bytes(envelope.data) if envelope is not None and envelope.stream in self._names else payload
        fault = self._fault(data)
        if fault is None:
            return data
        if data is not payload and self._fault(payload) is None:
            return payload
        if data is payload and envelope is not None and _is_object(envelope.data):
            wrong = f"wrapped for the stream {envelope.stream[:_SHOWN]!r}"
            raise BadPublication(DropReason.WRONG_STREAM, wrong, bytes(envelope.data))
        if not _is_object(data):
            raise BadPublication(DropReason.NOT_OBJECT, "not a JSON object")
        raise BadPublication(DropReason.BAD_FIELD, fault, data)

    def _fault(self, data: bytes) -> str | None:
        """What this kind of stream does not permit in `data`. Raises `DecodeError` when it is not JSON."""
        try:
            return self._check(self._decode(data))
        except msgspec.ValidationError as error:
            return _short(str(error))


def _head(name: str, blank: bytes) -> bytes:
    """What stands before the data, without blanks or with those of Python's encoder; and the brace that begins it."""
    stream = msgspec.json.encode(name)
    return b'{"stream":%b%b,%b"data":%b{' % (blank, stream, blank, blank)


def _is_object(data: bytes | msgspec.Raw) -> bool:
    """Whether `data` is a JSON object. Raises `DecodeError` when it is not JSON."""
    _any_json.decode(data)
    return bytes(data).lstrip(_BLANKS).startswith(b"{")


def _short(fault: str) -> str:
    """`fault`, which may repeat a field of any length."""
    return fault if len(fault) <= 2 * _SHOWN else f"{fault[:_SHOWN]}…{fault[-_SHOWN:]}"
