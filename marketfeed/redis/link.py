"""A connection to a Redis server: its login, its replies, and how it ends.

1. A link is up when the server has taken the login and answered a PING; before that it is nobody's business.
2. Every way in which a link can fail ends in one `LinkError`, whose message says what is wrong in one line.

It is kept, and made anew, by a `LinkKeeper`.
"""

from __future__ import annotations

from typing import Any

import hiredis
from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from txredisapi import SubscriberProtocol

from marketfeed.boundaries import Clock
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.replies import tell
from marketfeed.redis.tls import explain_refusal

__all__ = ["LinkError", "RedisLink", "SubscriberLink", "explain"]

LOGIN_SECONDS = 10.0
READ_BYTES = 256 * 1024
"""Of a link that are read in one turn, between which clients are served. Twisted's 64 KiB make it fall behind."""


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
        """Send AUTH and SELECT as the address says, then PING, and ROLE where only a master will do.

        Raises `LinkError`.
        """
        self._expected = "a Redis server with TLS" if address.tls else "a Redis server"
        if address.password is not None:
            user = (address.username,) if address.username else ()
            await self.request("the login was refused", "AUTH", *user, address.password)
        if address.database:
            await self.request(f"database {address.database} cannot be used", "SELECT", address.database)
        await self.request("the server does not serve us", "PING")
        if address.master_only:
            role = await self.request("the server does not say whether it is the master", "ROLE")
            if not isinstance(role, list) or role[:1] != [b"master"]:
                raise LinkError("the server is no master, though the sentinels say so")

    async def request(self, complaint: str, *command: str | int) -> Any:
        """Ask one thing during the login; its reply. Raises `LinkError`, which says `complaint` of a refusal."""
        try:
            return await self.command(*command)
        except hiredis.ReplyError as fault:
            raise LinkError(f"{complaint}: {fault}") from None

    async def command(self, *words: str | int) -> Any:
        """Ask one thing during the login; its reply. Raises hiredis' ReplyError, or `LinkError`."""
        try:
            return await self.execute_command(*words).addTimeout(LOGIN_SECONDS, self._clock)
        except (hiredis.ReplyError, CancelledError):
            raise
        except DeferredTimeout:
            raise LinkError(f"no answer within {LOGIN_SECONDS:g} s, is it {self._expected}?") from None
        except Exception:
            raise self._fault or LinkError("the connection was closed") from None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._fault is None:
            self._fault = explain(reason)
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

    def replyReceived(self, reply: Any) -> None:
        self.replyQueue.put(reply)  # txredisapi's own would cut a list to its last three

    def ping(self) -> None:
        """Ask for a sign of life; whatever comes next is one."""
        self.transport.write(hiredis.pack_command(("PING",)))

    def fail(self, cause: str) -> None:
        """End the link."""
        if self._fault is None:
            self._fault = LinkError(cause)
        self.transport.abortConnection()


class SubscriberLink(RedisLink):
    """A link that, once it is up, calls `messageReceived` for each publication and `heard` for all else.

    Things are told in the order in which they came.
    """

    def dataReceived(self, data: bytes) -> None:
        if not self.is_up:
            super().dataReceived(data)
            return
        self.last_heard = self._clock.seconds()
        self.read_begins()
        try:
            self.tell(data)
        except hiredis.ProtocolError:
            self.fail("the answer is not in Redis' protocol")
        self.read_ends()

    def tell(self, data: bytes) -> None:
        """Tell all that has come."""
        tell(self._replies, data, self.messageReceived, self.heard)

    def read_begins(self) -> None:
        """Something has come on the link; it is about to be told."""

    def messageReceived(self, pattern: bytes | None, channel: bytes, message: bytes) -> None:
        """One publication. `pattern`: the subscription that it comes for, where that is not the channel itself."""
        raise NotImplementedError

    def read_ends(self) -> None:
        """All that came together has been told."""


def explain(reason: Failure) -> LinkError:
    """Why a connection could not be made, or was lost, in words that an operator knows."""
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
