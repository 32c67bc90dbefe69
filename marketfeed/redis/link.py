"""One connection to a Redis server, and its keeper, who makes a new one whenever it is lost.

1. A link is up when the server has taken the login and answered a PING; before that it is nobody's business.
2. Every way in which a link can fail ends in one `LinkError`, whose message says what is wrong in one line.
3. A link that has been quiet is asked for a sign of life; one that stays silent is lost.
4. Attempts are made for ever, with growing, jittered pauses, which begin anew once a link has been good. A cause is
   logged when it is new.
"""

from __future__ import annotations

import random
from typing import Any, Protocol

import hiredis
from OpenSSL import SSL
from twisted.application.service import Service
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from txredisapi import SubscriberProtocol

from marketfeed.boundaries import Clock
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.tls import explain_refusal
from marketfeed.runtime.logs import Log

__all__ = ["LinkError", "LinkKeeper", "LinkOwner", "RedisLink"]

LOGIN_SECONDS = 10.0
QUIET_SECONDS = 5.0
"""After this long without a byte the server is asked for one."""
SILENT_SECONDS = 10.0
"""After this long without a byte the link is lost."""
READ_BYTES = 256 * 1024
"""Of a link that are read in one turn, between which clients are served. Twisted's 64 KiB make it fall behind."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_GOOD_SECONDS = 1.0
"""A link that lasted this long was a good one: the next pause is the first again. One that did not is not made anew
sooner: clients hear of a gap once a second at most."""


class LinkError(Exception):
    """The link could not be made, or is gone; the message is one line for the log."""


class RedisLink(SubscriberProtocol):
    """A connection that can log in, and tells when it was last heard and when it is lost.

    `is_up`: the login is done, and what comes from now on is for who uses the link.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self._clock = clock
        self._replies = hiredis.Reader()
        self._fault: LinkError | None = None
        self._expected = ""
        self.is_up = False
        self.lost: Deferred[LinkError] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self.last_heard = clock.seconds()

    def connectionMade(self) -> None:
        transport = self.transport
        while (below := getattr(transport, "transport", None)) is not None:  # TLS stands on the one that reads
            transport = below
        transport.bufferSize = READ_BYTES
        super().connectionMade()

    async def log_in(self, address: RedisAddress) -> None:
        """Send AUTH and SELECT as the address says, then PING. Raises `LinkError`."""
        self._expected = "a Redis server with TLS" if address.tls else "a Redis server"
        if address.password is not None:
            user = (address.username,) if address.username else ()
            await self._ask("the login was refused", "AUTH", *user, address.password)
        if address.database:
            await self._ask(f"database {address.database} cannot be used", "SELECT", address.database)
        await self._ask("the server does not serve us", "PING")

    async def _ask(self, complaint: str, *command: str | int) -> None:
        try:
            await self.command(*command)
        except hiredis.ReplyError as fault:
            raise LinkError(f"{complaint}: {fault}") from None

    async def command(self, *words: str | int) -> Any:
        """Ask one thing during the login; its reply. Raises hiredis' ReplyError, or `LinkError`."""
        try:
            return await self.execute_command(*words).addTimeout(LOGIN_SECONDS, self._clock)
        except hiredis.ReplyError:
            raise
        except DeferredTimeout:
            raise LinkError(f"no answer within {LOGIN_SECONDS:g} s, is it {self._expected}?") from None
        except CancelledError:
            raise
        except Exception:
            raise self._fault or LinkError("the connection was closed") from None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._fault is None:
            self._fault = _explain(reason)
        super().connectionLost(reason)
        self.lost.callback(self._fault)
        self.gone.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.last_heard = self._clock.seconds()
        try:
            self._replies.feed(data)
            while (reply := self._replies.gets()) is not False:
                if self.is_up:
                    self.heard(reply)
                else:
                    self.replyReceived(reply)
        except hiredis.ProtocolError:
            self.fail("the answer is not in Redis' protocol, is it a Redis server?")

    def heard(self, reply: Any) -> None:
        """One reply on a link that is up; by default it answers the oldest command."""
        self.replyReceived(reply)

    def ping(self) -> None:
        """Ask for a sign of life; whatever comes next is one."""
        self.transport.write(hiredis.pack_command(("PING",)))

    def fail(self, cause: str) -> None:
        """End the link."""
        if self._fault is None:
            self._fault = LinkError(cause)
        self.transport.abortConnection()


def _explain(reason: Failure) -> LinkError:
    fault = reason.value
    if isinstance(fault, error.DNSLookupError):
        return LinkError("the host name is not known")
    if isinstance(fault, error.ConnectionRefusedError):
        return LinkError("connection refused")
    if isinstance(fault, error.TimeoutError | DeferredTimeout):
        return LinkError("no connection within the time-out")
    if isinstance(fault, SSL.Error):
        return LinkError(f"TLS: {explain_refusal(_tls_fault(fault)) or 'the handshake failed'}")
    if type(fault).__name__ == "VerificationError":
        return LinkError("TLS: the certificate is for another host")
    if isinstance(fault, error.ConnectionDone | error.ConnectionLost):
        return LinkError("the connection was closed")
    if isinstance(fault, error.ConnectError) and fault.osError is not None:
        return LinkError(str(fault.args[0] if fault.args else fault))
    return LinkError(" ".join(f"{type(fault).__name__}: {fault}".split())[:200])


def _tls_fault(fault: SSL.Error) -> str:
    """What OpenSSL says: usually a list of (library, function, reason), but the last argument may be a text."""
    entries = fault.args[-1] if fault.args else []
    if isinstance(entries, str):
        return entries
    return "; ".join(": ".join(text for text in entry if text) for entry in entries)


class LinkOwner(Protocol):
    """Who uses the links that a keeper makes."""

    def make_link(self) -> RedisLink:
        """A fresh link, not connected yet."""

    def link_up(self, link: RedisLink) -> None:
        """The link is ready for use."""

    def link_down(self, link: RedisLink | None) -> None:
        """The link is lost; None: none could be made."""


class LinkKeeper(Service):
    """Keeps one link to a server. `name`: what the log calls it."""

    log = Log()

    def __init__(
        self, clock: Clock, endpoint: IStreamClientEndpoint, address: RedisAddress, owner: LinkOwner, name: str
    ) -> None:
        self._clock = clock
        self._endpoint = endpoint
        self._address = address
        self._owner = owner
        self._name = name
        self._work: Deferred[None] | None = None
        self._link: RedisLink | None = None
        self._failures = 0
        self._is_flapping = False
        self._watch: IDelayedCall | None = None
        self._last_cause = ""

    def startService(self) -> None:
        Service.startService(self)
        self._work = Deferred.fromCoroutine(self._keep())

    async def _stop(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.cancel()
            await work
        if self._link is not None:
            await self._link.gone

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _keep(self) -> None:
        """Make a link, wait until it is lost, pause, and so on, until stopped, which cancels what is waited for."""
        while True:
            try:
                cause = await self._one_link()
            except CancelledError:
                return
            except Exception:
                self.log.failure("{name}: internal error", name=self._name)
                cause = LinkError("internal error")
            if not self.running:
                return
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**self._failures) * random.uniform(0.75, 1.25)
            if self._is_flapping:
                self._is_flapping = False
                pause = max(pause, _GOOD_SECONDS * random.uniform(1, 1.25))
            self._failures = min(self._failures + 1, 10)
            self._report(cause, pause)
            try:
                await deferLater(self._clock, pause)
            except CancelledError:
                return

    async def _one_link(self) -> LinkError:
        """The life of one link; returns the cause of its end."""
        owner = self._owner
        try:
            link = await self._connect()
        except LinkError as cause:
            owner.link_down(None)
            return cause
        self.log.info("{name}: connected to {address}", name=self._name, address=self._address)
        self._last_cause = ""
        up_since = self._clock.seconds()
        self._watch = self._clock.callLater(QUIET_SECONDS, self._look, link)
        link.is_up = True
        try:
            owner.link_up(link)
            return await link.lost
        except BaseException:  # stopped, or a fault of the owner's
            link.transport.abortConnection()
            raise
        finally:
            lasted = self._clock.seconds() - up_since
            self._is_flapping = lasted < _GOOD_SECONDS
            if not self._is_flapping:
                self._failures = 0
            if self._watch.active():
                self._watch.cancel()
            owner.link_down(link)

    async def _connect(self) -> RedisLink:
        link = self._owner.make_link()
        try:
            await self._endpoint.connect(_Ready(link))
        except Exception:
            if not self.running:  # endpoints have errors of their own for having been cancelled
                raise CancelledError from None
            raise _explain(Failure()) from None
        self._link = link
        link.gone.addCallback(self._forget)
        try:
            await link.log_in(self._address)
        except BaseException:
            if link.connected:
                link.fail("the login failed")
            raise
        return link

    def _forget(self, _: None) -> None:
        self._link = None

    def _look(self, link: RedisLink, asked_after: float | None = None) -> None:
        """Look whether the link still lives. `asked_after`: when it had last been heard as it was asked."""
        if link.last_heard == asked_after:
            link.fail(f"silent for {SILENT_SECONDS:g} s")
            return
        # However long the silence, it is asked first: the clock may have jumped, or this process been suspended.
        silence = self._clock.seconds() - link.last_heard
        if silence >= QUIET_SECONDS:
            link.ping()
            self._watch = self._clock.callLater(SILENT_SECONDS - QUIET_SECONDS, self._look, link, link.last_heard)
        else:
            self._watch = self._clock.callLater(QUIET_SECONDS - silence, self._look, link)

    def _report(self, cause: LinkError, pause: float) -> None:
        text = str(cause)
        say = self.log.debug if text == self._last_cause else self.log.error
        self._last_cause = text
        say(
            "{name}: no connection to {address}: {cause}; trying again, next in {pause:.1f} s",
            name=self._name,
            address=self._address,
            cause=text,
            pause=pause,
        )


class _Ready(Factory):
    """Gives out one link that exists already."""

    noisy = False

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    def buildProtocol(self, addr: object) -> RedisLink:
        return self._link
