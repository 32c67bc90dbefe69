"""The channels that are wanted, the channels that the server has confirmed, and the next step between the two. Pure.

1. Whatever order wishes, confirmations, errors, losses and new links come in: once the link is up and everything in
   flight is answered, the server's subscriptions equal the desired set, less what it refuses.
2. One batch is in flight at a time. The next one is made from the difference that exists then, so that a wish that
   was taken back in the meantime costs nothing.
3. The server refuses a whole batch without naming the channel it objects to: the batch is halved until single
   channels remain. Those are refused until the link is made anew, or they are wanted anew, or it is time to try them
   again: in batches of their own, so that nobody else waits for what is refused again.
"""

from __future__ import annotations

from collections import deque
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
    """The desired set and how far the present link has come with it. `refused`: what the server does not permit."""

    def __init__(self) -> None:
        self.wanted: set[bytes] = set()
        self.confirmed: set[bytes] = set()
        self.refused = Rotation[bytes]()
        self._retried: set[bytes] = set()  # of the refused ones
        self._linked = False
        self._changed: dict[bytes, None] = {}  # channels whose state may differ from the wish, oldest first
        self._flight: Batch | None = None
        self._unanswered: set[bytes] = set()
        self._halves: deque[list[bytes]] = deque()

    def want(self, channel: bytes) -> bool:
        """Subscribe to this channel. True: it is subscribed still, so that no answer will come."""
        self.wanted.add(channel)
        self._forget_refusal(channel)
        self._mark(channel)
        is_ending = self._flight is not None and self._flight.verb is Verb.UNSUBSCRIBE and channel in self._unanswered
        return channel in self.confirmed and not is_ending

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

    def linked(self) -> None:
        """There is a new link; nothing is subscribed on it."""
        self.lost()
        self._linked = True
        self._changed = dict.fromkeys(sorted(self.wanted))

    def lost(self) -> None:
        """The link is gone, and every subscription with it."""
        self._linked = False
        self.confirmed.clear()
        self.refused.clear()
        self._retried.clear()
        self._changed.clear()
        self._halves.clear()
        self._end_flight()

    def next_batch(self) -> Batch | None:
        """What to send now; None while a batch is in flight, without a link, and when nothing differs."""
        if not self._linked or self._flight is not None:
            return None
        verb, channels = Verb.SUBSCRIBE, self._next_half()
        if not channels:
            verb, channels = self._next_changed()
        if not channels:
            return None
        self._flight = Batch(verb, channels)
        self._unanswered = set(channels)
        return self._flight

    def answered(self, verb: Verb, channel: bytes) -> bool:
        """The server confirms one channel. True if this is a subscription that is still wanted."""
        if verb is Verb.SUBSCRIBE:
            self.confirmed.add(channel)
            self._forget_refusal(channel)
        else:
            self.confirmed.discard(channel)
        is_wanted = channel in self.wanted
        if is_wanted != (verb is Verb.SUBSCRIBE):
            self._mark(channel)
        if self._flight is not None and verb is self._flight.verb:
            self._unanswered.discard(channel)
            if not self._unanswered:
                self._end_flight()
        return is_wanted and verb is Verb.SUBSCRIBE

    def denied(self) -> bytes | None:
        """The server permits not all of the batch in flight. Returns the channel once it is known, if it is news."""
        flight = self._flight
        if flight is None:
            return None
        left = [channel for channel in flight.channels if channel in self._unanswered]
        self._end_flight()
        if len(left) > 1:
            middle = len(left) // 2
            self._halves.extendleft((left[middle:], left[:middle]))
            return None
        if flight.verb is Verb.UNSUBSCRIBE or left[0] not in self.wanted:
            return None
        if left[0] in self.refused:
            self._retried.discard(left[0])
            return None
        self.refused.add(left[0])
        return left[0]

    def _forget_refusal(self, channel: bytes) -> None:
        self.refused.discard(channel)
        self._retried.discard(channel)

    def _mark(self, channel: bytes) -> None:
        if self._linked:  # without a link nothing is sent, and a new one begins with all that is wanted
            self._changed[channel] = None

    def _end_flight(self) -> None:
        self._flight = None
        self._unanswered = set()

    def _next_half(self) -> list[bytes]:
        while self._halves:
            half = [channel for channel in self._halves.popleft() if self._is_missing(channel)]
            if half:
                return half
        return []

    def _next_changed(self) -> tuple[Verb, list[bytes]]:
        """The oldest differences that one command can settle; what does not differ any more is forgotten."""
        verb, is_retried = Verb.SUBSCRIBE, False
        channels: list[bytes] = []
        done = []
        for channel in self._changed:
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
            del self._changed[channel]
        return verb, channels

    def _is_missing(self, channel: bytes) -> bool:
        is_refused = channel in self.refused and channel not in self._retried
        return channel in self.wanted and channel not in self.confirmed and not is_refused
