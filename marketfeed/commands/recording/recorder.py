"""What is heard from Redis becomes lines of a recording, file after file.

1. A recording begins when everything is subscribed, and while there is no link it has a gap: between `begin` and
   `end` a file admits all that may be missing from it. It begins when nothing was known to be missing, and ends when
   everything is subscribed again; where channels are on several servers, one that is lost is a gap of all streams.
2. Times never go back within a file, whatever is done to the clock of the machine.
3. A publication is recorded once, however many subscriptions cover it.
4. A fault of the output ends the recording. Nothing is written after it.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable

from marketfeed.commands.recording.format import Begin, End, Gap, write_publication, write_record
from marketfeed.commands.recording.output import OutputFile
from marketfeed.commands.running import Hearing
from marketfeed.model.selection import StreamSelection

__all__ = ["Moments", "Recorder", "Rotation"]

_SECOND = 1_000_000


class Moments:
    """Tells the time, in µs since 1970, as the machine's clock does, but never goes back until it is set anew."""

    def __init__(
        self, wall: Callable[[], int] = time.time_ns, monotonic: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self.set()

    def set(self) -> None:
        """Agree with the machine's clock, even if that was put back."""
        self._offset = self._wall() - self._monotonic()

    def now(self) -> int:
        """If the clock was put back, time goes on from where it was."""
        monotonic = self._monotonic()
        self._offset = max(self._offset, self._wall() - monotonic)
        return (monotonic + self._offset) // 1000


class Rotation:
    """When a file is full: at `size` bytes, and at full multiples of `seconds` since 1970; 0 for never."""

    def __init__(self, size: int = 0, seconds: int = 0) -> None:
        self._size = size
        self._period = seconds * _SECOND

    def end_of(self, begin: int) -> float:
        """The first moment that does not belong to a file that begins at `begin`."""
        return begin - begin % self._period + self._period if self._period else float("inf")

    def is_full(self, size: int) -> bool:
        return bool(self._size) and size >= self._size


class Recorder(Hearing):
    """Writes what a listener hears. `new_file`: opens the next file, for a time; may raise OSError.

    `ended`: called once, when the recording cannot go on, before `close`; then `fault` says why, or is empty where the
    reader of the output has gone.
    """

    def __init__(
        self,
        selection: StreamSelection,
        prefix: bytes,
        new_file: Callable[[int], OutputFile],
        rotation: Rotation,
        moments: Moments,
        ended: Callable[[], None],
    ) -> None:
        super().__init__(selection, prefix, ended)
        self._new_file = new_file
        self._rotation = rotation
        self._moments = moments
        self._now = self._complete_at = moments.now()
        self._gap_since: int | None = None
        self._is_over = False
        self._in_file = 0
        self.publications = 0
        self.payload_bytes = 0
        self.gaps = 0
        self.files = 1
        self._finished = 0
        self._file = new_file(self._now)
        self._until = rotation.end_of(self._now)

    @property
    def written(self) -> int:
        """Bytes of all files."""
        return self._finished + self._file.size

    # What the listener says.

    def arrived(self) -> None:
        self._attempt(self._look)

    def _hear(self, stream: bytes, payload: bytes) -> None:
        if self._is_over or not self._has_begun:
            return
        self._file.write(write_publication(self._now, stream, payload))
        self._in_file += 1
        self.publications += 1
        self.payload_bytes += len(payload)

    def flush(self) -> None:
        if self._file.is_full:
            self.tick()

    def complete(self) -> None:
        self._complete_at = self._now
        if not self._has_begun:
            self._begin()
        elif self._gap_since is not None:
            self._admit_gap()
            self._gap_since = None
            self.gaps += 1

    def lost(self, good_at: float) -> None:
        if self._has_begun:
            good = max(round(good_at * _SECOND), self._complete_at)
            self._gap_since = good if self._gap_since is None else min(self._gap_since, good)

    # What the command says.

    def tick(self) -> None:
        """Flush; to be called every second."""
        self._attempt(self._flush)

    def close(self) -> None:
        """End the recording, where nothing else has ended it."""
        self._attempt(self._close)

    # Files.

    def _look(self) -> None:
        self._now = self._moments.now()
        if self._now >= self._until:
            self._rotate()

    def _flush(self) -> None:
        self._look()
        self._file.flush()
        if self._rotation.is_full(self._file.size):
            self._rotate()

    def _close(self) -> None:
        self._now = self._moments.now()
        if not self._has_begun:
            self._begin()
        if self._gap_since is not None:
            self.gaps += 1
        self._finish()
        self._is_over = True

    def _begin(self) -> None:
        self._has_begun = True
        self._file.write(write_record(Begin(self._now, self.files, self._selection.texts)))

    def _admit_gap(self) -> None:
        assert self._gap_since is not None
        self._file.write(write_record(Gap(self._now, min(self._gap_since, self._now), self._now)))

    def _finish(self) -> None:
        if self._gap_since is not None:
            self._admit_gap()
            self._gap_since = self._now
        self._file.write(write_record(End(self._now, self._in_file)))
        self._in_file = 0
        self._file.close()

    def _rotate(self) -> None:
        if not self._has_begun:
            self._until = self._rotation.end_of(self._now)
            return
        self._finish()
        self._finished += self._file.size
        self._moments.set()
        self._now = self._moments.now()
        self._file = self._new_file(self._now)
        self._until = self._rotation.end_of(self._now)
        self.files += 1
        self._begin()

    # Faults.

    def _attempt(self, action: Callable[[], None]) -> None:
        if self._is_over:
            return
        try:
            action()
        except OSError as error:
            is_unread = error.errno == errno.EPIPE
            self._end("" if is_unread else f"{error.filename or self._file.shown}: {error.strerror}")

    def _end(self, fault: str) -> None:
        self._is_over = True
        super()._end(fault)
