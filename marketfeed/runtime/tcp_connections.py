"""Connections over plain TCP, without what Twisted does around each of their reads."""

from __future__ import annotations

from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST

from marketfeed.runtime.connections import AcceptedConnection

__all__ = ["TcpConnection"]

_READ = 65536  # bytes of a connection that are read in a turn


class TcpConnection(AcceptedConnection):
    """A connection without TLS."""

    logstr = "TCP"
    repstr = "<a connection>"

    def doRead(self) -> Exception | None:
        try:
            data = self.socket.recv(_READ)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None
