"""The lines of a recording: publications, byte for byte, and what must be known to judge them. Pure.

1. A line is one JSON object. Whatever bytes a stream's name and a payload hold, they are read back exactly: as a
   string where they are UTF-8, otherwise in base64 under a key that ends in 64.
2. `time` is in µs since 1970 and never goes back within a file.
3. From `begin` to `end` nothing is missing but what a `gap` admits. A file without `end` was cut off: its recorder
   was killed, or is still at work.
4. However a file is cut off, what is read from it is the beginning of what was written, and then `CutOff`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Annotated, Any

import msgspec

from marketfeed.commands.recording.gzip_members import CutOff, Damaged, unpacked
from marketfeed.model.nesting import TOO_DEEP, is_too_deep

__all__ = [
    "BadLine",
    "Begin",
    "End",
    "Gap",
    "Publication",
    "Record",
    "read_line",
    "read_records",
    "write_publication",
    "write_record",
]

VERSION = 1
_MAX_LINE = 1 << 30

_Moment = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
_Count = Annotated[int, msgspec.Meta(ge=0)]


class Publication(msgspec.Struct, frozen=True, gc=False):
    """What was published on a stream, which goes by its channel without the prefix."""

    time: int
    stream: bytes
    data: bytes


class Begin(msgspec.Struct, frozen=True):
    """The first line of a file, the `number`th of its recording; everything that `patterns` cover follows."""

    time: int
    number: int
    patterns: tuple[str, ...]


class Gap(msgspec.Struct, frozen=True):
    """Between `since` and `until`, in µs since 1970, publications may have been missed."""

    time: int
    since: int
    until: int


class End(msgspec.Struct, frozen=True):
    """The last line of a file that was finished, and how many publications it has."""

    time: int
    publications: int


Record = Publication | Begin | Gap | End


class BadLine(ValueError):
    """A line is none of a recording's. `number`: which, from 1; the message says what would be accepted."""

    def __init__(self, number: int, fault: str) -> None:
        super().__init__(fault)
        self.number = number


class _Line(msgspec.Struct, gc=False):
    time: _Moment
    stream: str | None = None
    stream64: bytes | None = None
    data: str | None = None
    data64: bytes | None = None
    event: str | None = None
    version: int = VERSION
    number: _Count = 1
    patterns: tuple[str, ...] = ()
    since: _Moment | None = msgspec.field(default=None, name="from")
    until: _Moment | None = msgspec.field(default=None, name="to")
    publications: _Count = 0


_decode = msgspec.json.Decoder(_Line).decode
_encode = msgspec.json.Encoder().encode


# Writing.


def write_publication(time: int, stream: bytes, data: bytes) -> bytes:
    """The line of one publication."""
    return b'{"time":%d,%b,%b}\n' % (time, _stream_member(stream), _member("data", data))


def write_record(record: Record) -> bytes:
    """The line of any record."""
    fields: dict[str, Any]
    match record:
        case Publication(time, stream, data):
            return write_publication(time, stream, data)
        case Begin(time, number, patterns):
            fields = {"event": "begin", "version": VERSION, "number": number, "patterns": patterns}
        case Gap(time, since, until):
            fields = {"event": "gap", "from": since, "to": until}
        case _:
            fields = {"event": "end", "publications": record.publications}
    return _encode({"time": record.time, **fields}) + b"\n"


def _member(key: str, value: bytes) -> bytes:
    try:
        return b'"%b":%b' % (key.encode(), _encode(value.decode()))
    except UnicodeDecodeError:
        return b'"%b64":"%b"' % (key.encode(), b64encode(value))


@lru_cache(4096)
def _stream_member(stream: bytes) -> bytes:
    return _member("stream", stream)


# Reading.


def read_line(text: bytes) -> Record:
    """The record that a line holds. Raises ValueError, which says what would be accepted."""
    if is_too_deep(text):
        raise ValueError(f"expected a line that marketfeed record has written: {TOO_DEEP}")
    try:
        line = _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"expected a line that marketfeed record has written: {error}") from None
    if line.event is not None:
        return _event(line)
    stream = _bytes(line.stream, line.stream64)
    data = _bytes(line.data, line.data64)
    if stream is None or data is None:
        raise ValueError("expected one of stream and stream64, and one of data and data64")
    return Publication(line.time, stream, data)


def _event(line: _Line) -> Record:
    match line.event:
        case "begin":
            if line.version != VERSION:
                raise ValueError(f"version {line.version} of the format; expected {VERSION}")
            return Begin(line.time, line.number, line.patterns)
        case "gap":
            if line.since is None or line.until is None:
                raise ValueError("a gap; expected from and to, in microseconds since 1970")
            return Gap(line.time, line.since, line.until)
        case "end":
            return End(line.time, line.publications)
    raise ValueError("event is unknown; expected begin, gap or end")


def _bytes(text: str | None, encoded: bytes | None) -> bytes | None:
    """The one that is there; None unless it is exactly one."""
    if (text is None) == (encoded is None):
        return None
    return encoded if text is None else text.encode()


def read_records(chunks: Iterable[bytes]) -> Iterator[tuple[int, Record]]:
    """Records with the numbers of their lines, from the bytes of a file, which may be gzip.

    Raises `BadLine` or `Damaged` where the file is wrong, `CutOff` behind the last record of one that ends too early.
    """
    for number, (text, is_whole) in enumerate(_lines(unpacked(chunks)), 1):
        try:
            yield number, read_line(text)
        except ValueError as error:
            if not is_whole and text.startswith(b"{"):
                raise CutOff("the file ends in the middle of a line") from None
            raise BadLine(number, str(error)) from None


def _lines(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Lines without their ends, and whether they had one. What stands before a `CutOff` comes before it."""
    parts: list[bytes] = []
    size = 0
    cut: CutOff | None = None
    try:
        for chunk in chunks:
            *ended, rest = chunk.split(b"\n")
            if ended:
                yield b"".join((*parts, ended[0])), True
                for text in ended[1:]:
                    yield text, True
                parts, size = [], 0
            if rest:
                parts.append(rest)
                size += len(rest)
            if size > _MAX_LINE:
                raise Damaged(f"a line is longer than {_MAX_LINE} bytes")
    except CutOff as error:
        cut = error
    if parts:
        yield b"".join(parts), False
    if cut is not None:
        raise cut
