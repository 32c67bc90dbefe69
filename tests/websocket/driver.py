"""A client that is not ours: the sans-I/O protocol of `websockets`, which reads strictly and says what it is told to.

`Peer` speaks, over whatever carries its bytes; `Driver` is a peer whose bytes are carried in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.error import ConnectionDone
from websockets.client import ClientProtocol
from websockets.extensions import ClientExtensionFactory
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from tests.websocket.echo import EchoServer

__all__ = ["Driver", "Peer", "Received"]

Received = tuple[Opcode, bytes]


class Peer:
    """A client; its handshake is the first thing that it says."""

    def __init__(self, extensions: Sequence[ClientExtensionFactory] = (), path: str = "/") -> None:
        self._protocol = ClientProtocol(parse_uri(f"ws://localhost{path}"), extensions=extensions, max_size=None)
        self._said: list[bytes] = []
        self._received: list[Received] = []
        self._protocol.send_request(self._protocol.connect())

    @property
    def is_open(self) -> bool:
        """Whether the server's answer to the handshake has come, and is one that RFC 6455 permits."""
        return self._protocol.handshake_exc is None and self._protocol.state.name != "CONNECTING"

    @property
    def extensions(self) -> int:
        """How many extensions were agreed upon."""
        return len(self._protocol.extensions)

    def say(self, *what: Frame | bytes) -> None:
        """Send frames, compressed where that was agreed upon, or bytes as they are."""
        extensions = self._protocol.extensions
        for each in what:
            self._said.append(each.serialize(mask=True, extensions=extensions) if isinstance(each, Frame) else each)

    def take(self) -> bytes:
        """The bytes that are to be sent."""
        said, self._said = self._said, []
        return b"".join((*self._protocol.data_to_send(), *said))

    def give(self, data: bytes) -> None:
        """Bytes from the server. Fails where they break the protocol."""
        self._protocol.receive_data(data)
        if self._protocol.parser_exc is not None:
            raise self._protocol.parser_exc
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                assert event.fin, "the server does not fragment"
                self._received.append((event.opcode, bytes(event.data)))

    @property
    def received(self) -> list[Received]:
        """The frames since the last time."""
        received, self._received = self._received, []
        return received

    @property
    def close_code(self) -> int | None:
        """The code of the server's close, 1005 for none; None before it has come."""
        close = self._protocol.close_rcvd
        return None if close is None else int(close.code)

    def close(self, code: int = 1000, reason: str = "") -> None:
        self._protocol.send_close(code, reason)


def _whole(data: bytes) -> list[bytes]:
    return [data]


class Driver(Peer):
    """A peer of an echo server. `cut`: how the network cuts what is sent."""

    def __init__(
        self,
        server: EchoServer | None = None,
        extensions: Sequence[ClientExtensionFactory] = (),
        cut: Callable[[bytes], list[bytes]] = _whole,
    ) -> None:
        super().__init__(extensions)
        self._server = server or EchoServer()
        self._cut = cut
        self.wire = self._server.connect()
        self._exchange()
        assert self.is_open

    def say(self, *what: Frame | bytes) -> None:
        super().say(*what)
        self._exchange()

    def close(self, code: int = 1000, reason: str = "") -> None:
        super().close(code, reason)
        self._exchange()

    def _exchange(self) -> None:
        """Carry bytes until nobody has anything to say."""
        while True:
            sent = self.take()
            for piece in self._cut(sent) if sent else ():
                self.wire.receive(piece)
            self.wire.settle()
            answer = self.wire.sent
            if answer:
                self.give(answer)
            elif not sent:
                return

    def assert_closed(self, code: int) -> None:
        """All that came is a close with this code; the connection ended in order, and left nothing behind."""
        assert [opcode for opcode, _ in self.received] == [Opcode.CLOSE]
        assert self.close_code == code
        assert self.wire.lost is not None
        assert self.wire.lost.check(ConnectionDone)
        self._server.assert_empty()
