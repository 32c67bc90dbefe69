"""The streams that are kept ready without clients (`--warm`), found by their names and by patterns.

1. A name is said when the service starts. What a pattern covers is said when it is found, each stream once.
2. Where Redis keeps the streams, patterns are looked for among its keys of that type. Where it only passes publications
   on, nobody knows the streams before something is published: they are looked for among the keys of the snapshots, and
   somebody listens (`channel_sampler`). The channels that others subscribe to are not looked at: a client may subscribe
   to whatever it likes, and none of that need exist.
3. A look takes small steps, and at most a twentieth of the time; the next one comes after `LOOK_SECONDS` at least. One
   that fails is tried again, and its cause is logged when it is new.
4. Nothing but streams of declared kinds is found, and at most `MOST_STREAMS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import product
from typing import Protocol

from twisted.application.service import IService, MultiService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from marketfeed.boundaries import Clock
from marketfeed.model.streams import snapshot_key
from marketfeed.redis.commands import CommandFault, Commands, OutOfReach
from marketfeed.runtime.logs import Log

__all__ = ["LOOK_SECONDS", "MOST_STREAMS", "Preload"]

LOOK_SECONDS = 5.0
MOST_STREAMS = 50_000
_FIRST_LOOK_SECONDS = 0.5
"""After a look for which there was no link yet."""
_SHARE = 20
_STEP = b"500"
"""Keys that one step of a look passes."""


class Glob(Protocol):
    """Which streams are looked for, as `StreamGlob` has it; ``str()`` is a stream's name, if `is_name`."""

    @property
    def is_name(self) -> bool:
        """It is one stream's name."""

    def covers(self, name: str) -> bool:
        """Whether `name` is a stream's that is looked for."""

    def behind(self, prefix: str) -> bytes:
        """The pattern for Redis, behind what stands before all names."""


class Preload(MultiService):
    """Calls `discovered` with the canonical names of the streams that `globs` cover, with each once.

    `servers`: all that have some of them, at the moment; `listen`: where Redis only passes publications on, makes what
    listens to patterns of channels, as a child of this; None: Redis keeps them as Redis Streams. `called`: for whose
    sake it looks, in the log.
    """

    log = Log()

    def __init__(
        self,
        clock: Clock,
        servers: Callable[[], Iterable[Commands]],
        discovered: Callable[[str], object],
        globs: Sequence[Glob],
        channel_prefix: str,
        listen: Callable[[Sequence[bytes], Callable[[bytes], None]], IService] | None,
        called: str = "--warm",
    ) -> None:
        MultiService.__init__(self)
        self._clock = clock
        self._servers = servers
        self._discovered = discovered
        self._names = [str(glob) for glob in globs if glob.is_name]
        self._globs = [glob for glob in globs if not glob.is_name]
        self._prefix = channel_prefix
        self._by_streams = listen is None
        self._called = called
        self._said: set[str] = set()
        self._last_fault = ""
        self._is_full = False
        self._work: Deferred[None] | None = None
        if self._globs and listen is not None:
            channels = [glob.behind(channel_prefix) for glob in self._globs]
            listen(channels, partial(self._found, channel_prefix)).setServiceParent(self)

    def startService(self) -> None:
        MultiService.startService(self)
        for name in self._names:
            self._say(name)
        if self._globs:
            self._work = Deferred.fromCoroutine(self._look_again_and_again())

    def stopService(self) -> Deferred[None]:
        if self._work is not None:
            self._work.cancel()
            self._work = None
        stopped: Deferred[None] = MultiService.stopService(self)
        return stopped

    async def _look_again_and_again(self) -> None:
        try:
            while True:
                began = self._clock.seconds()
                pause = LOOK_SECONDS
                try:
                    await self._look()
                    self._last_fault = ""
                except OutOfReach:
                    pause = _FIRST_LOOK_SECONDS  # whose link it is has said so
                except CommandFault as fault:
                    why = str(fault)
                    if why != self._last_fault:
                        self._last_fault = why
                        self.log.error("redis: {called} cannot look for streams: {why}", called=self._called, why=why)
                except CancelledError:
                    raise
                except Exception:
                    self.log.failure("redis: a look for {called} stumbled", called=self._called)
                took = self._clock.seconds() - began
                await deferLater(self._clock, max(pause, took * (_SHARE - 1)))
        except CancelledError:
            pass

    async def _look(self) -> None:
        prefix = self._prefix if self._by_streams else snapshot_key(self._prefix, "")
        more = (b"TYPE", b"stream") if self._by_streams else ()
        for glob, server in product(self._globs, self._servers()):
            cursor = b"0"
            while True:
                pattern = glob.behind(prefix)
                cursor, keys = await server.ask("SCAN", cursor, "MATCH", pattern, "COUNT", _STEP, *more)
                for key in keys:
                    self._found(prefix, key)
                if cursor == b"0":
                    break

    def _found(self, prefix: str, key: bytes) -> None:
        name = key.removeprefix(prefix.encode()).decode("latin-1")
        if name not in self._said and any(glob.covers(name) for glob in self._globs):
            self._say(name)

    def _say(self, name: str) -> None:
        if len(self._said) < MOST_STREAMS:
            self._said.add(name)
            self._discovered(name)
        elif not self._is_full:
            self._is_full = True
            self.log.error(
                "{called} covers more than {count} streams; the others are left out",
                called=self._called,
                count=MOST_STREAMS,
            )
