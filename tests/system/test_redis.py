"""The daemon and real servers: every way in, every way to fail, and what clients hear when the source is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Connection

from marketfeed.commands.recording.format import Begin, End, Publication, write_record
from marketfeed.demo.embedded import find_server
from marketfeed.redis.address import parse_redis_url
from marketfeed.redis.endpoint import redis_endpoint
from marketfeed.redis.link import RedisLink
from marketfeed.redis.rotation import ROUND_SECONDS
from marketfeed.redis.tls import RedisTls
from tests.system.forwarder import Authority, Forwarder
from tests.system.harness import DEADLINE, Client, DaemonProcess, Harness, Redis, RedisServer, trade
from tests.system.witness import Witness

RECORDS = (Begin(1, 1, ("*",)), Publication(2, b"trade@A_INR", trade("A_INR")), End(3, 1))
A, B, DEPTH, TICKER = "trade@A_INR", "trade@B_INR", "depth@A_INR", "ticker@A_INR"


@pytest.fixture(params=["valkey", "redis"])
def executable(request: pytest.FixtureRequest) -> str:
    """Both of the servers that people use, as far as they are installed."""
    if request.param == "valkey":
        return find_server()
    path = shutil.which("redis-server")
    if path is None:
        pytest.skip("redis-server is not installed")
    return path


async def ready(harness: Harness, daemon: DaemonProcess) -> bool:
    """What a load balancer sees."""
    status, _, _ = await harness.http(daemon, "GET /readyz HTTP/1.1\nHost: localhost\nConnection: close")
    assert status in (200, 503)
    return status == 200


async def flows(client: Client, engine: Redis, stream: str, number: int = 1) -> None:
    """See that a publication reaches a client who has heard everything before."""
    payload = trade(stream.partition("@")[2], number)
    await engine.publish(stream, payload)
    assert await client.next_bytes() == b'{"stream":"%b","data":%b}' % (stream.encode(), payload)


async def gap(client: Client) -> dict[str, Any]:
    """The next message, which is a gap event."""
    message = await client.next()
    assert message["stream"] == "!gap", message
    return dict(message["data"])


def outages(daemon: DaemonProcess, level: str = r"\w+") -> list[str]:
    """Why there was no connection, of each line of that level."""
    pattern = re.compile(rf"Z {level} +redis: no connection to \S+ (.*); trying again")
    return [found[1] for line in daemon.lines if (found := pattern.search(line))]


async def ends_well(daemon: DaemonProcess) -> None:
    """The daemon has met nothing that it did not expect."""
    assert await daemon.stop() == 0
    assert [
        line for line in daemon.lines if "Traceback" in line or "Unhandled" in line or "internal error" in line
    ] == []


# Ways in.


@pytest_twisted.ensureDeferred
async def test_a_tcp_port(harness: Harness, executable: str) -> None:
    """`redis://host:port`."""
    redis = await harness.redis(executable=executable)
    way = Forwarder(harness, redis.path)
    daemon = await harness.daemon("--redis-url", f"redis://127.0.0.1:{way.port}")
    await daemon.expect(rf"redis: connected to redis://127\.0\.0\.1:{way.port}$")
    client = await harness.client(daemon)
    await client.subscribe(A)
    await flows(client, await redis.connect(), A)
    await ends_well(daemon)


@pytest_twisted.ensureDeferred
async def test_host_and_port_by_themselves(harness: Harness) -> None:
    """`--redis-host` and `--redis-port`, as existing deployments set them."""
    redis = await harness.redis()
    way = Forwarder(harness, redis.path)
    daemon = await harness.daemon("--redis-host", "localhost", "--redis-port", str(way.port))
    await daemon.expect(rf"redis: connected to redis://localhost:{way.port}$")
    assert await ready(harness, daemon)
    await ends_well(daemon)


@pytest_twisted.ensureDeferred
async def test_a_user_a_password_and_a_database(harness: Harness, executable: str) -> None:
    """All that a URL may hold; the password is in no line of the log."""
    redis = await harness.redis(executable=executable)
    engine = await redis.connect()
    await engine.command("ACL", "SETUSER", "feed", "on", ">p@ss/word", "allchannels", "+@all")
    url = f"unix://feed:p%40ss%2Fword@{redis.path}?db=3"
    daemon = await harness.daemon("--redis-url", url, "--log-level", "debug")
    await daemon.expect(r"redis: connected to unix://feed:\*\*\*@\S+\?db=3$")
    client = await harness.client(daemon)
    await client.subscribe(A)
    users = await engine.command("CLIENT", "LIST", "TYPE", "pubsub")
    assert re.search(rb"\bdb=3\b.*\buser=feed\b", users)
    await flows(client, engine, A)
    await ends_well(daemon)
    assert not any("p@ss" in line or "p%40ss" in line for line in daemon.lines)


@pytest_twisted.ensureDeferred
async def test_a_password_without_a_user(harness: Harness, executable: str) -> None:
    """`requirepass`, as it was before there were users."""
    redis = await harness.redis("--requirepass", "secret", executable=executable)
    daemon = await harness.daemon("--redis-url", f"unix://:secret@{redis.path}")
    await daemon.expect("redis: connected")
    engine = await redis.connect()
    await engine.command("AUTH", "secret")
    client = await harness.client(daemon)
    await client.subscribe(A)
    await flows(client, engine, A)
    await ends_well(daemon)


@pytest_twisted.ensureDeferred
async def test_a_prefix_of_channels(harness: Harness, executable: str) -> None:
    """In Redis the channels have it; no client ever sees it, and a stream without it is another one."""
    redis = await harness.redis(executable=executable)
    daemon = await harness.daemon("--channel-prefix", "prod:", redis=redis)
    client = await harness.client(daemon)
    await client.subscribe(A)
    engine = await redis.connect()
    assert await engine.channels() == {f"prod:{A}"}
    assert await engine.publish(A, trade("A_INR", 1)) == [0]
    assert await engine.publish(f"prod:{A}", trade("A_INR", 2)) == [1]
    wrapped = b'{"stream":"prod:%b","data":%b}' % (A.encode(), trade("A_INR", 3))
    assert await engine.publish(f"prod:{A}", wrapped) == [1]
    for number in (2, 3):
        assert await client.next_bytes() == b'{"stream":"%b","data":%b}' % (A.encode(), trade("A_INR", number))
    await ends_well(daemon)


# A server of its own.


OWN = r"redis: connected to unix://(/\S+/server\.sock)"


@pytest_twisted.ensureDeferred
async def test_an_embedded_server(harness: Harness) -> None:
    """It comes with the daemon and goes with it, directory and all, and nothing in the log looks like a fault."""
    daemon = await harness.daemon("--redis-url", "embedded:")
    path = (await daemon.expect(OWN))[1]
    directory = os.path.dirname(path)
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    engine = Redis()
    await connectProtocol(UNIXClientEndpoint(harness.reactor, path), engine)
    client = await harness.client(daemon)
    await client.subscribe(A)
    await flows(client, engine, A)
    await ends_well(daemon)
    await engine.lost
    with pytest.raises(FileNotFoundError):
        os.stat(directory)
    assert [line for line in daemon.lines if "Z error " in line] == []


@pytest_twisted.ensureDeferred
async def test_an_embedded_server_ends_with_a_daemon_that_is_killed(harness: Harness) -> None:
    """Nothing can clean up then, but no process is left behind."""
    daemon = await harness.daemon("--redis-url", "embedded:")
    path = (await daemon.expect(OWN))[1]
    directory = os.path.dirname(path)
    engine = Redis()
    await connectProtocol(UNIXClientEndpoint(harness.reactor, path), engine)
    try:
        await daemon.stop("KILL")
        await engine.lost.addTimeout(DEADLINE, harness.reactor)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


# TLS.


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_tls_to_the_right_host(harness: Harness, tmp_path: Path, host: str) -> None:
    """`rediss://` with a CA of the house's own, by name and by address."""
    redis = await harness.redis()
    authority = Authority()
    way = Forwarder(harness, redis.path, authority.issue(host))
    daemon = await harness.daemon(
        "--redis-url", f"rediss://{host}:{way.port}", "--redis-ca", str(authority.write(tmp_path / "ca.pem"))
    )
    await daemon.expect(rf"redis: connected to rediss://{re.escape(host)}:{way.port}$")
    client = await harness.client(daemon)
    await client.subscribe(A)
    await flows(client, await redis.connect(), A)
    await ends_well(daemon)


@pytest_twisted.ensureDeferred
async def test_tls_to_another_host_is_refused(harness: Harness, tmp_path: Path) -> None:
    """A good certificate, but somebody else's: nothing is sent, and the log says so. With the right one it works."""
    redis = await harness.redis()
    engine = await redis.connect()
    await engine.command("ACL", "SETUSER", "feed", "on", ">pw", "allchannels", "+@all")
    authority = Authority()
    way = Forwarder(harness, redis.path, authority.issue("other.example", "127.0.0.1"))
    daemon = await harness.daemon(
        "--redis-url", f"rediss://feed:pw@localhost:{way.port}", "--redis-ca", str(authority.write(tmp_path / "ca.pem"))
    )
    await daemon.expect("no connection to rediss://.*: TLS: the certificate is for another host; trying again")
    assert not await ready(harness, daemon)
    assert re.search(rb"cmdstat_auth", await engine.command("INFO", "commandstats")) is None
    way.certificate = authority.issue("localhost")
    await daemon.expect("redis: connected")
    await harness.eventually(lambda: ready(harness, daemon))
    await ends_well(daemon)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("ca", ["another", "the system's"])
async def test_tls_from_an_unknown_authority_is_refused(harness: Harness, tmp_path: Path, ca: str) -> None:
    """Neither another CA's file nor the system's trust admits a stranger."""
    redis = await harness.redis()
    way = Forwarder(harness, redis.path, Authority().issue("localhost"))
    options = ["--redis-url", f"rediss://localhost:{way.port}"]
    known = Authority()
    if ca == "another":
        options += ["--redis-ca", str(known.write(tmp_path / "ca.pem"))]
    daemon = await harness.daemon(*options)
    await daemon.expect("no connection to rediss://.*: TLS: .*certificate verify failed.*; trying again")
    await harness.eventually(lambda: way.visitors > 2)
    assert len(outages(daemon)) == 1
    assert not await ready(harness, daemon)
    if ca == "another":
        way.certificate = known.issue("localhost")
        await daemon.expect("redis: connected")
    await ends_well(daemon)


async def tls_server(harness: Harness, authority: Authority, auth_clients: str) -> tuple[RedisServer, list[str]]:
    """A server that trusts `authority`, and asks for clients' certificates or not; the options that lead to it."""
    executable = shutil.which("redis-server")
    if executable is None:
        pytest.skip("redis-server is not installed")
    directory = harness.directory / "server"
    directory.mkdir()
    certificate, key = authority.issue("localhost").write(directory)
    ca = str(authority.write(directory / "ca.pem"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--tls-port", str(port), "--bind", "127.0.0.1", "--tls-auth-clients", auth_clients]
    options += ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", ca]
    server = RedisServer(harness, directory, *options, executable=executable)
    await server.start()
    return server, ["--redis-url", f"rediss://localhost:{port}", "--redis-ca", ca]


def shown(certificate: Path, key: Path) -> list[str]:
    """The options with which a certificate is shown."""
    return ["--redis-certificate", str(certificate), "--redis-key", str(key)]


@pytest_twisted.ensureDeferred
async def test_tls_to_a_server_that_speaks_it_itself(harness: Harness) -> None:
    """Without anything in front, where an installed server can do that."""
    server, where = await tls_server(harness, Authority(), "no")
    daemon = await harness.daemon(*where)
    await daemon.expect("redis: connected")
    client = await harness.client(daemon)
    await client.subscribe(A)
    await flows(client, await server.connect(), A)
    await ends_well(daemon)


WANTED = "the server demands a client certificate: give --redis-certificate and --redis-key"
NOT_TRUSTED = r"the server does not accept our client certificate, that of --redis-certificate \(alert: unknown ca\)"


@pytest_twisted.ensureDeferred
async def test_a_server_that_demands_a_certificate(harness: Harness, tmp_path: Path) -> None:
    """As Redis does by default. Without one the log says which options give one; with one everything works."""
    authority = Authority()
    server, where = await tls_server(harness, authority, "yes")
    daemon = await harness.daemon(*where)
    await daemon.expect(f"Z error redis: no connection to rediss://.*: TLS: {WANTED}; trying again")
    assert not await ready(harness, daemon)
    await ends_well(daemon)
    for source in ("pubsub", "streams"):
        daemon = await harness.daemon(*where, *shown(*authority.issue("feed").write(tmp_path)), "--source", source)
        client = await harness.client(daemon)
        await client.subscribe(A)
        engine = await server.connect()
        words = ("PUBLISH", A) if source == "pubsub" else ("XADD", A, "*", "d")
        await engine.command(*words, trade("A_INR"))
        assert await client.next_bytes() == b'{"stream":"%b","data":%b}' % (A.encode(), trade("A_INR"))
        assert outages(daemon) == []
        await ends_well(daemon)


@pytest_twisted.ensureDeferred
async def test_a_certificate_that_the_server_does_not_trust(harness: Harness, tmp_path: Path) -> None:
    """The log says so, and names the option. Once the files are others, which need no restart, it is trusted."""
    authority = Authority()
    server, where = await tls_server(harness, authority, "yes")
    daemon = await harness.daemon(*where, *shown(*Authority().issue("feed").write(tmp_path)))
    await daemon.expect(f"Z error redis: no connection to rediss://.*: TLS: {NOT_TRUSTED}; trying again")
    assert not await ready(harness, daemon)
    Authority(authority).issue("feed").write(tmp_path)
    await daemon.expect("Z info  redis: new connections get the renewed certificate, valid until 20")
    await daemon.expect("redis: connected")
    client = await harness.client(daemon)
    await client.subscribe(A)
    await flows(client, await server.connect(), A)
    await ends_well(daemon)


@pytest_twisted.ensureDeferred
async def test_commands_show_the_certificate_too(harness: Harness, tmp_path: Path) -> None:
    """Those that connect once, and those that keep a connection."""
    authority = Authority()
    server, where = await tls_server(harness, authority, "yes")
    recording = tmp_path / "market.jsonl"
    recording.write_bytes(b"".join(map(write_record, RECORDS)))
    trusted = shown(*authority.issue("feed").write(tmp_path))
    strangers = tmp_path / "stranger"
    strangers.mkdir()
    stranger = shown(*Authority().issue("feed").write(strangers))
    command = [sys.executable, "-m", "marketfeed"]
    for options, fault in (([], WANTED), (stranger, NOT_TRUSTED)):
        replay = harness.spawn([*command, "replay", *where, *options, str(recording)])
        bridge = harness.spawn([*command, "bridge", *where, *options, "trade@*"])
        await replay.expect(f"^marketfeed replay: rediss://localhost:.*: {fault}$")
        await bridge.expect(f"redis: no connection to rediss://.*: TLS: {fault}; trying again")
        bridge.signal("INT")
        assert (await replay.wait(), await bridge.wait()) == (1, 0)
    bridge = harness.spawn([*command, "bridge", *where, *trusted, "trade@*"])
    await bridge.expect("bridge: every channel is listened to")
    replay = harness.spawn([*command, "replay", *where, *trusted, "--fast", str(recording)])
    assert await replay.wait() == 0
    engine = await server.connect()

    async def is_copied() -> bool:
        return bool(await engine.command("XLEN", A) == 1)

    await harness.eventually(is_copied)
    bridge.signal("INT")
    assert await bridge.wait() == 0


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("is_tls", [False, True])
async def test_what_has_piled_up_is_read_in_large_pieces(harness: Harness, tmp_path: Path, is_tls: bool) -> None:
    """Otherwise a link whose every turn is a long one would fall behind, until the server cuts it off."""
    redis = await harness.redis()
    authority = Authority()
    way = Forwarder(harness, redis.path, authority.issue("localhost") if is_tls else None)
    address = parse_redis_url(f"{'rediss' if is_tls else 'redis'}://localhost:{way.port}")
    link = RedisLink(harness.reactor)
    factory = Factory.forProtocol(lambda: link)  # type: ignore[arg-type]
    ca = str(authority.write(tmp_path / "ca.pem")) if is_tls else None
    await redis_endpoint(harness.reactor, address, RedisTls(ca)).connect(factory)
    assert await link.command("PING") in (b"PONG", "PONG")
    lowest = link.transport.transport if is_tls else link.transport
    assert isinstance(lowest, Connection)
    assert lowest.bufferSize == 256 * 1024
    link.transport.abortConnection()
    await link.gone


# Ways to fail.


async def fails_until(
    harness: Harness, daemon: DaemonProcess, cause: str, mend: Callable[[], Awaitable[Redis]]
) -> None:
    """See one line in the log, whatever the number of attempts, and that everything works once the fault is mended.

    `mend` does that, and gives an engine's connection.
    """
    await harness.eventually(lambda: len(outages(daemon)) > 2)
    (line,) = outages(daemon, "error")
    assert re.fullmatch(cause, line)
    assert not await ready(harness, daemon)
    client = await harness.client(daemon)
    await client.subscribe(A)
    begin = await gap(client)
    assert begin == {"e": "gap", "streams": [A], "reason": "source-down", "from": begin["from"], "to": None}
    engine = await mend()
    end = await gap(client)
    assert end == {**begin, "to": end["to"]}
    assert end["to"] >= end["from"]
    assert await ready(harness, daemon)
    await flows(client, engine, A)
    await ends_well(daemon)


ALL = ("allchannels", "+@all")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("prepare", "login", "cause", "mend"),
    [
        (
            ("ACL", "SETUSER", "feed", "on", ">right", *ALL),
            "feed:wrong@",
            "the login was refused: WRONGPASS .*",
            ("ACL", "SETUSER", "feed", ">wrong"),
        ),
        (
            ("PING",),
            "nobody:pw@",
            "the login was refused: WRONGPASS .*",
            ("ACL", "SETUSER", "nobody", "on", ">pw", *ALL),
        ),
        (
            ("CONFIG", "SET", "requirepass", "pw"),
            "",
            "the server does not serve us: NOAUTH .*",
            ("CONFIG", "SET", "requirepass", ""),
        ),
        (
            ("PING",),
            ":pw@",
            "the login was refused: ERR AUTH .*",
            ("CONFIG", "SET", "requirepass", "pw"),
        ),
        (
            ("ACL", "SETUSER", "feed", "on", ">pw", "allchannels", "+subscribe", "+unsubscribe"),
            "feed:pw@",
            "the server does not serve us: NOPERM .*ping.*",
            ("ACL", "SETUSER", "feed", "+ping"),
        ),
    ],
    ids=["password", "user", "none", "unneeded", "ping"],
)
async def test_a_login_that_fails(
    harness: Harness, executable: str, prepare: tuple[str, ...], login: str, cause: str, mend: tuple[str, ...]
) -> None:
    """The server's own words, once; it works as soon as the server is told better, without a restart."""
    redis = await harness.redis(executable=executable)
    admin = await redis.connect()
    await admin.command(*prepare)

    async def mended() -> Redis:
        await admin.command(*mend)
        return admin

    daemon = await harness.daemon("--redis-url", f"unix://{login}{redis.path}", "--log-level", "debug")
    await fails_until(harness, daemon, cause, mended)
    assert not any("wrong@" in line for line in daemon.lines)


@pytest_twisted.ensureDeferred
async def test_a_database_that_does_not_exist(harness: Harness, executable: str) -> None:
    """It works once the server has been started again with more of them."""
    redis = await harness.redis(executable=executable)

    async def more() -> Redis:
        await redis.kill()
        return await (await harness.redis("--databases", "100", executable=executable)).connect()

    daemon = await harness.daemon("--redis-url", f"unix://{redis.path}?db=99", "--log-level", "debug")
    await fails_until(harness, daemon, "database 99 cannot be used: ERR DB index is out of range", more)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("was_there", "cause"), [(False, "No such file or directory"), (True, "connection refused")])
async def test_a_server_that_is_not_there_yet(harness: Harness, was_there: bool, cause: str) -> None:
    """The order in which the two are started does not matter."""
    redis = RedisServer(harness, harness.directory)
    if was_there:
        await redis.start()
        await redis.kill()

    async def start() -> Redis:
        await redis.start()
        return await redis.connect()

    daemon = await harness.daemon("--redis-url", redis.url, "--log-level", "debug")
    await fails_until(harness, daemon, cause, start)


NOT_REDIS = "the answer is not in Redis' protocol, is it a Redis server\\?"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x03\0"]
)
async def test_a_server_of_another_kind(harness: Harness, answer: bytes) -> None:
    """A wrong port is a frequent mistake: the log asks the right question."""
    redis = await harness.redis()
    way = Forwarder(harness, redis.path)
    way.answer = answer

    async def lead_there() -> Redis:
        way.answer = None
        return await redis.connect()

    daemon = await harness.daemon("--redis-url", f"redis://127.0.0.1:{way.port}", "--log-level", "debug")
    await fails_until(harness, daemon, NOT_REDIS, lead_there)


@pytest_twisted.ensureDeferred
async def test_a_server_that_expects_tls(harness: Harness) -> None:
    """One letter too few in the URL is one line in the log, too."""
    redis = await harness.redis()
    way = Forwarder(harness, redis.path, Authority().issue("localhost"))
    daemon = await harness.daemon("--redis-url", f"redis://localhost:{way.port}", "--log-level", "debug")
    await harness.eventually(lambda: len(outages(daemon)) > 2)
    (line,) = outages(daemon, "error")
    assert re.fullmatch(f"{NOT_REDIS}|the connection was closed", line)
    assert not await ready(harness, daemon)
    await ends_well(daemon)


@pytest_twisted.ensureDeferred
async def test_a_host_that_is_not_there(harness: Harness) -> None:
    """A name that nobody knows, and a port at which nobody listens; the daemon ends at once all the same."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = taken.getsockname()[1]
        for host, cause in (
            (f"127.0.0.1:{closed}", "connection refused"),
            ("h.invalid:1", "the host name is not known"),
        ):
            daemon = await harness.daemon("--redis-url", f"redis://{host}")
            await daemon.expect(f"no connection to redis://{host}: {cause}; trying again")
            assert not await ready(harness, daemon)
            await ends_well(daemon)


@pytest_twisted.ensureDeferred
async def test_it_can_be_stopped_while_it_waits_for_an_answer(harness: Harness) -> None:
    """A server that takes connections and says nothing does not hold the daemon."""
    way = Forwarder(harness, "")
    way.answer = b""
    daemon = await harness.daemon("--redis-url", f"redis://127.0.0.1:{way.port}")
    await harness.eventually(lambda: way.visitors == 2)
    await ends_well(daemon)
    assert not way.ends


# What the server does not permit.


@pytest_twisted.ensureDeferred
async def test_channels_that_are_not_permitted(harness: Harness, executable: str) -> None:
    """The others of that SUBSCRIBE flow; the client hears which do not, and that they do once they are permitted."""
    redis = await harness.redis(executable=executable)
    engine = await redis.connect()
    commands = ("+subscribe", "+unsubscribe", "+ping")
    await engine.command("ACL", "SETUSER", "feed", "on", ">pw", "resetchannels", "&trade@*", *commands)
    daemon = await harness.daemon("--redis-url", f"unix://feed:pw@{redis.path}")
    await daemon.expect("redis: connected")
    client = await harness.client(daemon)
    reply = await client.subscribe(A, DEPTH, B, TICKER)
    assert reply["data"] == {"e": "reply", "id": 1, "result": None}
    told: dict[str, dict[str, Any]] = {}
    while len(told) < 2:
        event = await gap(client)
        assert (event["reason"], event["to"]) == ("source-refused", None)
        told |= dict.fromkeys(event["streams"], event)
    assert told.keys() == {DEPTH, TICKER}
    await daemon.expect(rf"error the source refuses {DEPTH}: NOPERM ")
    await daemon.expect(rf"error the source refuses {TICKER}: NOPERM ")
    assert await engine.channels() == {A, B}
    await flows(client, engine, A)
    await flows(client, engine, B)

    await engine.command("ACL", "SETUSER", "feed", "&depth@*")
    await engine.command("CLIENT", "KILL", "TYPE", "pubsub")
    begin = await gap(client)
    assert (set(begin["streams"]), begin["reason"]) == ({A, B}, "source-down")
    ended: dict[str, dict[str, Any]] = {}
    while len(ended) < 3:
        event = await gap(client)
        ended |= dict.fromkeys(event["streams"], event)
    assert [ended[stream]["from"] for stream in (A, B)] == [begin["from"]] * 2
    assert ended[DEPTH] == {**told[DEPTH], "streams": ended[DEPTH]["streams"], "to": ended[DEPTH]["to"]}
    assert all(event["to"] is not None for event in ended.values())
    await harness.eventually(lambda: _has_channels(engine, {A, B, DEPTH}))
    await flows(client, engine, A, 2)
    await ends_well(daemon)


async def _has_channels(engine: Redis, channels: set[str]) -> bool:
    return await engine.channels() == channels


@pytest_twisted.ensureDeferred
async def test_a_user_who_may_not_subscribe_at_all(harness: Harness, executable: str) -> None:
    """Every stream is refused, each client hears it, and the daemon does not storm the server."""
    redis = await harness.redis(executable=executable)
    engine = await redis.connect()
    await engine.command("ACL", "SETUSER", "feed", "on", ">pw", "allchannels", "+ping")
    daemon = await harness.daemon("--redis-url", f"unix://feed:pw@{redis.path}")
    await daemon.expect("redis: connected")
    client = await harness.client(daemon)
    begun = time.monotonic()
    streams = [f"trade@M{number}" for number in range(20)]
    await client.subscribe(*streams)
    told: set[str] = set()
    while len(told) < len(streams):
        event = await gap(client)
        assert event["reason"] == "source-refused"
        told |= set(event["streams"])
    assert told == set(streams)
    stats = await engine.command("INFO", "commandstats")
    rejected = int(re.search(rb"cmdstat_subscribe:.*rejected_calls=(\d+)", stats)[1])  # type: ignore[index]
    rounds = (time.monotonic() - begun) / ROUND_SECONDS  # in each of which all are asked for again
    assert rejected < 2 * len(streams) * (1 + rounds)
    await ends_well(daemon)


# Losses.


@pytest_twisted.ensureDeferred
async def test_a_link_that_the_server_ends(harness: Harness, executable: str) -> None:
    """CLIENT KILL, again and again: each time one gap that begins and one that ends, and everything flows."""
    redis = await harness.redis(executable=executable)
    daemon = await harness.daemon(redis=redis)
    engine = await redis.connect()
    client = await harness.client(daemon)
    await client.subscribe(A, B)
    for number in range(3):
        await flows(client, engine, A, number)
        await flows(client, engine, B, number)
        assert await engine.command("CLIENT", "KILL", "TYPE", "pubsub") == 1
        begin = await gap(client)
        assert begin == {"e": "gap", "streams": [A, B], "reason": "source-down", "from": begin["from"], "to": None}
        end = await gap(client)
        assert end == {**begin, "to": end["to"]}
    await flows(client, engine, A, 9)
    assert await ready(harness, daemon)
    await ends_well(daemon)


@pytest_twisted.ensureDeferred
async def test_a_link_that_stalls(harness: Harness) -> None:
    """Nothing comes through any more, and nobody says so: ten seconds later it is a loss, since the last answer."""
    before = int(time.time() * 1000)
    redis = await harness.redis()
    way = Forwarder(harness, redis.path)
    daemon = await harness.daemon("--redis-url", f"redis://127.0.0.1:{way.port}")
    client = await harness.client(daemon)
    await client.subscribe(A)
    engine = await redis.connect()
    await flows(client, engine, A)
    way.stall()
    stalled = int(time.time() * 1000)
    assert await engine.publish(A, trade("A_INR", 2)) == [1]
    begin = await gap(client)
    assert begin == {"e": "gap", "streams": [A], "reason": "source-down", "from": begin["from"], "to": None}
    assert before <= begin["from"] <= stalled
    end = await gap(client)
    assert end == {**begin, "to": end["to"]}
    assert end["to"] >= begin["from"] + 10_000
    assert outages(daemon) == ["silent for 10 s"]
    await flows(client, engine, A, 3)
    await ends_well(daemon)


class Load:
    """An engine that publishes as fast as it can, and finds the server again whenever that is lost."""

    def __init__(self, harness: Harness, redis: RedisServer, streams: list[str]) -> None:
        self._harness = harness
        self._redis = redis
        self._streams = streams
        self._is_on = True
        self.number = 0
        self._done = Deferred.fromCoroutine(self._run())

    def stop(self) -> Deferred[None]:
        self._is_on = False
        return self._done

    async def _run(self) -> None:
        while self._is_on:
            try:
                engine = await self._redis.connect()
                while self._is_on:
                    self.number += 1
                    trades = [(stream, trade(stream.partition("@")[2], self.number)) for stream in self._streams]
                    sent = [engine.command("PUBLISH", stream, payload) for stream, payload in trades]
                    await gatherResults(sent, consumeErrors=True)
            except (ConnectError, FirstError):
                await self._harness.pause(0.01)


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_killed_under_load(harness: Harness, executable: str) -> None:
    """Every stream flows again by itself, and each client was told of the hole, with its beginning, before that."""
    redis = await harness.redis(executable=executable)
    daemon = await harness.daemon(redis=redis)
    streams = [f"trade@M{number}_INR" for number in range(6)]
    spellings = {
        "/": [streams[0], "m0_inr@trade", streams[1]],
        "/stream": streams,
        "/ws": [streams[5], streams[3]],
    }
    clients = {path: await harness.client(daemon, path) for path in spellings}
    for path in ("/stream", "/ws"):
        await clients[path].hear_events()
    witnesses = {path: Witness(client) for path, client in clients.items()}
    for path, names in spellings.items():
        witnesses[path].client.send({"method": "SUBSCRIBE", "params": names, "id": 1})
    await harness.eventually(lambda: all(witness.replies == {1: None} for witness in witnesses.values()))
    load = Load(harness, redis, streams)

    def all_flow_since(number: int) -> bool:
        return not any(witness.faults for witness in witnesses.values()) and all(
            witnesses[path].last.get(name, 0) > number and name not in witnesses[path].open
            for path, names in spellings.items()
            for name in names
        )

    def all_know() -> bool:
        return all(witnesses[path].open.keys() == set(names) for path, names in spellings.items())

    rounds = 4
    for turn in range(rounds):
        await harness.eventually(partial(all_flow_since, load.number))
        await redis.kill()
        if turn % 2:
            await harness.eventually(all_know)
        await redis.start()
        await harness.eventually(partial(all_flow_since, load.number))
    await load.stop()
    for path, names in spellings.items():
        witness = witnesses[path]
        assert witness.faults == []
        assert witness.open == {}
        for name in names:
            gaps = [event for event in witness.gaps if name in event["streams"]]
            assert [event["to"] is None for event in gaps] == [True, False] * rounds
            assert all(begin["from"] == end["from"] for begin, end in zip(gaps[::2], gaps[1::2], strict=True))
        assert witness.replies == {1: None}
    await ends_well(daemon)


# An engine that falls silent.


@pytest_twisted.ensureDeferred
async def test_an_engine_that_falls_silent(harness: Harness) -> None:
    """The server is there, nothing comes: clients are told, until something does, on whichever stream of the kind."""
    redis = await harness.redis()
    file = harness.directory / "marketfeed.toml"
    file.write_text("[streams.trade]\nsilence = 1\n")
    daemon, engine = await harness.daemon("--config", str(file), redis=redis), await redis.connect()
    client = await (await harness.client(daemon, "/stream")).hear_events()
    await client.subscribe("trade@A", "trade@B", "ticker@A")
    gap = (await client.next())["data"]
    assert (gap["streams"], gap["reason"], gap["to"]) == (["trade@A", "trade@B"], "engine-silent", None)
    await daemon.expect("the engine is silent: nothing on any of 2 streams of the kind trade for 1 s")
    await engine.publish("trade@B", trade("B"))
    end = (await client.next())["data"]
    assert (end["streams"], end["reason"], end["from"]) == (gap["streams"], gap["reason"], gap["from"])
    assert end["to"] > gap["from"]
    assert (await client.next())["data"] == json.loads(trade("B"))
    assert await daemon.stop() == 0
