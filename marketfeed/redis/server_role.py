"""Whether a server has what its master has. A replica that has lost its master answers everything, and nothing arrives.

1. A link that publications come on asks for the server's role as it logs in; one to a replica without its master is not
   made. From then on a link for ordinary commands asks, once a second: one that is subscribed, or waits in a read,
   cannot.
2. The link is ended when its server has lost its master, when it has another one than before, and when it was a master
   and is none any more: what was published meanwhile may be missing. The next link finds out how things are.
3. What a server had when its role was last asked for, and good, is known to have come. A replica's was good only up to
   the question before its offset was last seen to move: it notices a silent master after its `repl-timeout`, and hears
   from a live one every `repl-ping-replica-period` seconds at least.
4. The two links may lead to different servers, behind a proxy, and a user may not be permitted to ask. Then nothing is
   known of the role, which the log says once, and a link that answers is a good one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import hiredis
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from marketfeed.boundaries import Clock
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.commands import CommandRefused, Commands, OutOfReach
from marketfeed.redis.link import LinkError, RedisLink
from marketfeed.runtime.logs import Log

__all__ = ["ASK_SECONDS", "BUSY", "RoleLink", "RoleWatch", "Server", "read_server", "server_of"]

ASK_SECONDS = 1.0
"""How often a server is asked for an answer."""
BUSY = "BUSY"
"""What an error begins with that says no more than that a script is running."""

_CUT_OFF = "the server is a replica that has lost its master"
_CHANGED = "the server has become another one's replica, or a master"
_ANOTHER = "the connection for commands leads to another server"
_RUN_ID = re.compile(rb"^run_id:(\w+)\r?$", re.MULTILINE)


class Server(msgspec.Struct, frozen=True):
    """Which process it was, and its part. `master`: host and port of a replica's; `offset`: how far a replica is."""

    run_id: bytes
    master: tuple[Any, ...] = ()
    is_cut_off: bool = False
    offset: int = 0


def server_of(info: Any) -> bytes | None:
    """Who the server is that answered INFO like this: another after each start. None: it does not say."""
    found = _RUN_ID.search(info) if isinstance(info, bytes) else None
    return found[1] if found is not None else None


def read_server(info: Any, role: Any) -> Server:
    """The replies to INFO and ROLE. Raises ValueError where they say nothing."""
    run_id = server_of(info)
    if run_id is None or not isinstance(role, list) or not role or (role[0] == b"slave" and len(role) != 5):
        raise ValueError("the server does not say which one it is")
    if role[0] != b"slave":
        return Server(run_id)
    _, host, port, state, offset = role
    return Server(run_id, (host, port), state != b"connected", offset)


class RoleLink(RedisLink):
    """A link that knows whom it leads to, from its login on. `server`: that, or why it cannot be known."""

    server: Server | str = ""

    async def log_in(self, address: RedisAddress) -> None:
        await super().log_in(address)
        try:
            self.server = read_server(await self.command("INFO", "server"), await self.command("ROLE"))
        except hiredis.ReplyError as fault:
            if str(fault).startswith(BUSY):
                raise LinkError(f"the server does not serve us: {fault}") from None
            self.server = str(fault)
        except ValueError as fault:
            self.server = str(fault)
        if isinstance(self.server, Server) and self.server.is_cut_off:
            raise LinkError(_CUT_OFF)


class RoleWatch:
    """Watches over one link at a time. `good_at`: when its server was last known to have all, in s since 1970."""

    log = Log()

    def __init__(self, clock: Clock, commands: Commands, now: Callable[[], float]) -> None:
        self._commands = commands
        self._now = now
        self._link: RoleLink | None = None
        self._known = Server(b"")
        self._known_at = 0.0
        self._work: Deferred[None] | None = None
        self._asking = LoopingCall(self._ask)
        self._asking.clock = clock
        self._has_said = False
        self.good_at = math.inf

    def begin(self, link: RoleLink) -> None:
        """The link is up."""
        self.good_at = self._known_at = self._now()
        if isinstance(link.server, str):
            self._unknown(link.server)
            return
        self._link, self._known = link, link.server
        self._asking.start(ASK_SECONDS, now=False)

    def end(self) -> None:
        """There is no link, or it is none any more."""
        self._link = None
        if self._asking.running:
            self._asking.stop()

    def _ask(self) -> None:
        if self._work is None and self._link is not None:
            self._work = Deferred.fromCoroutine(self._find_out(self._link))
            if self._work.called:
                self._work = None

    async def _find_out(self, link: RoleLink) -> None:
        asked_at = self._now()
        try:
            info = await self._commands.ask("INFO", "server")
            server = read_server(info, await self._commands.ask("ROLE"))  # on the same link, or on none
            fault = _ANOTHER if server.run_id != self._known.run_id else ""
        except OutOfReach:
            return
        except CommandRefused as refusal:
            if str(refusal).startswith(BUSY):
                return
            fault = str(refusal)
        except ValueError as error:
            fault = str(error)
        finally:
            self._work = None
        if link is not self._link:
            return
        if fault:
            self._unknown(fault)
        else:
            self._judge(link, server, asked_at)

    def _judge(self, link: RoleLink, server: Server, asked_at: float) -> None:
        known = self._known
        if server.is_cut_off:
            link.fail(_CUT_OFF)
        elif server.master != known.master:
            link.fail(_CHANGED)
        elif not server.master:
            self.good_at = asked_at
        else:
            if server.offset != known.offset:
                self.good_at = self._known_at
            self._known, self._known_at = server, asked_at

    def _unknown(self, why: str) -> None:
        self.good_at = math.inf
        if not self._has_said:
            self._has_said = True
            self.log.warn("redis: a replica that loses its master would not be noticed: {why}", why=why)
