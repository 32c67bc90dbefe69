"""Whose turn it is to be checked again, of the streams of a link.

1. Those that are read have their turn once in `TURN_SECONDS`: one whose ids have gone backwards, or that was deleted,
   would be silent for ever without a loss of the link, and a book that lacks what was deleted with it is wrong until
   then. Where there are few, `LEAST_A_SECOND` have their turn all the same; where there are many, no more than
   `MOST_A_SECOND` (see `rotation`), and it takes longer.
2. What the server has refused is asked for again once in `ROUND_SECONDS` (see `rotation`): a permission that is given
   ends no link.
"""

from __future__ import annotations

from marketfeed.redis.rotation import Rotation, Rounds
from marketfeed.redis.stream_reads import Reading

__all__ = ["LOOK_SECONDS", "TURN_SECONDS", "Verification"]

LOOK_SECONDS = 0.25
"""How often somebody may have a turn: all those of a second at once would hold up what is read."""
TURN_SECONDS = 5.0
LEAST_A_SECOND = 20


class Verification:
    """The streams of a link, and whose turn it is. `now`: s of any clock. `faults`: why which are refused."""

    def __init__(self, now: float) -> None:
        self._read = Rotation[Reading]()
        self._refused = Rotation[Reading]()
        self.faults: dict[Reading, str] = {}
        self.begin(now)

    def begin(self, now: float) -> None:
        """There is a new link, on which nothing is read yet, and nothing refused."""
        self._read.clear()
        self._refused.clear()
        self.faults.clear()
        self._rounds = Rounds(now, least_a_second=LEAST_A_SECOND, seconds=TURN_SECONDS)
        self._retries = Rounds(now)

    def flows(self, reading: Reading) -> None:
        """The stream is read."""
        self.forget(reading)
        self._read.add(reading)

    def refuse(self, reading: Reading, fault: str) -> bool:
        """The server does not permit the stream. True: that is news."""
        self._read.discard(reading)
        self._refused.add(reading)
        is_news = self.faults.get(reading) != fault
        self.faults[reading] = fault
        return is_news

    def forget(self, reading: Reading) -> None:
        """The stream is not wanted any more; nothing happens if it is not known."""
        self._read.discard(reading)
        self._refused.discard(reading)
        self.faults.pop(reading, None)

    def due(self, now: float) -> list[Reading]:
        """The streams that are to be checked."""
        turn = self._read.next(self._rounds.due(len(self._read), now))
        return turn + self._refused.next(self._retries.due(len(self._refused), now))
