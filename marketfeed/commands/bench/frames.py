"""What a server sends, cut into WebSocket frames and read only as far as a load test needs it. Pure.

1. Bytes are read as one whole: what two clients got in the same bytes is read once. A thousand clients of a stream
   cost little more than one, and still every byte of each is compared.
2. Nothing is decoded: a message's stream, its number and its time are found where they stand.
3. A message that is not complete is left for later, with whatever stands behind it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from marketfeed.model.kinds.table import EVENTS
from marketfeed.model.streams import BadStreamName, StreamKinds

__all__ = ["CLOSE", "MAX_MESSAGE", "PONG", "UNKNOWN", "BadFrames", "Batch", "BatchReader", "masked_frame"]

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of a message; a server that sends a longer one is not believed."""
UNKNOWN = -1
"""The index of every stream that nobody asked for."""
_REMEMBERED = 512
"""Batches that are remembered; beyond them all are forgotten."""

_CONTINUATION, _TEXT, _BINARY, CLOSE, _PING, PONG = 0, 1, 2, 8, 9, 10
_FIN, _DEFLATED = 0x80, 0x40
_NO_CODE = 1005  # RFC 6455, section 7.1.5
_END_OF_BLOCK = b"\x00\x00\xff\xff"  # which RFC 7692, section 7.2.1, leaves out
_NO_MASK = bytes(4)  # a mask that changes nothing

_ENVELOPE = re.compile(rb'\s*\{\s*"stream"\s*:\s*"([^"\\]*)"')
_EVENT = re.compile(rb'"e"\s*:\s*"([^"\\]*)"')
_MARKET = re.compile(rb'"s"\s*:\s*"([^"\\]*)"')
_TIME = re.compile(rb'"T"\s*:\s*(\d{1,15}(?:\.\d+)?)')
_NUMBER = {"trade": re.compile(rb'"t"\s*:\s*(\d{1,18})'), "depth": re.compile(rb'"u"\s*:\s*(\d{1,18})')}
_SNAPSHOT = re.compile(rb'"snapshot"\s*:\s*true')
_FROM_NUMBER = re.compile(rb'"U"\s*:\s*(\d{1,18})')
_KINDS = {event.encode(): kind.name.encode() for event, kind in EVENTS.items()}


class BadFrames(ValueError):
    """The bytes are no frames that a server may send; the message says why."""


@dataclass(slots=True)
class Batch:
    """What some bytes held.

    `size`: bytes of the messages that were complete. `publications`: how many; `numbers`: how many numbers those had.
    `runs`: (stream, first number, number after the last), in the order of each stream. `times`: (ms since 1970, how
    many have that time). `others`: messages that are no publications. `pings`: their payloads. `close`: the code of a
    close frame. `is_plain`: there are only publications. `places`: where in `runs` the last one of each stream is.
    """

    size: int = 0
    publications: int = 0
    numbers: int = 0
    runs: list[tuple[int, int, int]] = field(default_factory=list)
    times: list[tuple[float, int]] = field(default_factory=list)
    others: list[bytes] = field(default_factory=list)
    pings: list[bytes] = field(default_factory=list)
    close: int | None = None
    is_plain: bool = True
    places: dict[int, int] = field(default_factory=dict)


def masked_frame(payload: bytes, opcode: int = _TEXT) -> bytes:
    """A frame as a client sends it."""
    size = len(payload)
    if size < 126:
        head = bytes((_FIN | opcode, 0x80 | size))
    elif size < 65536:
        head = bytes((_FIN | opcode, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((_FIN | opcode, 0xFF)) + size.to_bytes(8, "big")
    return head + _NO_MASK + payload


class BatchReader:
    """Reads what comes of `streams`, which are known by their index from here on.

    `seen`: where the last number of each publication is noted, by stream.
    """

    def __init__(self, streams: Sequence[str], seen: Sequence[set[int]] | None = None) -> None:
        self._seen = seen
        self._names: dict[bytes, int] = {}
        self._kinds: list[str] = []
        kinds = StreamKinds()
        for index, spelling in enumerate(streams):
            self._names[spelling.encode()] = index
            try:
                name = kinds.parse(spelling)
            except BadStreamName:  # of a kind that only the server knows
                self._kinds.append("")
                continue
            self._kinds.append(name.kind.name)
            self._names.setdefault(str(name).encode(), index)  # as it is found without an envelope
        self._known: dict[bytes, Batch] = {}
        self._last, self._last_batch = b"", Batch()

    def read(self, data: bytes) -> Batch:
        """The messages in `data`, which begins with one. Raises `BadFrames`."""
        if data == self._last:  # takes a tenth of finding it by its hash
            return self._last_batch
        batch = self._known.get(data)
        if batch is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            batch = self._known[data] = self._read(data)
        self._last, self._last_batch = data, batch
        return batch

    def _read(self, data: bytes) -> Batch:
        batch = Batch()
        while batch.close is None and (cut := _cut(data, batch.size)) is not None:
            message, controls, batch.size = cut
            for opcode, payload in controls:
                batch.is_plain = False
                if opcode == CLOSE:
                    batch.close = int.from_bytes(payload[:2], "big") if payload else _NO_CODE
                elif opcode == _PING:
                    batch.pings.append(payload)
            if message is not None:
                self._read_message(message, batch)
        return batch

    def _read_message(self, message: bytes, batch: Batch) -> None:
        stream = self._stream(message)
        if stream is None:
            batch.others.append(message)
            batch.is_plain = False
            return
        batch.publications += 1
        time = _TIME.search(message)
        if time is not None:
            _add_time(batch.times, float(time[1]))
        numbers = self._numbers(message, stream)
        if numbers is not None:
            batch.numbers += numbers[1] - numbers[0]
            _add_run(batch, stream, *numbers)

    def _stream(self, message: bytes) -> int | None:
        """The index of the message's stream, `UNKNOWN` for any other; None when it is no publication."""
        envelope = _ENVELOPE.match(message)
        if envelope is not None:
            name = envelope[1]
            return None if name.startswith(b"!") else self._names.get(name, UNKNOWN)
        event = _EVENT.search(message)
        kind = None if event is None else _KINDS.get(event[1])
        if kind is None:
            return None
        market = _MARKET.search(message)
        return UNKNOWN if market is None else self._names.get(kind + b"@" + market[1], UNKNOWN)

    def _numbers(self, message: bytes, stream: int) -> tuple[int, int] | None:
        """The first number of a message and the one after its last; None when its kind has none.

        A snapshot has no number, but tells where its stream is: twice the number after its last update's.
        """
        if stream == UNKNOWN:
            return 0, 0
        kind = self._kinds[stream]
        found = _NUMBER[kind].search(message) if kind in _NUMBER else None
        if found is None:
            return None
        last = first = int(found[1])
        if self._seen is not None:
            self._seen[stream].add(last)
        if kind == "depth" and _SNAPSHOT.search(message):
            return last + 1, last + 1
        if kind == "depth" and (start := _FROM_NUMBER.search(message)) is not None:
            first = min(int(start[1]), last)
        return first, last + 1


def _add_run(batch: Batch, stream: int, first: int, after: int) -> None:
    """Each stream's numbers are one run for as long as they are in order, whatever comes between."""
    place = batch.places.get(stream)
    if place is not None and batch.runs[place][1] < batch.runs[place][2] == first:
        batch.runs[place] = (stream, batch.runs[place][1], after)
        return
    batch.places[stream] = len(batch.runs)
    batch.runs.append((stream, first, after))


def _add_time(times: list[tuple[float, int]], time: float) -> None:
    if times and times[-1][0] == time:
        times[-1] = (time, times[-1][1] + 1)
    else:
        times.append((time, 1))


Control = tuple[int, bytes]


def _cut(data: bytes, at: int) -> tuple[bytes | None, list[Control], int] | None:
    """The next message or control frame: the message, the control frames before or amid it, where they end.

    None when it is not complete. Raises `BadFrames`.
    """
    parts: list[bytes] = []
    controls: list[Control] = []
    is_deflated = False
    while True:
        if len(data) - at < 2:
            return None
        first, size = data[at], data[at + 1]
        start = at + 2
        if size > 125:
            if size > 127:
                raise BadFrames("a masked frame")
            start = at + (4 if size == 126 else 10)
            size = int.from_bytes(data[at + 2 : start], "big")
        if size + sum(map(len, parts)) > MAX_MESSAGE:
            raise BadFrames(f"a message of more than {MAX_MESSAGE} bytes")
        at = start + size
        if at > len(data):
            return None
        opcode = first & 0x0F
        payload = data[start:at]
        if opcode in (CLOSE, _PING, PONG):
            controls.append((opcode, payload))
            if not parts:
                return None, controls, at
            continue
        if opcode not in (_TEXT, _BINARY, _CONTINUATION) or (opcode == _CONTINUATION) != bool(parts):
            raise BadFrames(f"a frame that begins with {first:#04x}")
        is_deflated = is_deflated or bool(first & _DEFLATED)
        parts.append(payload)
        if first & _FIN:
            message = payload if len(parts) == 1 else b"".join(parts)
            return (_inflate(message) if is_deflated else message), controls, at


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        message = inflater.decompress(data + _END_OF_BLOCK, MAX_MESSAGE)
    except zlib.error:
        raise BadFrames("a message that cannot be inflated") from None
    if inflater.unconsumed_tail:
        raise BadFrames(f"a message of more than {MAX_MESSAGE} bytes")
    return message
