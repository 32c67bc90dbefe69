"""The WebSocket connection of `marketfeed watch`: Autobahn's client protocol as the watcher's `Link`.

1. The server is not trusted: what it sends is bounded, and what is repeated of it is cleaned.
2. Certificate and host name of a wss server are verified.
3. Autobahn sets no timer: the watcher has one for every wait.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

import txaio.tx
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.websocket.types import ConnectingRequest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from marketfeed import __version__
from marketfeed.commands.address import ServerAddress
from marketfeed.commands.watch.watcher import Loss, Watcher
from marketfeed.model.kinds.columns import clean
from marketfeed.wire.messages import CLOSE_REASONS

__all__ = ["Connection", "dial"]

MAX_HEAD = 65536
MAX_MESSAGE = 16 * 1024 * 1024
_SHOWN = 200

_FINAL_STATUSES = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)
_CLOSES = {reason.code: reason for reason in CLOSE_REASONS}
_NORMAL = 1000

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] +(\d{3})(?: +([^\r\n]*))?(?:\r?\n|$)")
_RETRY_AFTER = re.compile(rb"\nretry-after:[ \t]*(\d{1,9})[ \t]*\r?(?:\n|$)", re.IGNORECASE)
_PLAIN_TEXT = re.compile(rb"\ncontent-type:[ \t]*text/plain\b", re.IGNORECASE)


def dial(
    reactor: Any, address: ServerAddress, watcher: Watcher, trust_root: Any = None, *, token: str | None = None
) -> Deferred[Any]:
    """One attempt: fires with a `Connection` once the transport is there; the handshake follows.

    `token`: what to show to a server that asks for one. `trust_root`: whose signatures a wss server's certificate may
    have; None: those that the system trusts.
    """

    def connect() -> Deferred[Any]:
        factory = _Factory(reactor=reactor)  # type: ignore[no-untyped-call]
        factory.address, factory.watcher, factory.token = address, watcher, token
        return _endpoint(reactor, address, trust_root).connect(factory)

    return maybeDeferred(connect)


def _endpoint(reactor: Any, address: ServerAddress, trust_root: Any) -> IStreamClientEndpoint:
    endpoint: IStreamClientEndpoint = HostnameEndpoint(reactor, address.host, address.port)
    if not address.is_secure:
        return endpoint
    from twisted.internet.ssl import optionsForClientTLS  # it needs time to import, and most servers do without

    options = {} if trust_root is None else {"trustRoot": trust_root}
    return wrapClientTLS(optionsForClientTLS(address.host, **options), endpoint)


class Connection(WebSocketClientProtocol):
    """One connection. It is the watcher's `Link` from the transport's beginning on."""

    log: Any = txaio.tx.make_logger(level="error")  # type: ignore[no-untyped-call]  # else it repeats what the server sent

    factory: _Factory
    transport: Any
    data: bytes
    state: int

    # Autobahn takes its options from the class when they are there.
    openHandshakeTimeout = 0
    closeHandshakeTimeout = 0
    serverConnectionDropTimeout = 0
    autoPingInterval = 0
    maxMessagePayloadSize = MAX_MESSAGE
    tcpNoDelay = True

    _refusal: Loss | None = None

    # The link.

    def send(self, text: bytes) -> None:
        self.sendMessage(text)  # type: ignore[no-untyped-call]

    def ping(self) -> None:
        self.sendPing()

    def leave(self) -> None:
        if self.state == self.STATE_OPEN:
            self.sendClose(_NORMAL)
        elif self.state != self.STATE_CLOSING:
            self.abort()

    def abort(self) -> None:
        self.transport.abortConnection()

    # What Autobahn calls.

    def onConnecting(self, transport_details: Any) -> ConnectingRequest:
        address, token = self.factory.address, self.factory.token
        return ConnectingRequest(
            host=address.host_in_header,
            port=address.port,
            resource=address.resource,
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
            useragent=f"marketfeed/{__version__}",
        )

    def dataReceived(self, data: bytes) -> None:
        self.factory.watcher.heard()
        super().dataReceived(data)

    def processHandshake(self) -> None:
        head, end, body = self.data.partition(b"\r\n\r\n")
        refusal = _read_answer(head, body) if end else None
        if len(head) > MAX_HEAD:
            refusal = Loss(f"more than {MAX_HEAD} bytes of HTTP headers", is_refusal=True)
        if refusal is not None:
            self._refusal = refusal
            self.failHandshake(refusal.why)  # type: ignore[no-untyped-call]
        elif end:
            super().processHandshake()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.factory.address.is_secure and self.wasNotCleanReason is None:
            self.wasNotCleanReason = _tls_fault(reason)
        super().connectionLost(reason)

    def onOpen(self) -> None:
        self.factory.watcher.opened()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.factory.watcher.received(payload)

    def onCloseFrame(self, code: Any, reasonRaw: Any) -> bool | None:
        stop: bool | None = super().onCloseFrame(code, reasonRaw)
        self.transport.loseConnection()  # the server should be first to do so, and need not be waited for
        return stop

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.factory.watcher.lost(self._refusal or self._loss())

    def _loss(self) -> Loss:
        code: int | None = self.remoteCloseCode
        if code is None:
            why = "the connection was closed" if self.wasClean else self.wasNotCleanReason or "the connection was cut"
            return Loss(clean(why, _SHOWN))
        known = _CLOSES.get(code)
        reason = clean(self.remoteCloseReason or (known.meaning if known else ""), _SHOWN)
        why = f"closed with {code}" + (f", {reason}" if reason else "")
        return Loss(why, is_final=known is not None and known.advice == "not retry")


class _Factory(WebSocketClientFactory):
    protocol: Any = Connection
    noisy = False
    address: ServerAddress
    watcher: Watcher
    token: str | None


def _read_answer(head: bytes, body: bytes) -> Loss | None:
    """What the server says instead of 101; of its body, the first line that came along."""
    line = _STATUS_LINE.match(head)
    if line is None:
        return Loss("it does not speak HTTP", is_refusal=True)
    status = int(line[1])
    if status == HTTPStatus.SWITCHING_PROTOCOLS:
        return None if _is_utf8(head) else Loss("its HTTP headers are not UTF-8", is_refusal=True)
    why = f"the server answers {status} {clean((line[2] or b'').decode('latin-1').strip(), _SHOWN)}".rstrip()
    words = body[: 4 * _SHOWN].decode("utf-8", "replace").strip().partition("\n")[0].strip()
    if words and _PLAIN_TEXT.search(head):
        why += f": {clean(words, _SHOWN)}"
    after = _RETRY_AFTER.search(head)
    return Loss(why, True, status in _FINAL_STATUSES, float(after[1]) if after else None)


def _tls_fault(reason: Failure) -> str | None:
    from OpenSSL.SSL import Error
    from service_identity import VerificationError

    if reason.check(VerificationError):
        return "its certificate is for another host"
    if reason.check(Error):
        (queue,) = getattr(reason.value, "args", ()) or ([],)
        faults = [fault[-1] for fault in queue]
        return f"no TLS with it: {', '.join(faults) or 'the handshake was cut'}"
    return None


def _is_utf8(data: bytes) -> bool:
    """Autobahn decodes the headers for its log, and raises where that fails."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
