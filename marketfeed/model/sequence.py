"""Ids that count up by one, in a field that the operator names, as a trade's `t` may: what jumps shows what is missing.

1. The next id is the last one and 1. One that is ahead of it, or before the last one, jumps. The last again does not.
2. A publication without an id tells nothing, and the next one nothing of what is before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import msgspec

from marketfeed.model.publications import BadPublication, DropReason, PublicationReader
from marketfeed.model.state import State
from marketfeed.model.streams import StreamName

__all__ = ["NumberedReader", "Sequence", "new_reader", "recorder"]


class NumberedReader(PublicationReader):
    """Reads the payloads of a stream whose publications have ids in `field`."""

    __slots__ = ("_read_id",)

    def __init__(self, stream: StreamName, names: Iterable[str], max_payload: int, field: str) -> None:
        super().__init__(stream, names, max_payload)
        self._read_id = _reader_of(field)

    def read(self, payload: bytes) -> bytes:
        """The bytes of the publication's data. Raises `BadPublication`, for want of an id as well."""
        data = super().read(payload)
        try:
            self._read_id(data)
        except ValueError as fault:
            raise BadPublication(DropReason.BAD_FIELD, str(fault), data) from None
        return data


def new_reader(stream: StreamName, names: Iterable[str], max_payload: int) -> PublicationReader:
    """The reader of a stream, which demands an id where its kind has `ids`. The arguments are `PublicationReader`'s."""
    if stream.kind.ids is None:
        return PublicationReader(stream, names, max_payload)
    return NumberedReader(stream, names, max_payload, stream.kind.ids)


class Sequence:
    """The ids of one stream, as they come."""

    __slots__ = ("_last", "_read_id")

    def __init__(self, field: str) -> None:
        self._read_id = _reader_of(field)
        self._last: int | None = None

    def record(self, data: bytes) -> bool:
        """A publication has come. Whether its id jumps, so that something before it is missing."""
        last = self._last
        try:
            self._last = found = self._read_id(data)
        except ValueError:
            self._last = None
            return False
        return last is not None and not last <= found <= last + 1


def recorder(state: State | None, field: str | None) -> Callable[[bytes], bool] | None:
    """What is to be called with each publication of a stream; it returns whether something before that is missing.

    `state`: the stream's, if it has one; it loses what it was where the ids in `field` jump.
    """
    if field is None:
        return None if state is None else state.record
    sequence = Sequence(field)
    if state is None:
        return sequence.record

    def record(data: bytes) -> bool:
        jumps = sequence.record(data)
        if jumps:
            state.lose()
        return state.record(data) or jumps

    return record


@lru_cache(maxsize=256)
def _reader_of(field: str) -> Callable[[bytes], int]:
    """One for all streams of a kind. What it returns raises ValueError where there is no id."""
    shape: Any = msgspec.defstruct("Numbered", [("id", int | float)], rename={"id": field})
    decode = msgspec.json.Decoder(shape).decode

    def read(data: bytes) -> int:
        try:
            found = decode(data).id
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if type(found) is float and not found.is_integer():  # some encoders write 17.0
            raise ValueError(f"expected an integer - at `$.{field}`")
        return int(found)

    return read
