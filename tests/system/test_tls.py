"""The daemon's own TLS, spoken to by what others have made: a browser, Node, curl, Python, each in its way."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import sys

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.certificates import Authority
from tests.system.browser import CHROMIUM, Browser
from tests.system.harness import DaemonProcess, Harness, Process, Redis, trade
from tests.system.lean import LeanClient, LeanClients

NODE, CURL, OPENSSL = shutil.which("node"), shutil.which("curl"), shutil.which("openssl")
AUTHORITY = Authority()
SERVER = AUTHORITY.issue("localhost", "127.0.0.1")

OF_NODE = """
const [port, path] = process.argv.slice(2), ca = require('fs').readFileSync(path)
const tls = require('tls').connect({port, host: 'localhost', ca, ALPNProtocols: ['h2', 'http/1.1']}, () => {
  console.log('agreed on', tls.alpnProtocol)
  tls.end()
  const headers = {Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': 13,
                   'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ=='}
  const request = require('https').request({port, host: 'localhost', ca, path: '/ws/trade@A', headers})
  request.on('upgrade', (response, socket, head) => {
    console.log('status', response.statusCode)
    let got = head
    const look = () => { if (got.includes('}')) { console.log(got.toString('latin1').slice(2)); process.exit() } }
    socket.on('data', data => { got = Buffer.concat([got, data]); look() })
    look()
  })
  request.end()
})
"""

OF_PYTHON = """
import ssl, sys
from websockets.sync.client import connect
port, path = sys.argv[1:]
context = ssl.create_default_context(cafile=path)
context.set_alpn_protocols(["h2", "http/1.1"])
context.verify_flags |= ssl.VERIFY_X509_STRICT  # which is what 3.13 does by itself
with connect(f"wss://localhost:{port}/ws/trade@A", ssl=context, proxy=None, open_timeout=300) as client:
    print("agreed on", client.socket.selected_alpn_protocol(), flush=True)
    print(client.recv(), flush=True)
"""

PAGE = """<!doctype html><meta charset=utf-8><title>A test</title><script>
const report = what => fetch('/report', {method: 'POST', body: JSON.stringify(what)})
const socket = new WebSocket('URL')
socket.onopen = () => report({opened: true})
socket.onmessage = ({data}) => report({got: data})
socket.onclose = ({code, reason}) => report({opened: false, got: `${code} ${reason}`})
</script>"""


class Stage:
    """A daemon with TLS, and an engine."""

    def __init__(self, harness: Harness, daemon: DaemonProcess, engine: Redis) -> None:
        self.harness = harness
        self.daemon = daemon
        self.engine = engine
        self.trusted = str(AUTHORITY.write(harness.directory / "ca.pem"))

    @classmethod
    async def open(cls, harness: Harness) -> Stage:
        certificate, key = SERVER.write(harness.directory)
        redis = await harness.redis()
        port = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
        daemon = await harness.daemon("--port", port, redis=redis)
        return cls(harness, daemon, await redis.connect())

    def run(self, *command: str) -> Process:
        """A client in a process of its own, which is told the port and whom to trust."""
        return self.harness.spawn([*command, str(self.daemon.port), self.trusted])

    async def publish(self) -> None:
        """One trade, once somebody is there to get it."""
        await self.harness.eventually(self._is_wanted)
        await self.engine.publish("trade@A", trade("A"))

    async def _is_wanted(self) -> bool:
        return "trade@A" in await self.engine.channels()

    async def ends_well(self) -> None:
        """No handshake has failed."""
        assert await self.daemon.stop() == 0
        assert [line for line in self.daemon.lines if "TLS:" in line or "Traceback" in line] == []


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest_twisted.ensureDeferred
async def test_a_browser(harness: Harness) -> None:
    """By `wss:`, from a page."""
    stage = await Stage.open(harness)
    key = SERVER.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    page = PAGE.replace("URL", f"wss://127.0.0.1:{stage.daemon.port}/ws/trade@A")
    browser = Browser(harness, page, trusted=base64.b64encode(hashlib.sha256(key).digest()).decode())
    try:
        assert await browser.report("opened"), browser.reports
        await stage.publish()
        assert await browser.report("got") == trade("A").decode()
    finally:
        await browser.close()
    await stage.ends_well()


@pytest.mark.skipif(NODE is None, reason="Node is not installed")
@pytest_twisted.ensureDeferred
async def test_node(harness: Harness) -> None:
    """Its `tls` with two protocols, and its `https` with what it offers by itself."""
    stage = await Stage.open(harness)
    program = harness.directory / "client.js"
    program.write_text(OF_NODE)
    assert NODE is not None
    process = stage.run(NODE, str(program))
    await stage.publish()
    assert await process.wait() == 0, process.lines.all
    assert process.lines.all == ["agreed on http/1.1", "status 101", trade("A").decode()]
    await stage.ends_well()


@pytest.mark.parametrize("offer", ["", "--http1.1", "--no-alpn"])
@pytest.mark.skipif(CURL is None, reason="curl is not installed")
@pytest_twisted.ensureDeferred
async def test_curl(offer: str, harness: Harness) -> None:
    """It offers HTTP/2 too, or HTTP/1.1 only, or says nothing of protocols."""
    stage = await Stage.open(harness)
    assert CURL is not None
    url = f"https://localhost:{stage.daemon.port}/readyz"
    process = harness.spawn(
        [CURL, "-qsS", "--noproxy", "*", "--cacert", stage.trusted, *([offer] if offer else []), url]
    )
    assert await process.wait() == 0, process.lines.all
    assert process.lines.all == ["ready"]
    await stage.ends_well()


@pytest_twisted.ensureDeferred
async def test_python(harness: Harness) -> None:
    """The client that most programs in Python have."""
    stage = await Stage.open(harness)
    process = stage.run(sys.executable, "-c", OF_PYTHON)
    await process.expect("agreed on http/1.1")
    await stage.publish()
    assert await process.wait() == 0, process.lines.all
    assert json.loads(process.lines.all[-1]) == json.loads(trade("A"))
    await stage.ends_well()


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
@pytest_twisted.ensureDeferred
async def test_who_does_not_trust_it_is_in_the_log(harness: Harness) -> None:
    """With the cause, as OpenSSL has it; and everybody else comes in."""
    stage = await Stage.open(harness)
    assert CURL is not None
    url = f"https://localhost:{stage.daemon.port}/readyz"
    stranger = str(Authority().write(harness.directory / "other.pem"))
    process = harness.spawn([CURL, "-qsS", "--noproxy", "*", "--cacert", stranger, url])
    assert await process.wait() != 0
    await stage.daemon.expect(r"TLS: the handshake with 127\.0\.0\.1:\d+ failed: .+ \(1 since the start\)")
    process = harness.spawn([CURL, "-qsS", "--noproxy", "*", "--cacert", stage.trusted, url])
    assert await process.wait() == 0
    assert await stage.daemon.stop() == 0


REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def s_client(stage: Stage, *options: str) -> Process:
    """OpenSSL's own client, to which lines can be written."""
    assert OPENSSL is not None
    where = ["-connect", f"localhost:{stage.daemon.port}", "-CAfile", stage.trusted]
    return stage.harness.spawn([OPENSSL, "s_client", *where, *options])


@pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")
@pytest_twisted.ensureDeferred
async def test_who_comes_back_is_known(harness: Harness) -> None:
    """By its ticket, five times in a row."""
    stage = await Stage.open(harness)
    client = s_client(stage, "-tls1_2", "-reconnect")
    await harness.eventually(lambda: sum(line.startswith("Reused, TLSv1.2") for line in client.lines.all) == 5)
    client.process.closeStdin()
    await client.wait()
    assert sum(line.startswith("New, ") for line in client.lines.all) == 1
    await stage.ends_well()


@pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")
@pytest_twisted.ensureDeferred
async def test_nobody_negotiates_anew(harness: Harness) -> None:
    """Which costs the server more than the client: it is refused, and the next one is none the wiser."""
    stage = await Stage.open(harness)
    client = s_client(stage, "-tls1_2")
    await client.expect("Extended master secret")
    client.process.writeToChild(0, b"R\n")
    await client.expect("no renegotiation")
    await client.wait()
    client = s_client(stage, "-quiet", "-ign_eof", "-tls1_2")
    client.process.writeToChild(0, REQUEST)
    await client.expect("200 OK")
    await stage.ends_well()


@pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")
@pytest_twisted.ensureDeferred
async def test_other_keys_amid_a_connection(harness: Harness) -> None:
    """TLS 1.3 has no new negotiation, but its client may want to have other keys on either side."""
    stage = await Stage.open(harness)
    client = s_client(stage, "-tls1_3")
    await client.expect("Verify return code")
    client.process.writeToChild(0, b"K\n")
    await client.expect("KEYUPDATE")
    client.process.writeToChild(0, REQUEST)
    await client.expect("200 OK")
    await stage.ends_well()


@pytest_twisted.ensureDeferred
async def test_plain_http_is_no_tls(harness: Harness) -> None:
    """The log says what it was."""
    stage = await Stage.open(harness)
    raw = await harness.raw(stage.daemon)
    raw.send(REQUEST)
    assert await raw.until_closed() == b""
    await stage.daemon.expect(r"TLS: the handshake with 127\.0\.0\.1:\d+ failed: http request")
    assert await stage.daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_a_renewal_amid_connections(harness: Harness) -> None:
    """New ones are shown the new certificate; old ones get every trade."""
    stage = await Stage.open(harness)
    clients = LeanClients[LeanClient](harness, stage.daemon, AUTHORITY.client_options())
    old = await clients.open(LeanClient(), "/ws/trade@A")
    await harness.eventually(stage._is_wanted)
    another = Authority()
    another.issue("localhost").write(harness.directory)

    async def is_noticed() -> bool:
        """Whoever comes has the files looked at."""
        await harness.hang_up(await harness.raw(stage.daemon))
        return any("new connections get the renewed certificate" in line for line in stage.daemon.lines)

    await harness.eventually(is_noticed)
    newer = LeanClients[LeanClient](harness, stage.daemon, another.client_options())
    new = await newer.open(LeanClient(), "/ws/trade@A")
    sent = [trade("A", number, padding=number % 40 * 1000 * "x") for number in range(200)]
    await stage.engine.publish("trade@A", *sent)
    await harness.eventually(lambda: (old.texts, new.texts) == (sent, sent))
    assert await stage.daemon.stop() == 0
