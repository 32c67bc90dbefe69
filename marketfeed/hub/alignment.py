"""Where the publications that two processes have numbered, each for itself, are the same ones.

Both have heard the same stream without a loss, each from a moment of its own on. So a publication has in the one the
number that it has in the other, plus a shift, which is always the same. Which it is follows from this:

1. The one that asks has noted how far it was before it asked. The other has caught up after that, so that it has come
   at least that far.
2. The one that asks has caught up after the answer, so that it has come at least as far as the other.
3. The other's newest publication is therefore one of those that have come since the question was asked, or the last
   before it. Usually nothing has: then there is no choice. Of several, those are left whose digests are the same
   wherever both have some.
4. Where more than one is left, or none, the shift is not known. None is left only where something is not as it should.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["DIGESTS", "MOST_BETWEEN", "shift_between"]

DIGESTS = 32
"""Publications of which a process tells the digests."""
MOST_BETWEEN = 1000
"""Publications between a question and its answer with which they are looked at all the same."""


def shift_between(newest: int, theirs: Sequence[bytes], before: int, now: int, own: Sequence[bytes]) -> int | None:
    """What is to be added to the other's numbers; None: that is not known.

    `newest`: the number of the other's last publication; `theirs`: the digests of its last ones, oldest first.
    `before` and `now`: the own number before the question and after the answer; `own`: the digests of the last ones.
    """
    if now - before > MOST_BETWEEN:
        return None
    possible = [at for at in range(before, now + 1) if _agree(theirs, own, now - at)]
    return possible[0] - newest if len(possible) == 1 else None


def _agree(theirs: Sequence[bytes], own: Sequence[bytes], ahead: int) -> bool:
    """Whether they are the same where both have some, if the own ones go on with `ahead` more."""
    both = min(len(theirs), len(own) - ahead)
    return both <= 0 or theirs[len(theirs) - both :] == own[len(own) - ahead - both : len(own) - ahead]
