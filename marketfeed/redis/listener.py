"""Listens to channels and patterns of a Redis server that never change (see `routed_listener`).

1. Every subscription is a command of its own, so that the server says which of them it refuses.
2. The sink hears things in the order in which they happened on the link: `arrived` before what came in one read, and
   `flush` behind it.
3. The link is never paused: a subscriber with too much unread is cut off by the server.
4. What is on its way when a link is lost may be old. So the server is asked for an answer every `ASK_SECONDS`: all that
   was published before the question has come before its answer. Whoever wants to know asks in the same way.
5. A server that is busy with a script has not answered: what it was asked is asked again.
6. A replica that has lost its master answers, and nothing arrives: a link to it is none (see `server_role`).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import hiredis
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall

from marketfeed.boundaries import Clock
from marketfeed.redis.commands import RedisCommands
from marketfeed.redis.link import SubscriberLink
from marketfeed.redis.link_keeper import LinkKeeper
from marketfeed.redis.pubsub_link import Ping
from marketfeed.redis.server_role import ASK_SECONDS, BUSY, RoleLink, RoleWatch
from marketfeed.redis.topology import Node

__all__ = ["ListenerSink", "RedisListener"]

BUSY_SECONDS = 0.25
"""After which a busy server is asked again for a subscription."""


class ListenerSink(Protocol):
    """What is listened for."""

    def arrived(self) -> None:
        """Something has come on the link, and is about to be said."""

    def publication(self, subscription: bytes, channel: bytes, payload: bytes) -> None:
        """A publication; as many times as there are subscriptions that cover its channel."""

    def flush(self) -> None:
        """All that arrived together has been said."""

    def complete(self) -> None:
        """Every subscription is confirmed: from now on nothing is missed."""

    def refused(self, subscription: bytes, why: str) -> bool:
        """The server does not permit a subscription. True: make the link anew, and ask again."""

    def lost(self, good_at: float) -> None:
        """The link is gone, or could not be made. `good_at`: until when nothing is missing, in seconds since 1970."""


class _ListenerLink(RoleLink, SubscriberLink):
    """A link that is complete with so many subscriptions. `good_at`: when all that was published had come."""

    def __init__(self, clock: Clock, missing: int, sink: ListenerSink, now: Callable[[], float]) -> None:
        super().__init__(clock)
        self._sink = sink
        self._missing = missing
        self._now = now
        self.good_at = now()
        self._unanswered: deque[tuple[bytes, bytes] | Ping] = deque()
        self._waiting: list[Deferred[bool]] = []  # for the answer to the next PING
        self._again: list[tuple[bytes, bytes]] = []
        self._pause: IDelayedCall | None = None

    def ask(self) -> None:
        """Ask for an answer, unless one is awaited."""
        if not any(isinstance(asked, Ping) for asked in self._unanswered):
            self.ping()

    def ping(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._unanswered.append(Ping(self._now(), waiting))
        super().ping()

    def catch_up(self) -> Deferred[bool]:
        """Wait until all that has been published by now has been told. False: the link is lost before."""
        done: Deferred[bool] = Deferred()
        self._waiting.append(done)
        self.ask()
        return done

    def end(self) -> None:
        """The link is gone."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        waiting, self._waiting = self._waiting, []
        for asked in self._unanswered:
            if isinstance(asked, Ping):
                waiting += asked.waiting
        self._unanswered.clear()
        for each in waiting:
            each.callback(False)

    def subscribe(self, commands: Sequence[tuple[bytes, bytes]]) -> None:
        self._unanswered.extend(commands)
        self.transport.write(b"".join(map(hiredis.pack_command, commands)))

    def _subscribe_again(self) -> None:
        self._pause = None
        again, self._again = self._again, []
        self.subscribe(again)

    def read_begins(self) -> None:
        self._sink.arrived()

    def messageReceived(self, pattern: bytes | None, channel: bytes, message: bytes) -> None:
        self._sink.publication(channel if pattern is None else pattern, channel, message)

    def read_ends(self) -> None:
        self._sink.flush()

    def heard(self, reply: Any) -> None:
        """Everything that is no publication: the server answers the commands in their order."""
        if not self._unanswered:
            self.fail(str(reply) if isinstance(reply, hiredis.ReplyError) else "an answer that nobody asked for")
            return
        asked = self._unanswered.popleft()
        if isinstance(reply, hiredis.ReplyError):
            self._refused(asked, str(reply))
        elif isinstance(asked, Ping):
            self.good_at = asked.at
            for each in asked.waiting:
                each.callback(True)
            if self._waiting:
                self.ask()
        elif type(reply) is list and reply[0] in (b"subscribe", b"psubscribe"):
            self._missing -= 1
            if not self._missing:
                self._sink.complete()

    def _refused(self, asked: tuple[bytes, bytes] | Ping, fault: str) -> None:
        is_busy = fault.split(" ", 1)[0] == BUSY
        if isinstance(asked, Ping):
            self._waiting += asked.waiting  # a busy one lives; what was published before is not known to have come
            if not is_busy:
                self.fail(fault)
        elif is_busy:
            self._again.append(asked)
            if self._pause is None:
                self._pause = self._clock.callLater(BUSY_SECONDS, self._subscribe_again)
        elif self._sink.refused(asked[1], fault):
            self.fail(fault)


class RedisListener(LinkKeeper[_ListenerLink]):
    """Keeps the subscriptions that `commands` make, through whatever happens to the link.

    `roles`: another link to the server, which is asked for its role; it runs for as long as this does. `now`: the
    sink's time, in seconds; `certain_at`: when the server was last known to be the one to listen to;
    `what`: comes this way, behind the name of the link.
    """

    def __init__(
        self,
        clock: Clock,
        node: Node,
        commands: Sequence[tuple[bytes, bytes]],
        sink: ListenerSink,
        roles: RedisCommands,
        now: Callable[[], float] = time.time,
        certain_at: Callable[[], float] = lambda: math.inf,
        what: str = "",
    ) -> None:
        super().__init__(clock, node.endpoint, node.address, f"{node.name}{what}")
        self.add_child(roles)
        self.node = node
        self._now = now
        self._certain_at = certain_at
        self._role = RoleWatch(clock, roles, now)
        self._commands = commands
        self._sink = sink
        self._down_since: float | None = None
        self._asking = LoopingCall(self._ask)
        self._asking.clock = clock

    @property
    def good_at(self) -> float:
        """Until when nothing is missing, as far as is known."""
        if self.link is not None:
            return self._good_at(self.link)
        return self._now() if self._down_since is None else self._down_since

    def _good_at(self, link: _ListenerLink) -> float:
        return min(link.good_at, self._role.good_at, self._certain_at())

    def make_link(self) -> _ListenerLink:
        return _ListenerLink(self._clock, len(self._commands), self._sink, self._now)

    def link_up(self, link: _ListenerLink) -> None:
        self._role.begin(link)
        self._down_since = None
        link.good_at = self._now()
        link.subscribe(self._commands)
        self._asking.start(ASK_SECONDS, now=False)

    def link_down(self, link: _ListenerLink | None) -> None:
        if link is not None:
            self._down_since = self._good_at(link)
            link.end()
            self._asking.stop()
            self._role.end()
        if self.running:
            self._sink.lost(self.good_at)

    def catch_up(self) -> Deferred[bool]:
        """Wait until all that has been published by now has been told. False: that is not to be known any more."""
        return succeed(False) if self.link is None else self.link.catch_up()

    def _ask(self) -> None:
        if self.link is not None:
            self.link.ask()
