"""A link for ordinary commands: what is asked is sent at once, and answered in the order of asking.

1. Every question is answered once: with the reply, or with a `CommandFault` that says why there is none.
2. A question that is asked while there is no link fails at once; one whose link is lost fails then. Nothing is asked
   again, for nobody here knows what the server has done.
3. A link that is silent is ended by its keeper, so that no question waits for ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import hiredis
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from marketfeed.boundaries import Clock
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.link import RedisLink
from marketfeed.redis.link_keeper import LinkKeeper

__all__ = ["CommandFault", "CommandLink", "CommandRefused", "Commands", "KeyedCommands", "OutOfReach", "RedisCommands"]


class CommandFault(Exception):
    """A command has no reply; the message is one line for the log."""


class OutOfReach(CommandFault):
    """There is no link, or it was lost before the reply came."""


class CommandRefused(CommandFault):
    """The server answered with an error; the message is the server's."""


class Commands(Protocol):
    """Through which the server is asked things."""

    def ask(self, *words: bytes | str | int) -> Deferred[Any]:
        """Send one command. Its reply, as hiredis reads it (bytes, int, list, None); fails with `CommandFault`."""


class KeyedCommands(Protocol):
    """Through which whichever server has a key is asked about it."""

    def ask_for(self, key: bytes, *words: bytes | str | int) -> Deferred[Any]:
        """Send one command to the server that has `key`. Its reply, or a `CommandFault`, as `Commands` has it."""

    def place_of(self, key: bytes) -> object:
        """Which server has `key`, on which link: as long as that is equal, all answers are of one past."""


class CommandLink(RedisLink):
    """A link whose replies belong, once it is up, to whoever asked first."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._waiting: deque[Deferred[Any]] = deque()

    def ask(self, command: bytes) -> Deferred[Any]:
        # Whoever loses interest cancels; the reply still comes, and is then nobody's.
        waiting: Deferred[Any] = Deferred()
        self._waiting.append(waiting)
        self.transport.write(command)
        return waiting

    def ping(self) -> None:
        self.ask(hiredis.pack_command(("PING",))).addErrback(lambda _: None)

    def heard(self, reply: Any) -> None:
        if not self._waiting:
            self.fail("an answer that nobody asked for")
        elif isinstance(reply, hiredis.ReplyError):
            self._waiting.popleft().errback(CommandRefused(str(reply)))
        else:
            self._waiting.popleft().callback(reply)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            each.errback(OutOfReach(str(self._fault)))


class RedisCommands(LinkKeeper[CommandLink]):
    """Keeps a link to ask through. `name`: what the log calls it; `away` is called when it is lost, or none can be
    made.
    """

    def __init__(
        self,
        clock: Clock,
        endpoint: IStreamClientEndpoint,
        address: RedisAddress,
        name: str = "redis commands",
        away: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(clock, endpoint, address, name)
        self._away = away

    def link_down(self, link: CommandLink | None) -> None:
        if self.running:
            self._away()

    def ask(self, *words: bytes | str | int) -> Deferred[Any]:
        if self.link is None:
            return fail(OutOfReach("there is no connection"))
        return self.link.ask(hiredis.pack_command(words))

    def make_link(self) -> CommandLink:
        return CommandLink(self._clock)
