"""Ends the waiting of a blocked command, from another link, with CLIENT UNBLOCK.

1. A client's number means something on its own server only, and two links may lead to two of them: through a proxy, or
   while names are changed. So before each use the other link's server is asked who it is. Whoever it is that is asked
   to unblock, it is never a stranger's client.
2. Whether the server permits it is asked once for each link that may have to be unblocked. Until it is known, and
   while the other link is away, the unblocker is not `ready`. What cannot be known is not permitted.
3. An answer of 0 says that the command has not arrived yet, or is over: it is asked again, after pauses that grow,
   until the answer is 1, or the command is known to be over. Nobody knows which of two commands an answer of 1 is
   about, so whoever asks while one is awaited has it asked again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from marketfeed.boundaries import Clock
from marketfeed.redis.commands import CommandFault, CommandRefused, RedisCommands
from marketfeed.redis.server_role import server_of
from marketfeed.runtime.logs import Log

__all__ = ["Unblocker"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


class Unblocker:
    """Unblocks one client of the server at a time."""

    log = Log()

    def __init__(self, clock: Clock, commands: RedisCommands) -> None:
        self._clock = clock
        self._commands = commands
        self._client: bytes | None = None
        self._server: bytes | None = None
        self._is_permitted = False
        self._is_asked_again = False
        self._work: Deferred[None] | None = None

    @property
    def ready(self) -> bool:
        """A blocked command can be ended."""
        return self._is_permitted and self._commands.ready

    def aim(self, client: Any, info: Any) -> None:
        """Unblock this client from now on: what its server answered to CLIENT ID and INFO, each perhaps an error."""
        self.rest()
        self._server = server_of(info)
        if isinstance(client, int) and self._server is not None:
            self._client = b"%d" % client
        else:
            fault = info if isinstance(client, int) else client
            self._give_up(str(fault) if isinstance(fault, Exception) else "the server does not say who it is")

    def rest(self) -> None:
        """There is nobody to unblock."""
        self._client = None
        self._is_permitted = False
        if self._work is not None:
            self._work.cancel()

    def try_out(self) -> None:
        """Find out whether it is permitted, where that is not known and can be asked. It may unblock the client."""
        if self._client is not None and not self._is_permitted and self._commands.ready:
            self._start(lambda: False)

    def unblock(self, is_blocked: Callable[[], bool]) -> None:
        """End what the client waits for. `is_blocked`: says whether it may still be waiting."""
        if self._client is not None and self.ready:
            self._start(is_blocked)

    def _start(self, is_blocked: Callable[[], bool]) -> None:
        self._is_asked_again = True  # if something is under way, that may have ended an earlier wait
        if self._work is None:
            self._work = Deferred.fromCoroutine(self._ask(is_blocked))
            if self._work.called:
                self._work = None

    async def _ask(self, is_blocked: Callable[[], bool]) -> None:
        client = self._client
        assert client is not None
        try:
            if server_of(await self._commands.ask("INFO", "server")) != self._server:
                self._give_up("its two connections lead to different servers")
                return
            pause = _FIRST_PAUSE
            while True:
                self._is_asked_again = False
                ended = await self._commands.ask("CLIENT", "UNBLOCK", client)
                self._is_permitted = True
                if not is_blocked() or (ended and not self._is_asked_again):
                    return
                if not ended:
                    await deferLater(self._clock, pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
        except CommandRefused as fault:
            self._give_up(str(fault))
        except CommandFault:
            self._is_permitted = False
        except CancelledError:
            pass
        finally:
            self._work = None

    def _give_up(self, why: str) -> None:
        self._client = None
        self._is_permitted = False
        self.log.warn("redis: wishes are followed within 250 ms, not at once: {fault}", fault=why)
