"""Who is let in by the real daemon, and as whom: origins, tokens, addresses, memory, and a browser's own view of it."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import jwt
import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.by_hand import handshake
from tests.system.browser import CHROMIUM, Browser
from tests.system.harness import Client, DaemonProcess, Harness, RawConnection, Redis, trade
from tests.tokens import SECRET, jwk, private_key, signed, write_jwks

HOUR = 3600
Result = TypeVar("Result")
EVIL = "https://evil.example"
NO_TOKEN = (4401, "token missing, bad or expired")


def token(seconds: float = HOUR, **claims: Any) -> str:
    """A token of alice that expires so many seconds from now."""
    return signed(claims={"sub": "alice", "exp": time.time() + seconds, **claims})


class Knock:
    """One attempt to open a WebSocket: its status, the answer's bytes, the connection."""

    def __init__(self, raw: RawConnection, answer: bytes) -> None:
        self.raw = raw
        self.answer = answer
        self.status = int(answer.split(b" ", 2)[1])

    def header(self, name: bytes) -> bytes | None:
        head = self.answer.partition(b"\r\n\r\n")[0]
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        return fields.get(name)


async def knock(
    harness: Harness, daemon: DaemonProcess, path: str = "/ws", preface: bytes = b"", **headers: str | None
) -> Knock:
    """Try to come in. Who is refused sees the connection end. `preface`: what a proxy sends first."""
    raw = await harness.raw(daemon)
    raw.send(preface + handshake(path, **headers))
    answer = await raw.until(lambda data: b"\r\n\r\n" in data)
    if not answer.startswith(b"HTTP/1.1 101 "):
        answer = await raw.until_closed()
    return Knock(raw, answer)


def secret_file(directory: Path) -> str:
    path = directory / "secret"
    path.write_bytes(SECRET + b"\n")
    return str(path)


class Stage:
    """A daemon that needs tokens, has a private kind, and logs all that it can."""

    def __init__(self, harness: Harness, daemon: DaemonProcess, engine: Redis) -> None:
        self.harness = harness
        self.daemon = daemon
        self.engine = engine
        self.tokens: list[str] = []

    def token(self, seconds: float = HOUR, **claims: Any) -> str:
        """As `token`; the log must not have it."""
        self.tokens.append(token(seconds, **claims))
        return self.tokens[-1]

    async def client(self, seconds: float = HOUR, path: str = "/ws", **claims: Any) -> Client:
        headers = {"Authorization": f"Bearer {self.token(seconds, **claims)}"}
        return await self.harness.client(self.daemon, path, headers=headers)

    async def ends_well(self) -> None:
        """Nothing in the log should worry anybody, and nothing in it is secret."""
        assert await self.daemon.stop() == 0
        log = "\n".join(self.daemon.lines)
        events = [json.loads(line) for line in self.daemon.lines]
        assert [event for event in events if event["level"] in ("error", "critical")] == []
        assert "Traceback" not in log
        secrets = {part[:20] for each in self.tokens for part in each.split(".")} | {SECRET.decode()[:20]}
        assert [secret for secret in secrets if secret in log] == []
        assert any(event["level"] == "debug" for event in events)


@pytest_twisted.async_yield_fixture(scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """What the tests of tokens share."""
    directory = tmp_path_factory.mktemp("stage")
    (directory / "kinds.toml").write_text('[streams.orders]\nprivate = true\nloss = "keep"\n')
    harness = Harness(reactor, directory)
    try:
        redis = await harness.redis()
        daemon = await harness.daemon(
            *("--auth", "required", "--auth-key", secret_file(directory), "--config", "kinds.toml"),
            *("--log-format", "json", "--log-level", "debug"),
            redis=redis,
        )
        stage = Stage(harness, daemon, await redis.connect())
        yield stage
        await stage.ends_well()
    finally:
        await harness.close()


# Origins.


@pytest_twisted.ensureDeferred
async def test_pages_of_other_hosts_are_refused(harness: Harness) -> None:
    """Before the upgrade; once in the log, with the flag that admits them. Pages of this host and programs come in."""
    daemon = await harness.daemon()
    for _ in range(3):
        refused = await knock(harness, daemon, Origin=EVIL)
        assert refused.status == 403
    for origin in (None, "http://localhost:3000", "http://127.0.0.1", "https://feed.example.com"):
        assert (await knock(harness, daemon, Origin=origin, Host="feed.example.com:8080")).status == 101
    assert await daemon.stop() == 0
    warnings = [line for line in daemon.lines if EVIL in line]
    assert len(warnings) == 1
    assert f"--allowed-origin {EVIL} would admit it" in warnings[0]


# Tokens.


@pytest_twisted.ensureDeferred
async def test_who_has_no_good_token_is_refused(stage: Stage) -> None:
    """401 with the scheme and what is wrong; two different tokens are a bad request."""
    old, strange = stage.token(-HOUR), signed("ES256", {"sub": "alice", "exp": time.time() + HOUR})
    stage.tokens.append(strange)
    for authorization, text in (
        (None, b"a token is needed\n"),
        (f"Bearer {old}", b"the token has expired\n"),
        (f"Bearer {strange}", b"the token's alg is not the one of its key: expected HS256\n"),
        ("Bearer nonsense", b"the token is no JWT\n"),
    ):
        refused = await knock(stage.harness, stage.daemon, Authorization=authorization)
        assert (refused.status, refused.header(b"WWW-Authenticate")) == (401, b"Bearer")
        assert refused.answer.endswith(b"\r\n\r\n" + text)
    both = await knock(stage.harness, stage.daemon, f"/ws?token={old}", Authorization=f"Bearer {stage.token()}")
    assert both.status == 400


async def in_time(attempt: Callable[[float], Awaitable[Result]]) -> Result:
    """What comes of an attempt with tokens of so many seconds, once they are long enough for what it does with them."""
    for seconds in (1.5, 6, 24):
        try:
            return await attempt(seconds)
        except ConnectionError:
            pass  # its token has ended before
    return await attempt(55)


@pytest_twisted.ensureDeferred
async def test_a_client_leaves_when_its_token_ends(stage: Stage) -> None:
    """It is told before, and closed at the end."""

    async def attempt(seconds: float) -> tuple[Client, Any]:
        started = time.time()
        client = await (await stage.client(seconds)).hear_events()
        event = await client.next()
        assert event["e"] == "expiring"
        assert seconds - 0.1 < event["expiresAt"] / 1000 - started < 60
        return client, event

    client, event = await in_time(attempt)
    assert await client.closed == NO_TOKEN
    assert time.time() * 1000 >= event["expiresAt"]


@pytest_twisted.ensureDeferred
async def test_a_client_that_renews_its_token_stays(stage: Stage) -> None:
    """It outlives another whose token ended later than its first one. What it watches goes on."""

    async def attempt(seconds: float) -> tuple[Client, Client]:
        client, other = await stage.client(seconds), await stage.client(seconds + 0.2)
        await client.hear_events()
        assert (await client.next())["e"] == "expiring"
        assert (await client.subscribe("trade@RENEWED"))["result"] is None
        bad = await client.ask({"method": "AUTH", "params": [stage.token(sub="bob")], "id": 2})
        assert bad["error"]["code"] == 6
        good = await client.ask({"method": "AUTH", "params": [stage.token()], "id": 3})
        assert good == {"result": None, "id": 3}
        return client, other

    client, other = await in_time(attempt)
    assert await other.closed == NO_TOKEN
    await stage.engine.publish("trade@RENEWED", trade("RENEWED"))
    assert await client.next_bytes() == trade("RENEWED")


@pytest_twisted.ensureDeferred
async def test_private_streams(stage: Stage) -> None:
    """Alice sees her orders, Bob does not, and a service whose token says so sees everybody's."""
    alice, bob = await stage.client(), await stage.client(sub="bob")
    service = await stage.client(sub="desk", streams=["orders@*"])
    for client, stream, code in (
        (alice, "orders@alice", None),
        (alice, "orders@bob", 5),
        (bob, "orders@alice", 5),
        (bob, "alice@orders", 2),
        (bob, "trade@TATA_INR", None),
        (service, "orders@alice", None),
        (service, "trade@TATA_INR", 5),
    ):
        answer = await client.subscribe(stream)
        assert answer.get("error", {}).get("code") == code, stream
    order = b'{"e":"order","p":"1","q":"2"}'
    await stage.engine.publish("orders@alice", order)
    await stage.engine.publish("trade@TATA_INR", trade())
    assert await alice.next_bytes() == order
    assert await service.next_bytes() == order
    assert await bob.next_bytes() == trade()
    assert not bob.received


@pytest_twisted.ensureDeferred
async def test_a_token_that_covers_less(stage: Stage) -> None:
    """What it does not cover ends with error 5; the rest goes on."""
    client = await stage.client()
    await client.subscribe("orders@alice", "trade@LESS")
    assert (await client.ask({"method": "AUTH", "params": [stage.token(streams=["trade@*"])], "id": 2}))["id"] == 2
    error = (await client.next())["error"]
    assert (error["code"], "orders@alice" in error["msg"]) == (5, True)
    assert (await client.ask({"method": "LIST_SUBSCRIPTIONS", "id": 3}))["result"] == ["trade@LESS"]


@pytest_twisted.ensureDeferred
async def test_no_token_is_shown_wherever_it_is_put(stage: Stage) -> None:
    """By a client that is mistaken about where it belongs. The stage's end looks through the log."""
    for path in (
        f"/{stage.token()}",
        f"/ws/trade@A&token={stage.token()}",
        f"/stream?streams=trade@A?token={stage.token()}",
    ):
        assert (await knock(stage.harness, stage.daemon, path)).status in (400, 404)
    client = await stage.client()
    for request in (
        {"method": "auth", "params": [stage.token()]},
        {"method": "PING", "token": stage.token()},
        {"method": "AUTH", "params": [stage.token(), 5]},
        {"method": "AUTH", "params": [stage.token(sub="bob")]},
    ):
        await client.ask(request)


def of_key(number: int, seconds: float = HOUR) -> str:
    """A token that names the key that has signed it."""
    claims = {"sub": "alice", "exp": time.time() + seconds}
    return jwt.encode(claims, private_key("ES256", number), "ES256", {"kid": f"key-{number}"})


@pytest_twisted.ensureDeferred
async def test_keys_are_renewed_on_disk(harness: Harness) -> None:
    """ES256 by a JWKS: tokens of a new key are good soon after it is in the file, those of a removed one are not."""
    path = write_jwks(harness.directory / "keys.json", jwk("ES256", 0, kid="key-0"))
    daemon = await harness.daemon("--auth", "required", "--auth-jwks", path)

    async def status(number: int) -> int:
        answer = await knock(harness, daemon, Authorization=f"Bearer {of_key(number)}")
        await harness.hang_up(answer.raw)
        return answer.status

    assert (await status(0), await status(1)) == (101, 401)
    client = await harness.client(daemon, "/ws", headers={"Authorization": f"Bearer {of_key(0)}"})
    os.rename(write_jwks(harness.directory / "new.json", jwk("ES256", 1, kid="key-1")), path)

    async def is_renewed() -> bool:
        return await status(1) == 101

    await harness.eventually(is_renewed)
    await daemon.expect("the keys for tokens were read anew")
    assert await status(0) == 401
    assert (await client.ask({"method": "PING", "id": 1}))["result"] == "PONG"
    assert (await client.ask({"method": "AUTH", "params": [of_key(0)]}))["error"]["code"] == 6
    assert (await client.ask({"method": "AUTH", "params": [of_key(1)]})) == {"result": None}
    assert await daemon.stop() == 0


# Addresses.


@pytest_twisted.ensureDeferred
async def test_connections_of_an_address(harness: Harness) -> None:
    """429 for one too many, until one has left."""
    daemon = await harness.daemon("--max-connections-per-address", "2")
    first = await harness.client(daemon)
    await harness.client(daemon)
    refused = await knock(harness, daemon)
    assert (refused.status, refused.header(b"Retry-After")) == (429, b"30")
    await harness.hang_up(first)
    await daemon.expect(r"client \S+-1 disconnected")
    await harness.client(daemon)


@pytest_twisted.ensureDeferred
async def test_attempts_of_an_address(harness: Harness) -> None:
    """Local addresses are spared, unless the operator names a number; plain requests are not counted."""
    daemon = await harness.daemon("--connect-rate", "3")
    for _ in range(5):
        assert (await harness.http(daemon, "GET /healthz HTTP/1.1\nHost: x"))[0] == 200
    answers = [await knock(harness, daemon) for _ in range(4)]
    assert [answer.status for answer in answers] == [101, 101, 101, 429]
    assert 0 < int(answers[3].header(b"Retry-After") or 0) <= 100


@pytest_twisted.ensureDeferred
async def test_clients_behind_a_trusted_proxy(harness: Harness) -> None:
    """Are counted and shown by their own addresses; what they claim themselves is not believed."""
    daemon = await harness.daemon("--max-connections-per-address", "1", "--trusted-proxy", "127.0.0.0/8")
    for forwarded, status in (
        ("198.51.100.1", 101),
        ("198.51.100.1", 429),
        ("203.0.113.1, 198.51.100.1", 429),
        ("198.51.100.1, 127.0.0.9", 429),
        ("198.51.100.2:5555", 101),
        ("2001:db8::1", 101),
        ("2001:db8::ffff", 429),
        ("2001:db8:0:1::1", 101),
    ):
        assert (await knock(harness, daemon, X_Forwarded_For=forwarded)).status == status, forwarded
    await daemon.expect("connected from 198.51.100.1, raw")
    await daemon.expect("connected from 2001:db8::1, raw")


@pytest_twisted.ensureDeferred
async def test_nobody_else_is_believed(harness: Harness) -> None:
    """Without --trusted-proxy the header is what anybody may write into it."""
    daemon = await harness.daemon("--max-connections-per-address", "1")
    answers = [await knock(harness, daemon, X_Forwarded_For=f"198.51.100.{number}") for number in range(2)]
    assert [answer.status for answer in answers] == [101, 429]


def proxy_v1(source: str, port: int) -> bytes:
    family, here = ("TCP6", "2001:db8::80") if ":" in source else ("TCP4", "192.0.2.80")
    return f"PROXY {family} {source} {here} {port} 443\r\n".encode()


def proxy_v2(source: str, port: int) -> bytes:
    family, kind = (socket.AF_INET6, 0x21) if ":" in source else (socket.AF_INET, 0x11)
    here = "2001:db8::80" if ":" in source else "192.0.2.80"
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, here) + struct.pack("!2H", port, 443)
    return b"\r\n\r\n\0\r\nQUIT\n" + bytes((0x21, kind)) + struct.pack("!H", len(addresses)) + addresses


@pytest.mark.parametrize("preface", [proxy_v1, proxy_v2])
@pytest_twisted.ensureDeferred
async def test_clients_behind_the_proxy_protocol(harness: Harness, preface: Any) -> None:
    """Twisted's `haproxy:` endpoint says where they are; that is what is counted, spared, and shown."""
    port = "haproxy:tcp:0:interface=127.0.0.1"
    daemon = await harness.daemon("--port", port, "--max-connections-per-address", "1", "--log-level", "debug")
    for source, status in (
        ("198.51.100.1", 101),
        ("198.51.100.1", 429),
        ("198.51.100.2", 101),
        ("2001:db8::1", 101),
        ("2001:db8::2", 429),
    ):
        answer = await knock(harness, daemon, preface=preface(source, 5555))
        assert answer.status == status, source
    await daemon.expect(r"connected from 198\.51\.100\.1:5555, raw")
    await daemon.expect(r"refused 198\.51\.100\.1:5555: 429 ")
    await daemon.expect(r"connected from \[2001:db8:.*:1\]:5555, raw")
    page = await knock(harness, daemon, preface=preface("198.51.100.3", 5555), Origin="http://localhost", Host="x")
    assert page.status == 403  # a page of the client's machine, which is not this one
    nobody = await harness.raw(daemon)
    nobody.send(handshake())
    assert await nobody.until_closed() == b""
    assert await daemon.stop() == 0
    assert "Traceback" not in "\n".join(daemon.lines)


# Memory.


@pytest_twisted.ensureDeferred
async def test_a_daemon_that_is_short_of_memory(harness: Harness) -> None:
    """New clients get 503 and it is not ready, while those who are there keep their feed; later it is as before."""
    redis = await harness.redis("--client-output-buffer-limit", "pubsub 0 0 0")
    quiet = await harness.daemon(redis=redis)
    room = 24 << 20
    limit = (quiet.resident_kib() << 10) + room
    assert await quiet.stop() == 0
    options = ("--memory-limit", str(limit), "--client-queue", str(1 << 30), "--history", "0", "--ping-interval", "0")
    daemon = await harness.daemon(*options, redis=redis)
    engine = await redis.connect()
    client, hog = await harness.client(daemon, "/ws"), await harness.client(daemon, "/ws")
    await client.subscribe("trade@A")
    await hog.subscribe("trade@HOG")
    assert (await harness.http(daemon, "GET /readyz HTTP/1.1\nHost: x"))[0] == 200
    hog.transport.pauseProducing()
    for _ in range(12):
        await engine.publish("trade@HOG", *(trade("HOG", note="x" * 200_000) for _ in range(room // 200_000 // 4)))
    await daemon.expect("new clients are refused")
    refused = await knock(harness, daemon)
    assert (refused.status, refused.header(b"Retry-After")) == (503, b"30")
    assert (await harness.http(daemon, "GET /readyz HTTP/1.1\nHost: x"))[0] == 503
    assert (await harness.http(daemon, "GET /healthz HTTP/1.1\nHost: x"))[0] == 200
    for number in range(10):
        await engine.publish("trade@A", trade("A", number))
        assert await client.next_bytes() == trade("A", number)
    await harness.hang_up(hog)
    await daemon.expect("new clients are welcome again")
    await harness.client(daemon)
    assert (await harness.http(daemon, "GET /readyz HTTP/1.1\nHost: x"))[0] == 200
    assert await daemon.stop() == 0


# A browser.

PAGE = """<!doctype html><meta charset=utf-8><title>A test</title><script>
const attempts = ATTEMPTS
const report = what => fetch('/report', {method: 'POST', body: JSON.stringify(what)})
const attempt = ([name, url, protocols]) => new Promise(done => {
  const socket = new WebSocket(url, protocols), seen = {opened: false, got: []}
  socket.onopen = () => {
    seen.opened = true
    seen.protocol = socket.protocol
    socket.send('{"method":"PING","id":1}')
  }
  socket.onmessage = ({data}) => { seen.got.push(data); socket.close(1000) }
  socket.onclose = ({code, reason}) => { report({[name]: {...seen, code, reason}}); done() }
})
attempts.reduce((before, each) => before.then(() => attempt(each)), Promise.resolve())
</script>"""


async def browse(harness: Harness, host: str, **attempts: tuple[str, list[str]]) -> dict[str, Any]:
    """What a page of this host sees of each of these, an address and subprotocols."""
    listed = json.dumps([[name, *attempt] for name, attempt in attempts.items()])
    browser = Browser(harness, PAGE.replace("ATTEMPTS", listed), host)
    try:
        return {name: await browser.report(name) for name in attempts}
    finally:
        await browser.close()


def let_in(protocol: str = "") -> dict[str, Any]:
    return {"opened": True, "protocol": protocol, "got": ['{"result":"PONG","id":1}'], "code": 1000, "reason": ""}


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest_twisted.ensureDeferred
async def test_a_page_of_the_same_host_in_a_browser(harness: Harness) -> None:
    """Connects without any option, with its token where tokens are needed, and can read why it may not."""
    plain = await harness.daemon()
    guarded = await harness.daemon("--auth", "required", "--auth-key", secret_file(harness.directory))
    url, needs_token = (f"ws://feed.example:{daemon.port}/ws" for daemon in (plain, guarded))
    seen = await browse(
        harness,
        "feed.example",
        same=(url, []),
        subprotocol=(needs_token, ["marketfeed", f"bearer.{token()}"]),
        query=(f"{needs_token}?token={token()}", []),
        expired=(needs_token, ["marketfeed", f"bearer.{token(-HOUR)}"]),
        missing=(needs_token, []),
    )
    told = {"opened": True, "got": [], "code": 4401, "reason": NO_TOKEN[1]}
    assert seen == {
        "same": let_in(),
        "subprotocol": let_in("marketfeed"),
        "query": let_in(),
        "expired": {**told, "protocol": "marketfeed"},
        "missing": {**told, "protocol": ""},
    }
    assert (await plain.stop(), await guarded.stop()) == (0, 0)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest_twisted.ensureDeferred
async def test_a_page_of_another_host_in_a_browser(harness: Harness) -> None:
    """Gets nothing but a failed connection, however good the token that it has stolen; the flag admits it."""
    plain = await harness.daemon()
    admitting = await harness.daemon("--allowed-origin", "http://evil.example:*")
    guarded = await harness.daemon("--auth", "required", "--auth-key", secret_file(harness.directory))
    seen = await browse(
        harness,
        "evil.example",
        other=(f"ws://feed.example:{plain.port}/ws", []),
        address=(f"ws://127.0.0.1:{plain.port}/ws", []),
        token=(f"ws://feed.example:{guarded.port}/ws?token={token()}", []),
        flag=(f"ws://feed.example:{admitting.port}/ws", []),
    )
    refused = {"opened": False, "got": [], "code": 1006, "reason": ""}
    assert seen == {"other": refused, "address": refused, "token": refused, "flag": let_in()}
    await plain.expect(r"--allowed-origin http://evil\.example:\d+ would admit it")
    assert [await daemon.stop() for daemon in (plain, admitting, guarded)] == [0, 0, 0]
