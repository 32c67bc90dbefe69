"""What a server sends, read only as far as a load test needs it. Pure.

1. Bytes are read as one whole: what two clients got in the same bytes is read once. A thousand clients of a stream
   cost little more than one, and still every byte of each is compared.
2. Nothing is decoded: a message's stream, its number and its time are found where they stand.
3. A message that is not complete is left for later, with whatever stands behind it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from marketfeed.commands.frames import CLOSE, PING, cut
from marketfeed.model.kinds import EVENTS
from marketfeed.model.streams import BadStreamName, StreamKinds

__all__ = ["UNKNOWN", "Batch", "BatchReader"]

UNKNOWN = -1
"""The index of every stream that nobody asked for."""
_REMEMBERED = 512
"""Batches that are remembered; beyond them all are forgotten."""

_ENVELOPE = re.compile(rb'\s*\{\s*"stream"\s*:\s*"([^"\\]*)"')
_EVENT = re.compile(rb'"e"\s*:\s*"([^"\\]*)"')
_MARKET = re.compile(rb'"s"\s*:\s*"([^"\\]*)"')
_TIME = re.compile(rb'"T"\s*:\s*(\d{1,15}(?:\.\d+)?)')
_NUMBER = {"trade": re.compile(rb'"t"\s*:\s*(\d{1,18})'), "depth": re.compile(rb'"u"\s*:\s*(\d{1,18})')}
_SNAPSHOT = re.compile(rb'"snapshot"\s*:\s*true')
_FROM_NUMBER = re.compile(rb'"U"\s*:\s*(\d{1,18})')
_KINDS = {event.encode(): kind.name.encode() for event, kind in EVENTS.items()}


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
        while batch.close is None and (found := cut(data, batch.size)) is not None:
            message, controls, batch.size = found
            for control in controls:
                batch.is_plain = False
                if control.opcode == CLOSE:
                    batch.close = control.close_code
                elif control.opcode == PING:
                    batch.pings.append(control.payload)
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
