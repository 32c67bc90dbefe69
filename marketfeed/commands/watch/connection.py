"""The WebSocket connection of `marketfeed watch`: the watcher's `Link` over Twisted's transports.

1. The server is not trusted: what it sends is bounded, and what is repeated of it is cleaned.
2. Certificate and host name of a wss server are verified.
3. There is no timer: the watcher has one for every wait.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from marketfeed.commands.address import ServerAddress
from marketfeed.commands.frames import CLOSE, PING, PONG, BadFrames, Control, cut, masked_frame
from marketfeed.commands.handshake import BadAnswer, Handshake
from marketfeed.commands.watch.watcher import Loss, Watcher
from marketfeed.model.kinds.columns import clean
from marketfeed.wire.close_codes import CLOSE_REASONS

__all__ = ["Connection", "dial"]

_SHOWN = 200  # characters of what a server says, the most that is repeated

_FINAL_STATUSES = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)
_CLOSES = {reason.code: reason for reason in CLOSE_REASONS}
_NORMAL = (1000).to_bytes(2, "big")


def dial(
    reactor: Any, address: ServerAddress, watcher: Watcher, trust_root: Any = None, *, token: str | None = None
) -> Deferred[Any]:
    """One attempt: fires with a `Connection` once the transport is there; the handshake follows.

    `token`: what to show to a server that asks for one. `trust_root`: whose signatures a wss server's certificate may
    have; None: those that the system trusts.
    """

    def connect() -> Deferred[Any]:
        connection = Connection(Handshake(address, token=token), watcher, is_secure=address.is_secure)
        attempt: Deferred[Any] = connectProtocol(_endpoint(reactor, address, trust_root), connection)
        return attempt

    return maybeDeferred(connect)


def _endpoint(reactor: Any, address: ServerAddress, trust_root: Any) -> IStreamClientEndpoint:
    endpoint: IStreamClientEndpoint = HostnameEndpoint(reactor, address.host, address.port)
    if not address.is_secure:
        return endpoint
    from twisted.internet.ssl import optionsForClientTLS  # it needs time to import, and most servers do without

    options = {} if trust_root is None else {"trustRoot": trust_root}
    return wrapClientTLS(optionsForClientTLS(address.host, **options), endpoint)


class Connection(Protocol):
    """One connection. It is the watcher's `Link` from the transport's beginning on."""

    transport: Any

    def __init__(self, handshake: Handshake, watcher: Watcher, *, is_secure: bool) -> None:
        self._handshake = handshake
        self._watcher = watcher
        self._is_secure = is_secure
        self._received = b""  # of what is not whole yet
        self._is_open = self._is_leaving = False
        self._loss: Loss | None = None  # what ends the connection, once that is known

    # The link.

    def send(self, text: bytes) -> None:
        self.transport.write(masked_frame(text))

    def ping(self) -> None:
        self.transport.write(masked_frame(b"", PING))

    def leave(self) -> None:
        if not self._is_open:
            self.abort()
        elif self._loss is None and not self._is_leaving:
            self._is_leaving = True
            self.transport.write(masked_frame(_NORMAL, CLOSE))

    def abort(self) -> None:
        self.transport.abortConnection()

    # What Twisted calls.

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.write(self._handshake.request)

    def dataReceived(self, data: bytes) -> None:
        self._watcher.heard()
        if self._loss is not None:
            return
        self._received += data
        try:
            if self._is_open or self._opened():
                self._read_frames()
        except BadAnswer as fault:
            self._end(Loss(f"it {fault}", is_refusal=True))
        except BadFrames as fault:
            self._loss = Loss(f"it sends {fault}")
            self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        loss = self._loss or Loss(
            (_tls_fault(reason) if self._is_secure else None)
            or "peer dropped the TCP connection without previous WebSocket closing handshake"
        )
        self._watcher.lost(loss)

    # What the server says.

    def _opened(self) -> bool:
        answer = self._handshake.read(self._received)
        if answer is None:
            return False
        if not answer.is_websocket:
            words = f": {answer.words}" if answer.words and answer.is_text else ""
            why = f"the server answers {answer.said}{words}"
            self._end(Loss(why, True, answer.status in _FINAL_STATUSES, answer.retry_after))
            return False
        self._received = answer.rest
        self._is_open = True
        self._watcher.opened()
        return True

    def _read_frames(self) -> None:
        at = 0
        while self._loss is None and (found := cut(self._received, at, may_deflate=False)) is not None:
            message, controls, at = found
            for control in controls:
                self._heed(control)
            if message is not None:
                self._watcher.received(message)
        self._received = self._received[at:]

    def _heed(self, control: Control) -> None:
        if control.opcode == PING:
            self.transport.write(masked_frame(control.payload, PONG))
        elif control.opcode == CLOSE:
            if not self._is_leaving:
                self.transport.write(masked_frame(control.payload[:2] or _NORMAL, CLOSE))
            self._end(_closed(control))  # the server should be first to do so, and need not be waited for

    def _end(self, loss: Loss) -> None:
        self._loss = self._loss or loss
        self.transport.loseConnection()


def _closed(control: Control) -> Loss:
    """What the server's close means."""
    if not control.payload:
        return Loss("the connection was closed")
    code, known = control.close_code, _CLOSES.get(control.close_code)
    reason = control.payload[2:].decode("utf-8", "replace") or (known.meaning if known else "")
    why = f"closed with {code}" + (f", {clean(reason, _SHOWN)}" if reason else "")
    return Loss(why, is_final=known is not None and known.advice == "not retry")


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
