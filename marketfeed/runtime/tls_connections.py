"""Connections with TLS, by the standard library's OpenSSL on the socket itself: what is sent is encrypted where it is
sent, in one call, and nothing of it is copied through Python.

1. OpenSSL's `write` takes a record, at most `LONGEST_SEND` bytes, whole or not at all. Where the socket takes nothing
   more, a record is under way, and the same bytes have to be offered again before any others (SSL_write(3); CPython
   sets SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER, so that they may lie elsewhere by then, and does not set
   SSL_MODE_ENABLE_PARTIAL_WRITE). `under_way` is how many they are.
2. A write may wait for something to be read, and a read for something to be written. Whichever waits is tried again
   when the socket is ready for it, and not before: nothing turns in circles.
3. What OpenSSL has decrypted is read before the reactor waits for the socket, which says nothing of it.
4. Before OpenSSL reads anything the first bytes are looked at, where they are (MSG_PEEK): a PROXY header is taken off,
   and who offers protocols (ALPN) without ours is refused. Until enough has come the socket is not ready to be read.
5. A connection that ends is told so by TLS, behind all that was written. What has come until then is thrown away, so
   that the kernel closes the connection in good order. One that is aborted is reset.
6. A handshake that fails is told. Who goes before anything that could be TLS has come, as a load balancer does that
   looks whether the port is open, has not failed.
7. A connection that is gone is in no reference cycle, whoever ended it.
"""

from __future__ import annotations

import socket
from ssl import (
    SSLEOFError,
    SSLError,
    SSLSyscallError,
    SSLWantReadError,
    SSLWantWriteError,
    SSLZeroReturnError,
)
from typing import Any, Protocol

from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IAddress, IProtocol, ISSLTransport
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import implementer

from marketfeed.boundaries import LONGEST_SEND
from marketfeed.runtime.connections import AcceptedConnection, Watch
from marketfeed.runtime.tls_hello import LONGEST_FIRST, offered_protocols, proxy_header

__all__ = ["PROTOCOL", "HandshakeReport", "OpenSsl", "TlsConnection", "cause"]

PROTOCOL = "http/1.1"
_OURS = bytes([len(PROTOCOL)]) + PROTOCOL.encode()  # as a ClientHello that offers it has it somewhere
_NO_PROTOCOL = f"no application protocol; expected {PROTOCOL} among those offered, or none"
_NO_PROTOCOL_ALERT = b"\x15\x03\x03\x00\x02\x02\x78"  # RFC 7301, section 3.2, before there are keys
_HUNG_UP = "the client hung up"
_MOST_AT_ONCE = 131072  # bytes that one connection sends in a turn of the reactor
_MOST_THROWN_AWAY = 65536

_LOOKING, _SHAKING, _OPEN, _FAILED = range(4)


class OpenSsl(Protocol):
    """OpenSSL's side of a connection, the standard library's `_ssl._SSLSocket`.

    All raise SSLWantReadError or SSLWantWriteError when the socket is to be ready first, and OSError when there is
    nothing more to be had.
    """

    def do_handshake(self) -> None: ...
    def read(self, most: int) -> bytes:
        """What has come, of one record; nothing: the peer has said good-bye."""

    def write(self, data: bytes | memoryview) -> int: ...
    def pending(self) -> int:
        """Bytes that have been decrypted and not read."""

    def shutdown(self) -> object:
        """Say good-bye."""


class HandshakeReport(Protocol):
    """Who is told what becomes of handshakes."""

    def begun(self, skt: socket.socket) -> None:
        """Hands have been shaken on this socket."""

    def failed(self, peer: Any, fault: str) -> None:
        """A handshake with `peer`, an address of Twisted's, has failed."""


@implementer(ISSLTransport)
class TlsConnection(AcceptedConnection):
    """A connection that has been accepted, whose socket does not block."""

    logstr = "TLS"
    repstr = "<a connection with TLS>"

    under_way = 0
    """How many bytes are to be offered to OpenSSL first, the same that it did not take before."""
    _stage = _LOOKING
    _looked_at = 0
    """Bytes that had come when they were looked at last, and were not enough."""
    _awaits_proxy = False
    _source: IAddress | None = None  # with what follows: as a PROXY header has it
    _destination: IAddress | None = None
    _is_paused = False  # nobody wants to have what comes
    _read_waits = False  # until something can be written
    _write_waits = False  # until something can be read

    def __init__(
        self,
        skt: socket.socket,
        protocol: IProtocol,
        client: tuple[Any, ...],
        reactor: Any,
        watch: Watch,
        report: HandshakeReport,
        ssl: OpenSsl,
        *,
        is_proxied: bool,
    ) -> None:
        super().__init__(skt, protocol, client, reactor, watch)
        self._report = report
        self._ssl = ssl
        if is_proxied:
            self._awaits_proxy = True

    # What it is asked.

    def getHandle(self) -> Any:
        return self._ssl

    def getPeerCertificate(self) -> None:
        """Clients show none."""

    def getPeer(self) -> Any:
        return super().getPeer() if self._source is None else self._source

    def getHost(self) -> Any:
        return super().getHost() if self._destination is None else self._destination

    @property
    def _has_unsent(self) -> bool:
        return bool(len(self.dataBuffer) - self.offset + self._tempDataLen > 0)

    # Reading.

    def doRead(self) -> Exception | None:
        if self._stage != _OPEN:
            return self._look() if self._stage == _LOOKING else self._shake_hands()
        if self._write_waits:
            self._write_waits = False
            self.startWriting()
            if self._is_paused or self.disconnecting:
                self.stopReading()
                return None
        while True:
            try:
                data = self._ssl.read(LONGEST_SEND)
            except SSLWantReadError:
                return None
            except SSLWantWriteError:
                self._read_waits = True
                self.stopReading()
                self.startWriting()
                return None
            except OSError as error:
                return CONNECTION_DONE if isinstance(error, SSLZeroReturnError) else CONNECTION_LOST
            if not data:
                return self._good_bye()
            self.protocol.dataReceived(data)
            if self._is_paused or self.disconnecting or self._aborting or self.disconnected or not self._ssl.pending():
                return None

    def pauseProducing(self) -> None:
        self._is_paused = True
        if not self._write_waits:
            self.stopReading()

    def resumeProducing(self) -> None:
        self._is_paused = False
        if self.connected and not self.disconnecting and not self._aborting and not self._read_waits:
            self.startReading()
            if self._stage == _OPEN and self._ssl.pending():
                self.reactor.callLater(0, self._read_on)

    def _read_on(self) -> None:
        """What was decrypted before the pause is of no concern to the socket."""
        if self.connected and not (self._is_paused or self.disconnecting or self._aborting):
            why = self.doRead()
            if why is not None:
                self.connectionLost(Failure(why))

    def _good_bye(self) -> Exception:
        """The peer has said that nothing more comes."""
        try:
            self._ssl.shutdown()
        except OSError:
            pass  # it is not waited for
        return CONNECTION_DONE

    # The beginning.

    def _look(self) -> Exception | None:
        """Look at what has come, whether it is enough to begin with."""
        try:
            data = self.socket.recv(LONGEST_FIRST, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        has_more = len(data) != self._looked_at  # or the peer has closed its side
        if self._awaits_proxy:
            try:
                header = proxy_header(data)
            except ValueError:
                return self._fail("expected a header of the PROXY protocol first")
            if header is None:
                if not has_more or len(data) == LONGEST_FIRST:
                    return self._fail(_HUNG_UP if not has_more else "its PROXY header is too long")
                self._await_more(len(data))
                return None
            self._awaits_proxy = False
            self._source, self._destination = header.source, header.destination
            data = data[len(self.socket.recv(header.size)) :]
            self._await_more(0)
            if not data:
                return None
        offered = [] if _OURS in data else offered_protocols(data)
        if offered is None and has_more and len(data) < LONGEST_FIRST:
            self._await_more(len(data))
            return None
        if offered and PROTOCOL.encode() not in offered:
            try:
                self.socket.send(_NO_PROTOCOL_ALERT)
            except OSError:
                pass
            return self._fail(_NO_PROTOCOL)
        self._await_more(0)
        self._stage = _SHAKING
        return self._shake_hands()

    def _await_more(self, looked_at: int) -> None:
        """Let the socket be ready again when more has come than was looked at, or when nothing more comes."""
        if looked_at != self._looked_at:
            self._looked_at = looked_at
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, looked_at + 1)

    def _shake_hands(self) -> Exception | None:
        try:
            self._ssl.do_handshake()
        except SSLWantReadError:
            self._write_waits = True
            self.stopWriting()
            self.startReading()
            return None
        except SSLWantWriteError:
            self._write_waits = False
            self.stopReading()
            self.startWriting()
            return None
        except OSError as error:
            return self._fail(_HUNG_UP if _is_end(error) else cause(error))
        self._stage = _OPEN
        self._write_waits = False
        self._report.begun(self.socket)
        if not self._is_paused:
            self.startReading()
        if self._has_unsent or self.producer is not None or self.disconnecting:
            self.startWriting()
        else:
            self.stopWriting()
        return None

    def _fail(self, fault: str) -> Exception:
        self._stage = _FAILED
        self._report.failed(self.getPeer(), fault)
        self._throw_away()
        return CONNECTION_LOST

    # Writing.

    def doWrite(self) -> Exception | None:
        if self._stage != _OPEN:
            if self.disconnecting and not self._has_unsent:
                return CONNECTION_DONE
            if self._stage == _SHAKING and not self._write_waits:
                return self._shake_hands()
            self.stopWriting()  # until hands have been shaken
            return None
        if self._read_waits:
            self._read_waits = False
            if not (self._is_paused or self.disconnecting):
                self.startReading()
                why = self.doRead()
                if why is not None or self._read_waits or self.disconnected or self._aborting:
                    return why
        written: Exception | None = super().doWrite()
        return written

    def writeSomeData(self, data: Any) -> int | Exception:
        """Offer it to OpenSSL, beginning with what is under way. How many bytes it took."""
        left = memoryview(data)[:_MOST_AT_ONCE]
        sent = 0
        while left:
            piece = left[: self.under_way or LONGEST_SEND]
            try:
                taken = self._ssl.write(piece)
            except SSLWantWriteError:
                self.under_way = len(piece)
                break
            except SSLWantReadError:
                self.under_way = len(piece)
                self._write_waits = True
                self.stopWriting()
                self.startReading()
                break
            except OSError:
                return CONNECTION_LOST
            self.under_way = 0
            sent += taken
            left = left[taken:]
        return sent

    # The end.

    def loseConnection(self) -> None:
        """Send what is left, then say good-bye. Reading ends now, unless hands are still to be shaken for it."""
        if self.connected and not self.disconnecting:
            self.disconnecting = 1
            if self._stage == _OPEN and not self._write_waits:
                self.stopReading()
            self.startWriting()

    def _postLoseConnection(self) -> Exception | None:
        try:
            self._ssl.shutdown()
        except SSLWantWriteError:
            self.startWriting()
            return None
        except SSLError:
            pass  # it has been said, and the peer has not answered
        except OSError:
            return CONNECTION_LOST
        self._throw_away()
        return CONNECTION_DONE

    def _throw_away(self) -> None:
        """What has come and was not read would make the kernel reset the connection, and lose what was sent last."""
        try:
            self.socket.recv(_MOST_THROWN_AWAY)
        except OSError:
            pass

    def connectionLost(self, reason: Failure) -> None:
        if self._stage == _SHAKING and self.connected:
            self._stage = _FAILED
            is_ours = self.disconnecting or reason.check(ConnectionAborted) is not None
            self._report.failed(self.getPeer(), "it took too long" if is_ours else _HUNG_UP)
        super().connectionLost(reason)


def cause(error: BaseException) -> str:
    """What OpenSSL says, without where in OpenSSL it says it."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, str):
        return reason.lower().replace("_", " ")
    details = error.args[0] if error.args else None
    if isinstance(details, list) and details:  # pyOpenSSL's
        return str(details[-1][-1])
    return str(error)


def _is_end(error: OSError) -> bool:
    return isinstance(error, SSLEOFError | SSLZeroReturnError | SSLSyscallError) or not isinstance(error, SSLError)
