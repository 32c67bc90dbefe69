"""A connection to Redis on which publications are sent ahead of their answers, and how it is made."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

import hiredis
import pytest

from marketfeed.commands.redis_link import RedisFault, RedisLink
from marketfeed.redis.address import RedisAddress


class Listener:
    """Takes one connection, and gives prepared answers, each to one read."""

    def __init__(self, listening: socket.socket, *answers: bytes) -> None:
        self.got: list[bytes] = []
        self._answers = answers
        self._socket = listening
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @classmethod
    def at(cls, path: Path, *answers: bytes) -> Listener:
        """On a Unix socket."""
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()
        return cls(listening, *answers)

    def _serve(self) -> None:
        with self._socket, self._socket.accept()[0] as link:
            for answer in self._answers:
                self.got.append(link.recv(65536))
                link.sendall(answer)
            with contextlib.suppress(ConnectionResetError):
                link.recv(65536)

    def join(self) -> None:
        self._thread.join()


class TestConnect:
    def test_it_logs_in(self, tmp_path: Path) -> None:
        """User, password and database are those of the address."""
        server = Listener.at(tmp_path / "s", b"+OK\r\n", b"+OK\r\n", b"+PONG\r\n")
        address = RedisAddress(path=str(tmp_path / "s"), username="u", password="p", database=3)
        RedisLink.connect(address).close()
        server.join()
        redis = hiredis.Reader()
        redis.feed(b"".join(server.got))
        assert [redis.gets() for _ in range(3)] == [[b"AUTH", b"u", b"p"], [b"SELECT", b"3"], [b"PING"]]

    @pytest.mark.parametrize(
        ("answers", "fault"),
        [
            ([b"-WRONGPASS no\r\n"], "WRONGPASS no"),
            ([b"HTTP/1.1 400\r\n"], "is it a Redis server"),
            ([], "the connection was closed"),
        ],
    )
    def test_a_refusal_is_one_line_without_the_password(self, tmp_path: Path, answers: list[bytes], fault: str) -> None:
        """It names the server and the reason."""
        server = Listener.at(tmp_path / "s", *answers)
        with pytest.raises(RedisFault, match=fault) as caught:
            RedisLink.connect(RedisAddress(path=str(tmp_path / "s"), password="secret"))
        assert "secret" not in str(caught.value)
        server.join()

    def test_tcp(self) -> None:
        """What is published is not held back to be sent with more."""
        listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        server = Listener(listening, b"+PONG\r\n")
        with (
            contextlib.closing(RedisLink.connect(RedisAddress(host="127.0.0.1", port=port))) as link,
            socket.socket(fileno=os.dup(link.fileno())) as ours,
        ):
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        server.join()

    def test_tls_that_cannot_be_trusted(self, tmp_path: Path) -> None:
        """A server that does not speak it, or a file of no certificates, is one line."""
        listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        server = Listener(listening, b"-ERR what?\r\n")
        with pytest.raises(RedisFault, match=rf"cannot reach rediss://127\.0\.0\.1:{port}: .*(?i:ssl|version)"):
            RedisLink.connect(RedisAddress(host="127.0.0.1", port=port, tls=True))
        server.join()

    def test_nobody_there(self, tmp_path: Path) -> None:
        """A path, or a port, that nobody listens on."""
        with pytest.raises(RedisFault, match=r"cannot reach unix://.*: No such file or directory"):
            RedisLink.connect(RedisAddress(path=str(tmp_path / "none")))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            with pytest.raises(RedisFault, match="Connection refused"):
                RedisLink.connect(RedisAddress(host="127.0.0.1", port=free.getsockname()[1]))


def test_a_server_that_is_gone() -> None:
    """Writing tells so, as does reading."""
    ours, theirs = socket.socketpair()
    theirs.close()
    with contextlib.closing(RedisLink(ours)) as link:
        with pytest.raises(RedisFault, match=r"^Redis has closed the connection$"):
            list(link.replies())
        link.publish([(link.head(b"trade@A"), b"1")])
        with pytest.raises(RedisFault, match=r"^the connection to Redis is lost: Broken pipe$"):
            link.flush()
