"""How a daemon is asked for its status: where, with what token, and the line for each way in which it fails."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.threads import deferToThread

from marketfeed.commands.address import ServerAddress
from marketfeed.commands.status import asking
from marketfeed.commands.status.asking import NoAnswer, Place, ask, parse_place, read_token, shown
from marketfeed.config.settings import BadSetting
from tests.certificates import Authority, ServerCertificate
from tests.commands.server import PlainServer, listening
from tests.commands.status.asked import Daemon, unix

TOKEN = "0123456789abcdef"


def asked(url: str, token: str | None = None, since: int = 0) -> Deferred[bytes]:
    return deferToThread(ask, parse_place(url), token, since)


async def why_not(url: str, token: str | None = None) -> str:
    with pytest.raises(NoAnswer) as caught:
        await asked(url, token)
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://127.0.0.1:8081", ServerAddress("127.0.0.1", 8081, "/", "http")),
        ("https://feed.example", ServerAddress("feed.example", 443, "/", "https")),
        ("http://[::1]:1", ServerAddress("::1", 1, "/", "http")),
        ("unix:/run/admin.sock", "/run/admin.sock"),
    ],
)
def test_where_it_may_be(url: str, place: Place) -> None:
    assert parse_place(url) == place
    assert shown(place).removesuffix(":443") == url


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8081", "ws://h", "http://", "http://h/x", "http://h/?token=x", "http://u@h", "unix:x", "unix:/\n"],
)
def test_what_cannot_be_used(url: str) -> None:
    with pytest.raises(BadSetting, match=r"expected .*http://host:port, https://host:port or unix:/path"):
        parse_place(url)


# The token.


def test_a_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f" {TOKEN}\n")
    assert read_token(str(path)) == TOKEN
    assert read_token(None) is None


@pytest.mark.parametrize("content", [b"", b" \n", b"secret\r\nX: y", "sécret".encode(), b"\xff"])
def test_a_token_that_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(BadSetting, match=r"--token-file.*expected a file with the token") as caught:
        read_token(str(tmp_path / "token"))
    assert "cret" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        BadSetting, match=r"MARKETFEED_ADMIN_TOKEN_FILE: .*nothing: No such file or directory; expected"
    ):
        read_token(str(tmp_path / "nothing"))


# Answers.


@pytest_twisted.ensureDeferred
async def test_by_tcp_and_by_a_unix_socket(tmp_path: Path) -> None:
    daemon = Daemon()
    async with daemon.listening() as url, daemon.listening(unix(tmp_path / "admin")):
        for place in (url, f"unix:{tmp_path}/admin"):
            assert json.loads(await asked(place))["boot"] == "b00t"


@pytest_twisted.ensureDeferred
async def test_only_the_samples_that_are_new() -> None:
    daemon = Daemon()
    daemon.samples.startService()
    daemon.room.clock.pump([1, 1, 1])
    daemon.samples.stopService()
    async with daemon.listening() as url:
        (worker,) = json.loads(await asked(url, since=2))["workers"]
    assert [sample[0] for sample in worker["samples"]] == [3]


def by_tls(certificate: ServerCertificate, directory: Path) -> Callable[[Any], Any]:
    chain, key = certificate.write(directory)
    return lambda reactor: serverFromString(reactor, f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={chain}")


@pytest_twisted.ensureDeferred
async def test_by_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate must be that of the host, by an authority that the system trusts, or that the variable names."""
    authority, daemon = Authority(), Daemon()
    async with daemon.listening(by_tls(authority.issue("127.0.0.1"), tmp_path)) as url:
        url = url.replace("http:", "https:")
        assert (await why_not(url)).startswith("its certificate is not trusted: ")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.write(tmp_path / "ca.pem")))
        assert json.loads(await asked(url))["boot"] == "b00t"
    async with daemon.listening(by_tls(authority.issue("another.example"), tmp_path)) as url:
        assert "127.0.0.1" in await why_not(url.replace("http:", "https:"))


# No answers.


@pytest_twisted.ensureDeferred
async def test_a_name_that_is_not_the_daemons(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr("socket.getaddrinfo", lambda host, *rest, **more: resolve("127.0.0.1", *rest, **more))
    async with Daemon().listening() as url:
        assert "start it with --admin-host" in await why_not(url.replace("127.0.0.1", "feed.example"))
    async with Daemon("feed.example").listening() as url:
        assert await asked(url.replace("127.0.0.1", "feed.example"))


def refusing(status: int) -> PlainServer:
    return PlainServer(b"HTTP/1.1 %d \x1b[2J\r\nContent-Length: 1\r\n\r\n\x1b" % status)


@pytest.mark.parametrize(
    ("status", "token", "told"),
    [
        (401, None, "it asks for a token: give --token-file, or the variable MARKETFEED_ADMIN_TOKEN_FILE"),
        (401, TOKEN, "it has another token than the one of --token-file"),
        (403, None, "start the daemon with --admin-token-file"),
        (421, None, "start it with --admin-host"),
        (404, None, "it answers with the status 404; expected the address of a daemon's --admin"),
        (302, None, "it answers with the status 302; expected"),
        (500, None, "it answers with the status 500; expected"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_refusal_says_what_to_do(status: int, token: str | None, told: str) -> None:
    async with listening(refusing(status)) as port:
        why = await why_not(f"http://127.0.0.1:{port}", token)
    assert told in why
    assert why.isprintable()
    assert TOKEN not in why


@pytest_twisted.ensureDeferred
async def test_the_request() -> None:
    server = refusing(200)
    async with listening(server) as port:
        await asked(f"http://127.0.0.1:{port}", TOKEN, 7)
        head = (await server.requests.next()).decode().split("\r\n")
    assert head[0] == "GET /status.json?since=7 HTTP/1.1"
    assert {f"Host: 127.0.0.1:{port}", "Connection: close", f"Authorization: Bearer {TOKEN}"} < set(head)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"+PONG\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200, "does not speak HTTP"),
        (None, "; expected the address of a daemon's --admin"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_answer(answer: bytes | None, told: str) -> None:
    async with listening(PlainServer(answer)) as port:
        why = await why_not(f"http://127.0.0.1:{port}")
    assert told in why
    assert why.isprintable()


@pytest_twisted.ensureDeferred
async def test_an_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_MOST", 1000)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    async with listening(PlainServer(head % 1000 + b"x" * 1000)) as port:
        assert len(await asked(f"http://127.0.0.1:{port}")) == 1000
    async with listening(PlainServer(head % 1001 + b"x" * 1001)) as port:
        assert "longer than 1000 bytes" in await why_not(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "unix:/nothing/there", f"unix:/{'x' * 200}"])
@pytest_twisted.ensureDeferred
async def test_nobody_is_there(url: str) -> None:
    assert (await why_not(url)).endswith("; expected the address of a daemon's --admin")


@pytest_twisted.ensureDeferred
async def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for what no time-out of a socket ends, as a name that is being resolved, either."""
    monkeypatch.setattr(asking, "SECONDS", 0.01)
    never = threading.Event()

    def resolve(*_: object, **__: object) -> None:
        never.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "it took too long")

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    try:
        assert await why_not("http://feed.example:1") == "it does not answer within 0.01 s"
    finally:
        never.set()
