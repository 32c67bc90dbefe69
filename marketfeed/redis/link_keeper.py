"""A service that keeps one link to a Redis server: it makes a new one whenever it is lost.

1. Attempts are made for ever, with growing, jittered pauses, which begin anew once a link has been good. A cause is
   logged when it is new.
2. A link that has been quiet is asked for a sign of life; one that stays silent is lost.

    state        ends with                               and then
    connecting   a connection / none, within a time-out  logging in / pause
    logging in   PING answered / an error, 10 s          up / pause
    up           5 s without a byte / its end            asked / pause
    asked        any byte / 5 s more without one         up / pause
    pause        0.2 to 5 s, growing                     connecting
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from marketfeed.boundaries import Clock
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.link import LinkError, RedisLink, explain
from marketfeed.runtime.logs import Log

__all__ = ["QUIET_SECONDS", "SILENT_SECONDS", "LinkKeeper", "links_in"]

QUIET_SECONDS = 5.0
"""After this long without a byte the server is asked for one."""
SILENT_SECONDS = 10.0
"""After this long without a byte the link is lost."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_GOOD_SECONDS = 1.0
"""A link that lasted this long was a good one: the next pause is the first again. One that did not is not made anew
sooner: clients hear of a gap once a second at most."""

_Link = TypeVar("_Link", bound=RedisLink)


class LinkKeeper(MultiService, ABC, Generic[_Link]):
    """The service. Its children, which `add_child` adds, run for as long as it does.

    `name`: what the log calls it. `link`: the one that is up; None while there is none. `links`: how many have been up.
    """

    log = Log()
    is_of_source = False
    """Publications come on its links."""

    def __init__(self, clock: Clock, endpoint: IStreamClientEndpoint, address: RedisAddress, name: str) -> None:
        MultiService.__init__(self)
        self._clock = clock
        self._endpoint = endpoint
        self.address = address
        self.called = name
        self._work: Deferred[None] | None = None
        self._open: _Link | None = None
        self._failures = 0
        self._watch: IDelayedCall | None = None
        self._last_cause = ""
        self.link: _Link | None = None
        self.links = 0
        self._last_heard: float | None = None

    @property
    def ready(self) -> bool:
        """There is a link: what is asked now is sent."""
        return self.link is not None

    @abstractmethod
    def make_link(self) -> _Link:
        """A fresh link, not connected yet."""

    def link_up(self, link: _Link) -> None:
        """The link is ready for use."""

    def link_down(self, link: _Link | None) -> None:
        """The link is lost; None: none could be made."""

    @property
    def cause(self) -> str:
        """Why there is no link; empty while there is one, or none was ever tried."""
        return self._last_cause

    @property
    def reconnects(self) -> int:
        """How many links were made anew: all that have been up but the first."""
        return max(0, self.links - 1)

    @property
    def ping_age(self) -> float | None:
        """For how many seconds the server has owed an answer; None: it does not, or that is not watched."""
        return None

    @property
    def last_heard(self) -> float | None:
        """When the server was last heard, in seconds of the clock; None: never."""
        return self._last_heard if self.link is None else self.link.last_heard

    def add_child(self, child: IService) -> None:
        """Let something start when this service does, behind what was added before it, and stop when it does."""
        child.setServiceParent(self)

    def startService(self) -> None:
        Service.startService(self)
        self._work = Deferred.fromCoroutine(self._keep())
        for child in self:
            child.startService()

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop(MultiService.stopService(self)))

    async def _stop(self, children: Deferred[object]) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.cancel()
            await work
        if self._open is not None:
            await self._open.gone
        await children

    async def _keep(self) -> None:
        """Make a link, wait until it is lost, pause, and so on, until stopped, which cancels what is waited for."""
        try:
            while True:
                cause, lasted = await self._one_link()
                if not self.running:
                    return
                pause = self._next_pause(lasted)
                self._report(cause, pause)
                await deferLater(self._clock, pause)
        except CancelledError:
            pass

    async def _one_link(self) -> tuple[LinkError, float | None]:
        """The life of one link: the cause of its end, and the seconds for which it was up; None: it never was."""
        up_since = None
        try:
            try:
                link = await self._connect()
            except LinkError as fault:
                self.link_down(None)
                return fault, None
            up_since = self._clock.seconds()
            cause = await self._use(link)
        except CancelledError:
            raise
        except Exception:
            self.log.failure("{name}: internal error", name=self.called)
            cause = LinkError("internal error")
        return cause, None if up_since is None else self._clock.seconds() - up_since

    async def _connect(self) -> _Link:
        """A link whose login is done."""
        link = self.make_link()
        try:
            await self._endpoint.connect(_Ready(link))
        except Exception:
            if not self.running:  # endpoints have errors of their own for having been cancelled
                raise CancelledError from None
            raise explain(Failure()) from None
        self._open = link
        try:
            await link.log_in(self.address)
        except BaseException:
            if link.connected:
                link.fail("the login failed")
            raise
        return link

    async def _use(self, link: _Link) -> LinkError:
        """From the login on until the link is lost; the cause."""
        self.log.info("{name}: connected to {address}", name=self.called, address=self.address)
        self._last_cause = ""
        self._watch = self._clock.callLater(QUIET_SECONDS, self._see_whether_it_lives, link)
        link.is_up, self.link = True, link
        self.links += 1
        try:
            self.link_up(link)
            return await link.lost
        except BaseException:  # stopped, or a fault of the user's
            link.transport.abortConnection()
            raise
        finally:
            if self._watch.active():
                self._watch.cancel()
            self.link, self._last_heard = None, link.last_heard
            self.link_down(link)

    def _see_whether_it_lives(self, link: _Link, asked_after: float | None = None) -> None:
        """Look whether the link still lives. `asked_after`: when it had last been heard as it was asked."""
        if link.last_heard == asked_after:
            link.fail(f"silent for {SILENT_SECONDS:g} s")
            return
        # However long the silence, it is asked first: the clock may have jumped, or this process been suspended.
        now, quiet_at = self._clock.seconds(), link.last_heard + QUIET_SECONDS
        if now >= quiet_at:
            link.ping()
            delay, asked_after = SILENT_SECONDS - QUIET_SECONDS, link.last_heard
        else:  # what is left until a moment is never so small that it is lost when it is added to the present one
            delay, asked_after = quiet_at - now, None
        self._watch = self._clock.callLater(delay, self._see_whether_it_lives, link, asked_after)

    def _report(self, cause: LinkError, pause: float) -> None:
        text = str(cause)
        say = self.log.debug if text == self._last_cause else self.log.error
        self._last_cause = text
        line = "{name}: no connection to {address}: {cause}; trying again, next in {pause:.1f} s"
        say(line, name=self.called, address=self.address, cause=text, pause=pause)

    def _next_pause(self, lasted: float | None) -> float:
        """In seconds. `lasted`: for how many the link was up that was lost; None: none could be made."""
        if lasted is not None and lasted >= _GOOD_SECONDS:
            self._failures = 0
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**self._failures) * random.uniform(0.75, 1.25)
        self._failures = min(self._failures + 1, 10)
        if lasted is None or lasted >= _GOOD_SECONDS:
            return pause
        return max(pause, _GOOD_SECONDS * random.uniform(1, 1.25))


def links_in(services: Iterable[IService]) -> Iterator[LinkKeeper[Any]]:
    """The keepers among services, and among the parts of each."""
    for service in services:
        if isinstance(service, LinkKeeper):
            yield service
        if isinstance(service, MultiService):
            yield from links_in(service)


class _Ready(Factory):
    """Gives out one link that exists already. Unlike Twisted's own it is not known to the link: that were a cycle."""

    noisy = False

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    def buildProtocol(self, addr: object) -> RedisLink:
        return self._link
