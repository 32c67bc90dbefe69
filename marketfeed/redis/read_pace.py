"""How long after a read of all streams the next one begins.

1. A read of one group waits for entries itself, and is followed by another at once. With many streams it is not, for
   it costs the server time for each of them: there is a rest in proportion, in which more comes together.
2. Reads of several groups cannot wait. They follow each other after a pause in proportion to the groups, within
   `LEAST_PAUSE` and `MOST_PAUSE`. While nothing comes it grows, a part at a time, to `IDLE` times that, or `MOST_IDLE`.
3. Who is in no hurry may have a longer rest after each read that has found something.
"""

from __future__ import annotations

__all__ = ["ReadPace"]

REST_SECONDS = 2e-6
"""For each stream, where that makes `LEAST_REST` or more."""
LEAST_REST, MOST_REST = 0.001, 0.02
GROUP_SECONDS = 10e-6
LEAST_PAUSE, MOST_PAUSE = 0.002, 0.02
IDLE, MOST_IDLE = 5.0, 0.04
_GROWTH = 1.1


class ReadPace:
    """Of the reads of one server. `rest`: so many seconds are between two of them, if the first has found something."""

    def __init__(self, rest: float = 0.0) -> None:
        self._rest = rest
        self._idle = 1.0

    def pause(self, groups: int, streams: int, *, has_found: bool) -> float:
        """In seconds, after a read of so many groups; 0: none."""
        if groups == 1:
            seconds = streams * REST_SECONDS
            rest = min(seconds, MOST_REST) if seconds >= LEAST_REST else 0.0
            return max(rest, self._rest) if has_found else 0.0
        self._idle = 1.0 if has_found else min(IDLE, self._idle * _GROWTH)
        pause = min(min(max(groups * GROUP_SECONDS, LEAST_PAUSE), MOST_PAUSE) * self._idle, MOST_IDLE)
        return max(pause, self._rest)
