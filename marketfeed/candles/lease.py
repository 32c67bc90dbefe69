"""Which of several candle services is at work: a key in Redis, which says so for some seconds.

It is a hint, which keeps the others idle. What is written is guarded by the leader's number (`store`), so that one who
wakes up after its lease is over does no harm.
"""

from __future__ import annotations

from marketfeed.redis.commands import CommandFault, KeyedCommands

__all__ = ["LEASE_SECONDS", "LOOK_SECONDS", "Lease"]

LEASE_SECONDS = 4.0
LOOK_SECONDS = 1.0
"""How often it is looked at, and lengthened."""


class Lease:
    """The lease at `key`, for a service that is called `name`, which is nobody else's."""

    def __init__(self, commands: KeyedCommands, key: str, name: str, seconds: float = LEASE_SECONDS) -> None:
        self._commands = commands
        self._key = key.encode()
        self._name = name.encode()
        self._ms = int(seconds * 1000)

    async def take(self) -> bool:
        """Have it, or go on having it. Whether that is so. Raises `CommandFault`."""
        taken = await self._ask("SET", self._key, self._name, "NX", "PX", self._ms)
        if taken is not None:
            return True
        if await self._ask("GET", self._key) != self._name:
            return False
        return bool(await self._ask("PEXPIRE", self._key, self._ms))

    async def give_up(self) -> None:
        """Let another one have it at once."""
        try:
            if await self._ask("GET", self._key) == self._name:
                await self._ask("DEL", self._key)
        except CommandFault:
            pass  # it will be over soon

    async def _ask(self, *words: bytes | str | int) -> bytes | int | None:
        reply: bytes | int | None = await self._commands.ask_for(self._key, *words)
        return reply
