"""Ends the waiting of a blocked command, from another link, with CLIENT UNBLOCK.

1. Whether the server permits that is asked once for each link that may have to be unblocked. Until it is known, and
   while the other link is away, the unblocker is not `ready`.
2. An answer of 0 says that the command has not arrived yet, or is over: it is asked again until the answer is 1, or the
   command is known to be over. Nobody knows which of two commands an answer of 1 is about, so whoever asks while one
   is awaited has it asked again.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from marketfeed.logs import Log
from marketfeed.source.redis_commands import CommandFault, CommandRefused, RedisCommands

__all__ = ["Unblocker"]


class Unblocker:
    """Unblocks one client of the server at a time."""

    log = Log()

    def __init__(self, commands: RedisCommands) -> None:
        self._commands = commands
        self._client: bytes | None = None
        self._is_permitted = False
        self._is_asked_again = False
        self._work: Deferred[None] | None = None

    @property
    def ready(self) -> bool:
        """A blocked command can be ended."""
        return self._is_permitted and self._commands.ready

    def aim(self, client: int | None) -> None:
        """The client's id from now on; None: there is none, or it cannot be known."""
        self._client = None if client is None else b"%d" % client
        self._is_permitted = False

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
            is_over = False
            while not is_over:
                self._is_asked_again = False
                ended = await self._commands.ask("CLIENT", "UNBLOCK", client)
                is_over = not is_blocked() or (bool(ended) and not self._is_asked_again)
            if client == self._client:
                self._is_permitted = True
        except CommandRefused as fault:
            if client == self._client:
                self._client = None
                self.log.warn("redis: wishes are followed within 250 ms, not at once: {fault}", fault=str(fault))
        except CommandFault:
            self._is_permitted = False
        finally:
            self._work = None
