"""One sentinel: the link to it, and what it says of a master.

1. The link speaks RESP3, in which one that is subscribed takes other commands as well. It is up once the sentinel has
   said that it knows the master.
2. The sentinel is asked for the epoch of its configuration before the address. During a failover `SENTINEL MASTER` has
   the new epoch with the old address; `SENTINEL GET-MASTER-ADDR-BY-NAME` has the new one by then. So an address is
   never older than the epoch that it is taken for.
3. It is asked at once when the link is up, when it says that something is changing, and when somebody doubts; and every
   `ASK_SECONDS` otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hiredis
import msgspec
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import LoopingCall

from marketfeed.boundaries import Clock
from marketfeed.redis.address import RedisAddress, is_host
from marketfeed.redis.commands import CommandLink
from marketfeed.redis.link_keeper import LinkKeeper

__all__ = ["ASK_SECONDS", "Answer", "Master", "Sentinel", "read_answer"]

ASK_SECONDS = 1.0
_CHANNELS = ("+switch-master", "+promoted-slave")
"""On which a sentinel says that there is another master. The one that leads a failover knows it from the promotion on,
but switches only once the other replicas have been told."""


class Master(msgspec.Struct, frozen=True):
    """Where the master is, by the configuration of this epoch."""

    epoch: int
    host: str
    port: int


class Answer(msgspec.Struct, frozen=True):
    """What a sentinel says: the master; the others who watch it, by their ids. `asked_at`: in s since 1970."""

    asked_at: float
    master: Master
    others: dict[bytes, tuple[str, int]]


class _SentinelLink(CommandLink):
    """A link that hears of changes. `sentinel_id`: whom it leads to, which does not change when it is started anew."""

    def __init__(self, clock: Clock, master: str, changing: Callable[[], None]) -> None:
        super().__init__(clock)
        self._master = master
        self._changing = changing
        self.sentinel_id = b""

    async def log_in(self, address: RedisAddress) -> None:
        await super().log_in(address)
        await self.request("the sentinel does not speak RESP3, as it does since Redis 6", "HELLO", 3)
        for channel in _CHANNELS:
            await self.request("the sentinel does not tell of changes", "SUBSCRIBE", channel)
        self.sentinel_id = await self.request("it does not say which sentinel it is, as since 6.2", "SENTINEL", "MYID")
        await self.request(f"the sentinel does not tell of {self._master!r}", "SENTINEL", "MASTER", self._master)

    def replyReceived(self, reply: Any) -> None:
        if not _is_news(reply):  # what came during the login is asked for after it
            super().replyReceived(reply)

    def heard(self, reply: Any) -> None:
        if _is_news(reply):
            self._changing()
        else:
            super().heard(reply)


def _is_news(reply: Any) -> bool:
    return isinstance(reply, hiredis.PushNotification) and reply[0] == b"message"


class Sentinel(LinkKeeper[_SentinelLink]):
    """Keeps a link to a sentinel, and calls `answered` whenever it has said something, or cannot any more.

    `name`: what the log and the metrics call the link; `master`: the name by which the sentinel knows the master;
    `now`: the time, in s since 1970. `answer`: what it says, on the link that is up; `last`: what it said last, on
    whichever; None: nothing yet.
    """

    def __init__(
        self,
        clock: Clock,
        endpoint: IStreamClientEndpoint,
        address: RedisAddress,
        name: str,
        master: str,
        answered: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        super().__init__(clock, endpoint, address, name)
        self._master = master
        self._answered = answered
        self._now = now
        self._question: Deferred[None] | None = None
        self._is_asked_again = False
        self._asking = LoopingCall(self.ask)
        self._asking.clock = clock
        self.sentinel_id = b""
        self.answer: Answer | None = None
        self.last: Answer | None = None

    def make_link(self) -> _SentinelLink:
        return _SentinelLink(self._clock, self._master, self.ask)

    def link_up(self, link: _SentinelLink) -> None:
        self.sentinel_id = link.sentinel_id
        self._asking.start(ASK_SECONDS)

    def link_down(self, link: _SentinelLink | None) -> None:
        if self._asking.running:
            self._asking.stop()
        self.answer = None
        if self.running:
            self._answered()

    def ask(self) -> None:
        """Have it say what it knows by now, where it can be asked."""
        self._is_asked_again = self._question is not None
        if self.link is not None and self._question is None:
            self._question = Deferred.fromCoroutine(self._find_out(self.link))
            if self._question.called:
                self._question = None

    async def _find_out(self, link: _SentinelLink) -> None:
        asked_at = self._now()
        words = ("MASTER", "GET-MASTER-ADDR-BY-NAME", "SENTINELS")
        asked = [link.ask(hiredis.pack_command(("SENTINEL", word, self._master))) for word in words]
        replies = await DeferredList(asked, consumeErrors=True)
        self._question = None
        if link is not self.link:
            return
        faults = [reply.value for is_good, reply in replies if not is_good]
        try:
            if faults:
                raise ValueError(faults[0])
            self.answer = self.last = read_answer(asked_at, *[reply for _, reply in replies])
        except ValueError as fault:
            link.fail(f"the sentinel does not tell of {self._master!r}: {fault}")
            return
        self._answered()
        if self._is_asked_again:
            self.ask()


def read_answer(asked_at: float, state: Any, place: Any, others: Any) -> Answer:
    """The replies to the three questions. Raises ValueError where they say nothing."""
    try:
        host, port = place
        master = Master(int(state[b"config-epoch"]), host.decode().lower(), int(port))
        known = {row[b"runid"]: (row[b"ip"].decode().lower(), int(row[b"port"])) for row in others}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError("its answer cannot be read") from None
    if not _is_place(master.host, master.port):
        raise ValueError("it knows no address")
    return Answer(asked_at, master, {each: where for each, where in known.items() if each and _is_place(*where)})


def _is_place(host: str, port: int) -> bool:
    return is_host(host) and 0 < port < 65536
