"""The link on which channels are subscribed: what was asked, what of that is not answered, and what is published.

1. Answers come in the order in which was asked. A subscription that the server ends by itself looks like the answer to
   an UNSUBSCRIBE, and is taken for it where one is due.
2. The link was good when the last PING that was answered was sent: all that had been published by then came before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import hiredis
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from marketfeed.boundaries import Clock, Sink
from marketfeed.redis.channels import Batch, Verb
from marketfeed.redis.link import SubscriberLink
from marketfeed.redis.node_source import FeedLink
from marketfeed.redis.replies import Channels
from marketfeed.redis.topology import key_slot

__all__ = ["Ping", "PubSubLink", "Subscriptions"]

_CONFIRMATIONS = {
    b"subscribe": Verb.SUBSCRIBE,
    b"unsubscribe": Verb.UNSUBSCRIBE,
    b"ssubscribe": Verb.SUBSCRIBE,
    b"sunsubscribe": Verb.UNSUBSCRIBE,
}


class Ping(msgspec.Struct, frozen=True, eq=False):
    """A PING that was sent `at` this moment, in s since 1970, and who waits for its answer."""

    at: float
    waiting: list[Deferred[bool]]


class Sent(msgspec.Struct, frozen=True, eq=False):
    """A batch that was sent, and what of it is not answered."""

    batch: Batch
    unanswered: set[bytes]

    def is_in(self, moved: str) -> bool:
        """Whether it is in the slot that has moved."""
        return moved.split(" ")[1] == str(key_slot(self.batch.channels[0]))


class Subscriptions(Protocol):
    """Who uses the link. `streams`: what is delivered, by its channel."""

    sink: Sink
    streams: dict[bytes, str]

    def answered(self) -> None:
        """The server has answered a PING."""

    def has_changed(self, verb: Verb, channel: bytes, batch: Batch | None) -> None:
        """The server has confirmed the beginning or the end of a subscription. `batch`: in answer to that."""

    def refused(self, link: Any, asked: Ping | Batch | None, fault: str) -> None:
        """The server answers with an error. `asked`: what it answers."""

    def read_ends(self) -> None:
        """All that came together has been told."""


class PubSubLink(FeedLink, SubscriberLink):
    """A link that delivers to a source."""

    def __init__(self, clock: Clock, source: Subscriptions, now: Callable[[], float]) -> None:
        super().__init__(clock)
        self._source = source
        self._channels = channels = Channels(source.streams, source.sink.publish)
        self.messageReceived = self._received = channels.received  # type: ignore[method-assign]
        self._now = now
        self._asked: deque[Ping | Sent] = deque()  # and not answered, oldest first
        self._waiting: list[Deferred[bool]] = []  # for the answer to the next PING
        self.good_at = now()  # seconds since 1970: a clock that is set meanwhile would make more of the difference

    def tell(self, data: bytes) -> None:
        if self.messageReceived is self._received:  # and nobody has put something in between
            self._channels.tell(self._replies, data, self.heard)
        else:
            super().tell(data)

    @property
    def pinged_at(self) -> float | None:
        """When the oldest PING was sent that is not answered."""
        return next((asked.at for asked in self._asked if isinstance(asked, Ping)), None)

    def ping(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._asked.append(Ping(self._now(), waiting))
        super().ping()

    def catch_up(self) -> Deferred[bool]:
        """Wait until all that has been published by now has been told. False: the link is lost before."""
        done: Deferred[bool] = Deferred()
        self._waiting.append(done)
        self._ping_for_those()
        return done

    def _ping_for_those(self) -> None:
        """However many wait, one PING at a time is sent for them."""
        if self._waiting and self.pinged_at is None:
            self.ping()

    def send(self, batches: Sequence[Batch], prefix: str) -> None:
        """Send one command for all channels of each batch. `prefix`: of the commands' names."""
        self._asked.extend([Sent(batch, set(batch.channels)) for batch in batches])
        commands = [hiredis.pack_command((prefix + batch.verb.value.upper(), *batch.channels)) for batch in batches]
        self.transport.write(b"".join(commands))

    def heard(self, reply: Any) -> None:
        asked = self._asked[0] if self._asked else None
        if isinstance(reply, hiredis.ReplyError):
            fault = str(reply)
            if fault.startswith("MOVED ") and not (isinstance(asked, Sent) and asked.is_in(fault)):
                return  # of a batch whose channels the server had ended by itself, which was taken for the answer
            if asked is not None:
                self._asked.popleft()
            if isinstance(asked, Ping):
                self._waiting += asked.waiting
            self._source.refused(self, asked.batch if isinstance(asked, Sent) else asked, fault)
        elif reply == b"PONG" or (type(reply) is list and reply[0] == b"pong"):
            if isinstance(asked, Ping):
                self._asked.popleft()
                self.good_at = asked.at
                for each in asked.waiting:
                    each.callback(True)
                self._ping_for_those()
            self._source.answered()
        elif type(reply) is list and reply[0] in _CONFIRMATIONS:
            verb, channel, batch = _CONFIRMATIONS[reply[0]], reply[1], None
            if isinstance(asked, Sent) and verb is asked.batch.verb:
                batch = asked.batch
                asked.unanswered.discard(channel)
                if not asked.unanswered:
                    self._asked.popleft()
            self._source.has_changed(verb, channel, batch)

    def read_ends(self) -> None:
        self._source.read_ends()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        unanswered = [each for asked in self._asked if isinstance(asked, Ping) for each in asked.waiting]
        for each in unanswered + self._waiting:
            each.callback(False)
