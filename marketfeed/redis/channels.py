"""The channels that are wanted, the channels that the server has confirmed, and the next step between the two. Pure.

1. Whatever order wishes, confirmations, errors, losses and new links come in: once the link is up and everything in
   flight is answered, the server's subscriptions equal the desired set, less what it refuses and what is misplaced.
2. A batch is made from the difference that exists as it is sent, so that a wish that was taken back in the meantime
   costs nothing. So few are in flight at a time, and no channel in two of them.
3. Where channels have slots, all channels of a batch are of one: the server takes no others in one command.
4. The server refuses a whole batch without naming the channel it objects to: the batch is halved until single
   channels remain. Those are refused until the link is made anew, or they are wanted anew, or it is time to try them
   again: in batches of their own, so that nobody else waits for what is refused again.
5. What another server is to be asked for is misplaced, until somebody says that it is to be asked for here again, or
   the link is made anew. The server may say so of what it had confirmed, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum

import msgspec

from marketfeed.redis.rotation import Rotation

__all__ = ["Batch", "DesiredChannels", "Verb"]

_BATCH = 512


class Verb(Enum):
    SUBSCRIBE = "subscribe"
    UNSUBSCRIBE = "unsubscribe"


class Batch(msgspec.Struct, frozen=True):
    """One command to send: `verb` for all of `channels`."""

    verb: Verb
    channels: list[bytes]


class DesiredChannels:
    """The desired set and how far the present link has come with it.

    `slot_of`: of a channel, where they have one; `window`: the batches that may be in flight. `refused`: what the
    server does not permit; `misplaced`: what it is not the one to ask for.
    """

    def __init__(self, slot_of: Callable[[bytes], int] | None = None, window: int = 1) -> None:
        self._slot_of = slot_of
        self._window = window
        self.wanted: set[bytes] = set()
        self.confirmed: set[bytes] = set()
        self.refused = Rotation[bytes]()
        self.misplaced: set[bytes] = set()
        self._retried: set[bytes] = set()  # of the refused ones
        self._linked = False
        # Channels whose state may differ from the wish, by slot, those of which one has waited longest first.
        self._changed: dict[int, dict[bytes, None]] = {}
        self._flights: list[tuple[Batch, set[bytes]]] = []  # oldest first, each with what is not answered
        self._in_flight: dict[bytes, Verb] = {}
        self._halves: deque[list[bytes]] = deque()

    def want(self, channel: bytes) -> bool:
        """Subscribe to this channel. True: it is subscribed still, so that no answer will come."""
        self.wanted.add(channel)
        self._forget_refusal(channel)
        self._mark(channel)
        return channel in self.confirmed and self._in_flight.get(channel) is not Verb.UNSUBSCRIBE

    def unwant(self, channel: bytes) -> None:
        """Do not stay subscribed to this channel."""
        self.wanted.discard(channel)
        self._forget_refusal(channel)
        self._mark(channel)

    def retry(self, most: int) -> None:
        """Ask again for at most so many of those that are refused, whose turn it is."""
        for channel in self.refused.next(most):
            self._retried.add(channel)
            self._mark(channel)

    def ask_again(self) -> None:
        """Ask again for all that is misplaced."""
        misplaced, self.misplaced = self.misplaced, set()
        for channel in sorted(misplaced):
            self._mark(channel)

    def linked(self) -> None:
        """There is a new link; nothing is subscribed on it."""
        self.lost()
        self._linked = True
        for channel in sorted(self.wanted):
            self._mark(channel)

    def lost(self) -> None:
        """The link is gone, and every subscription with it."""
        self._linked = False
        self.confirmed.clear()
        self.refused.clear()
        self.misplaced.clear()
        self._retried.clear()
        self._changed.clear()
        self._halves.clear()
        self._flights.clear()
        self._in_flight.clear()

    def next_batch(self) -> Batch | None:
        """What to send now; None while enough is in flight, without a link, and when nothing differs."""
        if not self._linked or len(self._flights) >= self._window:
            return None
        verb, channels = Verb.SUBSCRIBE, self._next_half()
        while not channels and self._changed:
            verb, channels = self._next_changed(next(iter(self._changed)))
        if not channels:
            return None
        batch = Batch(verb, channels)
        self._flights.append((batch, set(channels)))
        self._in_flight.update(dict.fromkeys(channels, verb))
        return batch

    def answered(self, verb: Verb, channel: bytes, asked: Batch | None = None) -> bool:
        """The server confirms one channel. True if this is a subscription that is still wanted.

        `asked`: the batch that it answers, if it is none of the oldest. Where channels have slots, one that the server
        has ended without being asked is misplaced, if it is wanted.
        """
        flight = self._flight(asked)
        is_asked = flight is not None and verb is flight[0].verb and channel in flight[1]
        if verb is Verb.SUBSCRIBE:
            self.confirmed.add(channel)
            self._forget_refusal(channel)
        else:
            self.confirmed.discard(channel)
        is_wanted = channel in self.wanted
        if flight is not None and is_asked:
            self._land(flight, channel)
        if is_wanted and verb is Verb.UNSUBSCRIBE and not is_asked and self._slot_of is not None:
            if channel not in self._in_flight:
                self.misplaced.add(channel)
        elif is_wanted != (verb is Verb.SUBSCRIBE):
            self._mark(channel)
        return is_wanted and verb is Verb.SUBSCRIBE

    def denied(self, asked: Batch | None = None) -> bytes | None:
        """The server permits not all of a batch, the oldest. Returns the channel once it is known, if it is news."""
        verb, left = self._fail(asked)
        if len(left) > 1:
            middle = len(left) // 2
            self._halves.extendleft((left[middle:], left[:middle]))
            return None
        if not left or verb is Verb.UNSUBSCRIBE or left[0] not in self.wanted:
            return None
        if left[0] in self.refused:
            self._retried.discard(left[0])
            return None
        self.refused.add(left[0])
        return left[0]

    def misplace(self, asked: Batch | None = None) -> list[bytes]:
        """Another server is to be asked for a batch, the oldest. Returns those of its channels that are wanted."""
        verb, left = self._fail(asked)
        if verb is Verb.UNSUBSCRIBE:  # the server has ended them already, or is about to
            self.confirmed.difference_update(left)
        wanted = [channel for channel in left if channel in self.wanted]
        self.misplaced.update(wanted)
        return wanted

    @property
    def oldest(self) -> Batch | None:
        """Of those in flight."""
        return self._flights[0][0] if self._flights else None

    def _flight(self, asked: Batch | None) -> tuple[Batch, set[bytes]] | None:
        """A batch that is in flight, and what of it is not answered; without one the oldest."""
        if asked is None:
            return self._flights[0] if self._flights else None
        return next((flight for flight in self._flights if flight[0] is asked), None)

    def _fail(self, asked: Batch | None) -> tuple[Verb, list[bytes]]:
        """A batch is over; its verb, and what is not answered."""
        flight = self._flight(asked)
        if flight is None:
            return Verb.SUBSCRIBE, []
        self._flights.remove(flight)
        left = [channel for channel in flight[0].channels if channel in flight[1]]
        for channel in left:
            del self._in_flight[channel]
        return flight[0].verb, left

    def _land(self, flight: tuple[Batch, set[bytes]], channel: bytes) -> None:
        """A channel of a batch is answered."""
        flight[1].discard(channel)
        del self._in_flight[channel]
        if not flight[1]:
            self._flights.remove(flight)

    def _forget_refusal(self, channel: bytes) -> None:
        self.refused.discard(channel)
        self.misplaced.discard(channel)
        self._retried.discard(channel)

    def _mark(self, channel: bytes) -> None:
        if self._linked:  # without a link nothing is sent, and a new one begins with all that is wanted
            slot = 0 if self._slot_of is None else self._slot_of(channel)
            self._changed.setdefault(slot, {})[channel] = None

    def _next_half(self) -> list[bytes]:
        while self._halves:
            half = [channel for channel in self._halves.popleft() if self._is_missing(channel)]
            if half:
                return half
        return []

    def _next_changed(self, slot: int) -> tuple[Verb, list[bytes]]:
        """The oldest differences of a slot that one command can settle; what does not differ any more is forgotten."""
        verb, is_retried = Verb.SUBSCRIBE, False
        channels: list[bytes] = []
        done = []
        changed = self._changed[slot]
        for channel in changed:
            if channel in self._in_flight:  # its answer says whether it differs
                done.append(channel)
                continue
            if self._is_missing(channel):
                needed = Verb.SUBSCRIBE
            elif channel in self.confirmed and channel not in self.wanted:
                needed = Verb.UNSUBSCRIBE
            else:
                done.append(channel)
                continue
            if not channels:
                verb, is_retried = needed, channel in self._retried
            if needed is verb and is_retried == (channel in self._retried):
                channels.append(channel)
                done.append(channel)
                if len(channels) == _BATCH:
                    break
        for channel in done:
            del changed[channel]
        del self._changed[slot]
        if changed:  # behind the other slots
            self._changed[slot] = changed
        return verb, channels

    def _is_missing(self, channel: bytes) -> bool:
        if channel in self.misplaced or channel in self._in_flight:
            return False
        is_refused = channel in self.refused and channel not in self._retried
        return channel in self.wanted and channel not in self.confirmed and not is_refused
