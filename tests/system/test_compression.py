"""permessage-deflate between the real daemon and clients that others have made, a browser among them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zlib
from typing import Any

import pytest
import pytest_twisted
from autobahn.twisted.websocket import WebSocketClientFactory
from autobahn.websocket.compress import (
    PerMessageDeflateOffer,
    PerMessageDeflateResponse,
    PerMessageDeflateResponseAccept,
)
from twisted.internet.endpoints import TCP4ClientEndpoint

from tests.books import update
from tests.by_hand import deflated, frame
from tests.system.browser import CHROMIUM, Browser
from tests.system.harness import DEADLINE, Client, DaemonProcess, Harness, RawConnection, Redis
from tests.system.lean import HANDSHAKE

DEFLATE = "permessage-deflate; client_max_window_bits"
TEXT, COMPRESSED_TEXT, CLOSE = 0x81, 0xC1, 0x88
STREAM = "depth@TATA_INR"
BOTH_WAYS = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
"""What the answer to an offer without parameters says."""

NODE = shutil.which("node")


def has_ws() -> bool:
    """Whether Node is here, and the module ws with it."""
    script = [NODE or "node", "-e", "require('ws')"]
    return NODE is not None and subprocess.run(script, capture_output=True, check=False).returncode == 0


def large_depth(number: int) -> bytes:
    """A book of some 4 kB, which compresses well; no two are alike."""
    rows = [[f"{1000 + at * 0.05:.2f}", str((at * 7919 + number) % 1000)] for at in range(120)]
    return update(a=rows, b=rows, U=number, u=number, s="TATA_INR", note=f"größer {number} \U0001f4c8")


def publications(count: int) -> list[bytes]:
    """Small and large ones in turn."""
    return [update(U=number, u=number) if number % 2 else large_depth(number) for number in range(count)]


def enveloped(data: bytes) -> bytes:
    return b'{"stream":"%b","data":%b}' % (STREAM.encode(), data)


class Wire:
    """A client's bytes by hand, and zlib: nothing that the daemon uses too."""

    def __init__(self, raw: RawConnection) -> None:
        self._raw = raw
        self._read = 0
        self.extensions: str | None = None

    @classmethod
    async def open(cls, harness: Harness, daemon: DaemonProcess, path: str, offer: str | None) -> Wire:
        wire = cls(await harness.raw(daemon))
        header = b"" if offer is None else b"Sec-WebSocket-Extensions: %b\r\n" % offer.encode()
        wire._raw.send((HANDSHAKE % path.encode())[:-2] + header + b"\r\n")
        data = await wire._raw.until(lambda data: b"\r\n\r\n" in data)
        head, _, _ = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        found = re.search(rb"Sec-WebSocket-Extensions: ([^\r]*)", head)
        wire.extensions = found[1].decode() if found else None
        wire._read = len(head) + 4
        return wire

    def send(self, payload: bytes, first: int = TEXT) -> None:
        self._raw.send(frame(payload, first & 0x0F, rsv=first >> 4 & 7))

    def hang_up(self) -> None:
        assert self._raw.transport is not None
        self._raw.transport.loseConnection()

    async def frame(self) -> tuple[int, bytes]:
        """First byte and payload of the next frame that is no ping."""
        while True:
            data = await self._raw.until(self._has_frame)
            start, end = self._span(data)
            first = data[self._read]
            self._read = end
            if first != 0x89:
                return first, data[start:end]

    def _span(self, data: bytes) -> tuple[int, int]:
        size = data[self._read + 1]
        start = self._read + {126: 4, 127: 10}.get(size, 2)
        if size > 125:
            size = int.from_bytes(data[self._read + 2 : start], "big")
        return start, start + size

    def _has_frame(self, data: bytes) -> bool:
        if len(data) < self._read + 2:
            return False
        start, _ = self._span(data)
        return len(data) >= start and len(data) >= self._span(data)[1]

    async def message(self, window: int = 15) -> bytes:
        """The next message, read with an inflater of this window, which knows no message before it."""
        first, payload = await self.frame()
        assert first in (TEXT, COMPRESSED_TEXT), (first, payload)
        if first == COMPRESSED_TEXT:
            payload = zlib.decompressobj(-window).decompress(payload + b"\0\0\xff\xff")
        return payload


class Deflating(Client):
    """Autobahn's client; `compressed` tells of each frame whether it came compressed."""

    def __init__(self) -> None:
        super().__init__()
        self.compressed: list[bool] = []

    def onFrameBegin(self) -> None:
        if self.current_frame.opcode == 1:
            self.compressed.append(self.current_frame.rsv == 4)
        super().onFrameBegin()


def accept(response: Any) -> PerMessageDeflateResponseAccept | None:
    return PerMessageDeflateResponseAccept(response) if isinstance(response, PerMessageDeflateResponse) else None


async def autobahn(harness: Harness, daemon: DaemonProcess, path: str, **offer: Any) -> Deflating:
    """Autobahn's client, open, which has made this offer."""
    factory = WebSocketClientFactory(f"ws://127.0.0.1:{daemon.port}{path}", reactor=harness.reactor)
    factory.protocol = Deflating
    factory.noisy = False
    factory.setProtocolOptions(
        perMessageCompressionOffers=[PerMessageDeflateOffer(**offer)],
        perMessageCompressionAccept=accept,
        openHandshakeTimeout=0,
        closeHandshakeTimeout=0,
        serverConnectionDropTimeout=0,
    )
    client = await TCP4ClientEndpoint(harness.reactor, "127.0.0.1", daemon.port, timeout=DEADLINE).connect(factory)
    harness.on_close(lambda: harness._end(client))
    await client.opened
    assert isinstance(client, Deflating)
    return client


async def start(harness: Harness, *options: str) -> tuple[DaemonProcess, Redis]:
    redis = await harness.redis()
    daemon = await harness.daemon(*options, redis=redis)
    return daemon, await redis.connect()


async def publish(harness: Harness, engine: Redis, messages: list[bytes]) -> None:
    """Publish in order, once the daemon has subscribed."""

    async def is_heard() -> bool:
        return STREAM in await engine.channels()

    await harness.eventually(is_heard)
    await engine.publish(STREAM, *messages)


# What is agreed.


@pytest_twisted.ensureDeferred
async def test_an_offer_is_taken_or_declined_and_never_refused(harness: Harness) -> None:
    """The answer names `server_no_context_takeover`; what is not agreed upon is not used."""
    daemon, engine = await start(harness)
    small = f"{BOTH_WAYS[:46]}; server_max_window_bits=10{BOTH_WAYS[46:]}"
    offers = {
        DEFLATE: BOTH_WAYS,
        "permessage-deflate; server_max_window_bits=10": small,
        "x-webkit-deflate-frame": None,
    }
    wires = [await Wire.open(harness, daemon, f"/stream?streams={STREAM}", offer) for offer in (*offers, None)]
    assert [wire.extensions for wire in wires] == [*offers.values(), None]
    for wire in wires:
        wire.send(b'{"method":"PING","id":1}')
        assert await wire.message() == b'{"result":"PONG","id":1}'
    expected = publications(4)
    await publish(harness, engine, expected)
    for wire in wires:
        for number, data in enumerate(expected):
            first, payload = await wire.frame()
            if wire.extensions is None or number % 2:
                assert (first, payload) == (TEXT, enveloped(data))
            else:
                assert first == COMPRESSED_TEXT
                assert len(payload) < len(data) / 2


@pytest_twisted.ensureDeferred
async def test_with_compression_off_nothing_is_agreed(harness: Harness) -> None:
    """Everything comes as it is, and a compressed request breaks the protocol."""
    daemon, engine = await start(harness, "--compression", "off")
    wire = await Wire.open(harness, daemon, f"/stream?streams={STREAM}", DEFLATE)
    assert wire.extensions is None
    expected = publications(10)
    await publish(harness, engine, expected)
    for data in expected:
        assert await wire.frame() == (TEXT, enveloped(data))
    wire.send(deflated(b'{"method":"PING","id":1}'), COMPRESSED_TEXT)
    first, payload = await wire.frame()
    assert (first, payload[:2]) == (CLOSE, (1002).to_bytes(2, "big"))


# What is sent.


@pytest_twisted.ensureDeferred
async def test_every_window_reads_every_message(harness: Harness) -> None:
    """Clients of all windows, and without any, on the same streams: the same texts, in the same order."""
    daemon, engine = await start(harness)
    wires: dict[int, Wire] = {}
    for window in (0, *range(9, 16)):
        offer = f"permessage-deflate; server_max_window_bits={window}" if window else None
        wires[window] = await Wire.open(harness, daemon, "/stream", offer)
        wires[window].send(b'{"method":"SUBSCRIBE","params":["depth@TATA_INR"],"id":1}')
        assert await wires[window].message() == b'{"result":null,"id":1}'
    expected = publications(60)
    await publish(harness, engine, expected)
    for window, wire in wires.items():
        for data in expected:
            assert await wire.message(window) == enveloped(data)


@pytest.mark.parametrize("offer", [{}, {"request_max_window_bits": 9, "request_no_context_takeover": True}])
@pytest_twisted.ensureDeferred
async def test_autobahns_client_gets_every_message(harness: Harness, offer: dict[str, Any]) -> None:
    """Large ones compressed, small ones as they are; and it may compress what it says."""
    daemon, engine = await start(harness)
    client = await autobahn(harness, daemon, "/stream", **offer)
    (deflate,) = client.websocket_extensions_in_use
    assert deflate.server_no_context_takeover
    assert deflate.client_no_context_takeover
    many = [f"trade@M{number}" for number in range(300)]
    for number in range(3):  # each compressed by itself
        assert await client.ask({"method": "SUBSCRIBE", "params": many, "id": number}) == {"result": None, "id": number}
    await client.ask({"method": "SUBSCRIBE", "params": [STREAM], "id": 9})
    client.compressed.clear()
    expected = publications(60)
    await publish(harness, engine, expected)
    for data in expected:
        assert await client.next_bytes() == enveloped(data)
    assert client.compressed == [number % 2 == 0 for number in range(60)]


# What is received.


@pytest_twisted.ensureDeferred
async def test_a_bomb_ends_with_1009_and_takes_no_memory(harness: Harness) -> None:
    """What is small on the way and larger than `--max-message` when it is unpacked is not unpacked."""
    daemon, _ = await start(harness)
    other = await harness.client(daemon, "/ws")
    before = daemon.resident_kib()
    for _ in range(5):
        wire = await Wire.open(harness, daemon, "/ws", DEFLATE)
        bomb = deflated(b'"' + b"a" * 50_000_000 + b'"', 9)
        assert len(bomb) < 65_000
        wire.send(bomb, COMPRESSED_TEXT)
        first, payload = await wire.frame()
        assert (first, payload[:2]) == (CLOSE, (1009).to_bytes(2, "big"))
    assert daemon.resident_kib() - before < 20_000
    assert await other.ask({"method": "PING", "id": 1}) == {"result": "PONG", "id": 1}


# Others' clients.

WS_SCRIPT = """
const WebSocket = require('ws')
const socket = new WebSocket(process.argv[1], {perMessageDeflate: OPTIONS})
socket.on('open', () => {
  console.log('open ' + socket.extensions)
  socket.send(JSON.stringify({method: 'PING', id: 'x'.repeat(30), padding: 'y'.repeat(5000)}))
})
socket.on('message', data => console.log('got ' + data))
socket.on('close', code => console.log('close ' + code))
"""


@pytest.mark.skipif(not has_ws(), reason="Node's ws is not installed")
@pytest.mark.parametrize(
    "options", ["true", "{threshold: 0, serverMaxWindowBits: 10, clientMaxWindowBits: 10}", "false"]
)
@pytest_twisted.ensureDeferred
async def test_nodes_ws_gets_every_message(harness: Harness, options: str) -> None:
    """Whatever it offers."""
    daemon, engine = await start(harness)
    url = f"ws://127.0.0.1:{daemon.port}/stream?streams={STREAM}"
    script = WS_SCRIPT.replace("OPTIONS", options)
    process = harness.spawn([NODE or "node", "-e", script, url])
    opened = await process.expect(r"^open (.*)")
    assert opened[1] == ("" if options == "false" else "permessage-deflate")
    await process.expect(r'^got {"result":"PONG"')
    expected = publications(60)
    await publish(harness, engine, expected)
    last = enveloped(expected[-1]).decode()
    await process.expect(f"^got {re.escape(last)}$")
    got = [line.removeprefix("got ") for line in process.lines.all if line.startswith('got {"stream"')]
    assert got == [enveloped(each).decode() for each in expected]


PAGE = """<!doctype html><meta charset=utf-8><title>A test</title><script>
const report = what => fetch('/report', {method: 'POST', body: JSON.stringify(what)})
const socket = new WebSocket('URL'), got = []
socket.onopen = () => {
  report({extensions: socket.extensions})
  socket.send(JSON.stringify({method: 'PING', id: 1, padding: 'abc'.repeat(5000)}))
}
socket.onmessage = ({data}) => {
  got.push(data)
  if (data.includes('PONG')) report({pong: data})
  if (got.length === COUNT) report({got})
}
socket.onclose = ({code, reason}) => report({code, reason})
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("compression", ["on", "off"])
@pytest_twisted.ensureDeferred
async def test_a_browser_gets_every_message(harness: Harness, compression: str) -> None:
    """A page opens a WebSocket, is read, gets large and small messages unharmed, and is told good-bye."""
    daemon, engine = await start(harness, "--compression", compression, "--drain-seconds", "0")
    expected = publications(100)
    url = f"ws://127.0.0.1:{daemon.port}/stream?streams={STREAM}"
    page = PAGE.replace("URL", url).replace("COUNT", str(len(expected) + 1))
    browser = Browser(harness, page)
    try:
        agreed = BOTH_WAYS if compression == "on" else ""
        assert await browser.report("extensions") == agreed
        assert json.loads(await browser.report("pong")) == {"result": "PONG", "id": 1}
        await publish(harness, engine, expected)
        assert (await browser.report("got"))[1:] == [enveloped(each).decode() for each in expected]
        assert await daemon.stop("TERM") == 0
        assert await browser.report("code") == 1012
        assert await browser.report("reason") == "shutting down or restarting"
    finally:
        await browser.close()
