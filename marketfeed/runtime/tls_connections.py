"""The TLS side of clients' connections, as Twisted has it, but for what Twisted leaves behind and does not tell.

1. A connection that is gone is in no reference cycle, whoever ended it. Twisted keeps the producer, which knows its
   transport, and the frames of the call in which the end was noticed.
2. A handshake that fails is counted and logged, at a bounded rate. Who goes
   before anything that could be TLS has come, as a load balancer does that looks whether the port is open, has not
   failed.
"""

from __future__ import annotations

from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IProtocolFactory
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

from marketfeed.runtime.bounded_log import BoundedLog
from marketfeed.runtime.logs import Log

__all__ = ["TlsFactory", "cause"]

_LINES_AT_ONCE = 5


class _TlsConnection(BufferingTLSTransport):
    """One connection; the protocol that it wraps sees what is inside TLS."""

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        """TLS has come to its end. `reason`: what went wrong; None where the peer has said good-bye."""
        error: Any = None if reason is None else reason.value
        if reason is not None:
            if not self._handshakeDone:
                cast(TlsFactory, self.factory).failed(self, error)
            reason.tb = error.__traceback__ = None  # its frames hold this connection, and one of them the failure
        super()._tlsShutdownFinished(reason)  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._producer = None


class TlsFactory(TLSMemoryBIOFactory):
    """Wraps the connections that `factory` makes. `tls`: makes OpenSSL's side of each. `reactor`: of this port."""

    log = Log()
    protocol = _TlsConnection

    def __init__(self, reactor: Any, tls: IOpenSSLServerConnectionCreator, factory: IProtocolFactory) -> None:
        super().__init__(tls, False, factory, reactor)
        self._lines = BoundedLog(reactor, self.log, _LINES_AT_ONCE)
        self.failures = 0
        """Handshakes that have failed, since the start."""

    def failed(self, connection: Any, error: BaseException) -> None:
        """A handshake has failed."""
        hung_up = isinstance(error, SSL.SysCallError)
        if hung_up and connection.getHandle().client_random() is None:
            return
        self.failures += 1
        peer = connection.getPeer()
        self._lines.info(
            "",
            "TLS: the handshake with {peer} failed: {fault} ({failures} since the start)",
            peer=f"{peer.host}:{peer.port}",
            fault="the client hung up" if hung_up else cause(error),
            failures=self.failures,
        )

    def doStop(self) -> None:
        """The port is closed."""
        super().doStop()  # type: ignore[no-untyped-call]
        self._lines.close()


def cause(error: BaseException) -> str:
    """What OpenSSL says, without where in OpenSSL it says it."""
    if isinstance(error, SSL.Error) and error.args and isinstance(error.args[0], list) and error.args[0]:
        return str(error.args[0][-1][-1])
    return str(error)
