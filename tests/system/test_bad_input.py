"""Whatever one client sends, it gets what docs/protocol.md says, others notice nothing, nor is the daemon surprised.

One daemon has to bear all of it. At the end its log, with every detail, has no line of level error or above.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.by_hand import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_code, frame, frames_of, handshake, say
from tests.system.harness import Client, DaemonProcess, Harness, RawConnection, Redis, trade

MAX_MESSAGE = 65536  # the default of --max-message
STREAM = "trade@BYSTANDER"


class Stage:
    """The daemon with its server, and a client whom nothing that the others do may touch."""

    def __init__(self, harness: Harness, daemon: DaemonProcess, engine: Redis, bystander: Client) -> None:
        self.harness = harness
        self.daemon = daemon
        self.engine = engine
        self.bystander = bystander
        self.number = 0

    async def publish(self, count: int = 5) -> None:
        """Publish to the bystander, without looking whether it arrives."""
        numbers = range(self.number, self.number + count)
        self.number += count
        await self.engine.publish(STREAM, *(trade("BYSTANDER", number) for number in numbers))

    async def arrived(self, since: int) -> None:
        """See that the bystander got everything from there on."""
        for number in range(since, self.number):
            assert await self.bystander.next_bytes() == b'{"stream":"%b","data":%b}' % (
                STREAM.encode(),
                trade("BYSTANDER", number),
            )
        assert not self.bystander.received

    async def open(self, path: str = "/ws") -> RawConnection:
        """A connection whose handshake is done and read."""
        raw = await self.harness.raw(self.daemon)
        raw.send(handshake(path))
        answer = await raw.until(lambda data: b"\r\n\r\n" in data)
        assert answer.startswith(b"HTTP/1.1 101 ")
        raw.data = b""
        return raw

    async def until_close(self, raw: RawConnection) -> list[tuple[int, bytes]]:
        """All frames up to a close, after which this client goes."""
        await raw.until(lambda data: any(opcode == CLOSE for opcode, _ in whole_frames(data)))
        assert raw.transport is not None
        raw.transport.loseConnection()
        await raw.until_closed()
        return list(frames_of(raw.data))

    async def ends_well(self) -> None:
        """Every client that came has gone, and nothing was logged that should worry anybody."""
        assert await self.daemon.stop() == 0
        events = [json.loads(line) for line in self.daemon.lines]
        assert [event for event in events if event["level"] in ("error", "critical")] == []
        assert "Traceback" not in "".join(self.daemon.lines)
        messages = [event["message"] for event in events]
        came = [message for message in messages if " connected from " in message]
        went = [message for message in messages if " disconnected after " in message]
        assert len(came) == len(went)


def whole_frames(data: bytes) -> list[tuple[int, bytes]]:
    try:
        return list(frames_of(data))
    except (AssertionError, IndexError):
        return []


@pytest_twisted.async_yield_fixture(scope="module")
async def whole_stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """What all tests of this module share."""
    harness = Harness(reactor, tmp_path_factory.mktemp("stage"))
    try:
        redis = await harness.redis()
        daemon = await harness.daemon("--log-format", "json", "--log-level", "debug", redis=redis)
        bystander = await harness.client(daemon)
        await bystander.subscribe(STREAM)
        stage = Stage(harness, daemon, await redis.connect(), bystander)
        yield stage
        await stage.ends_well()
    finally:
        await harness.close()


@pytest_twisted.async_yield_fixture
async def stage(whole_stage: Stage) -> AsyncIterator[Stage]:
    """The stage; something is published before the test and after it, and all of that must arrive."""
    since = whole_stage.number
    await whole_stage.publish()
    yield whole_stage
    await whole_stage.publish()
    await whole_stage.arrived(since)


# Messages that are no requests: an error each, and the connection goes on.

WRONG_VALUES = (b"null", b"true", b"5", b"1.5", b"-1e999", b'"x"', b"[]", b"{}", b"[[[]]]", b'["\\ud800"]')
BAD_NAMES = (
    *(
        "",
        "@",
        "trade@",
        "@A",
        "trade",
        "trade@A@",
        "trade@A B",
        "trade@é",
        "trade@A\n",
        "trade@A\r\nPING",
        "*",
        "trade@*",
    ),
    *("candle@A", "TRADE@A", "A@trade", "trade@A@100ms", "depth@A@50ms", "trade@" + "A" * 65, "t@?", "!gap", "!gap@A"),
)
BAD_MESSAGES = [
    b"",
    b" ",
    b"nonsense",
    b"{",
    b'{"method":"PING"}}',
    b'{"method":"PING",}',
    b"{'method':'PING'}",
    b"\x00",
    b"\xef\xbb\xbf{}",
    b"[" * 60000,
    b'{"a":' * 10000,
    b'"' + b"x" * 60000 + b'"',
    b"9" * 60000,
    *WRONG_VALUES,
    *(b'{"method":%b}' % value for value in WRONG_VALUES),
    *(b'{"method":"SUBSCRIBE","params":%b}' % value for value in WRONG_VALUES if value != b"[]"),
    *(b'{"method":"SUBSCRIBE","params":[%b]}' % value for value in WRONG_VALUES),
    *(b'{"method":"UNSUBSCRIBE","params":[%b]}' % value for value in WRONG_VALUES),
    *(b'{"method":"SET_PROPERTY","params":%b}' % value for value in WRONG_VALUES),
    *(b'{"method":"SET_PROPERTY","params":["combined",%b]}' % value for value in WRONG_VALUES if value != b"true"),
    *(b'{"method":"SET_PROPERTY","params":[%b,true]}' % value for value in WRONG_VALUES),
    *(b'{"method":"GET_PROPERTY","params":[%b]}' % value for value in WRONG_VALUES),
    *(b'{"method":"PING","id":%b}' % value for value in WRONG_VALUES if value not in (b"null", b"5", b'"x"')),
    b'{"method":"PING","id":%b}' % (b"9" * 4000),
    b'{"method":"PING","id":"%b"}' % (b"x" * 4000),
    b'{"method":"PING","id":9223372036854775808}',
    b'{"method":"subscribe","params":["trade@A"]}',
    b'{"method":"%b"}' % (b"x" * 60000),
    b'{"method":"__class__"}',
    b'{"METHOD":"PING"}',
    b'{"method":"SUBSCRIBE"}',
    b'{"method":"SUBSCRIBE","params":["trade@%b"]}' % (b"x" * 60000),
    *(json.dumps({"method": "SUBSCRIBE", "params": ["trade@GOOD", name]}).encode() for name in BAD_NAMES),
]


@pytest.mark.parametrize("path", ["/", "/stream", "/ws"])
@pytest_twisted.ensureDeferred
async def test_a_message_that_is_no_request_is_an_error(stage: Stage, path: str) -> None:
    """Each gets one error, in order, and leaves no subscription; in between, what is right is answered."""
    for start in range(
        0, len(BAD_MESSAGES), 20
    ):  # by default 200 requests may come at once, and long ones count as more
        client = await stage.harness.client(stage.daemon, path)
        for number, message in enumerate(BAD_MESSAGES[start : start + 20]):
            client.send(message)
            client.send({"method": "PING", "id": number})
            error, pong = await client.next(), await client.next()
            fault = error["data"] if path == "/" else error["error"]
            assert fault["code"] in (0, 1, 2, 3), message[:100]
            assert 10 < len(fault["msg"]) < 400
            assert (pong["data"] if path == "/" else pong)["id"] == number
        listed = await client.ask({"method": "LIST_SUBSCRIPTIONS", "id": 1})
        assert (listed["data"] if path == "/" else listed)["result"] == []
        await stage.harness.hang_up(client)


@pytest_twisted.ensureDeferred
async def test_more_streams_than_a_connection_may_have(stage: Stage) -> None:
    """1,025 are refused whole, also when they come one by one behind 1,024."""
    client = await stage.harness.client(stage.daemon, "/ws")
    streams = [f"trade@M{number}" for number in range(1025)]
    refused = await client.subscribe(*streams)
    assert refused["error"]["code"] == 4
    assert await client.ask({"method": "LIST_SUBSCRIPTIONS", "id": 2}) == {"result": [], "id": 2}
    assert await client.subscribe(*streams[:1024]) == {"result": None, "id": 1}
    refused = await client.subscribe(streams[1024])
    assert refused["error"]["code"] == 4
    assert len((await client.ask({"method": "LIST_SUBSCRIPTIONS", "id": 2}))["result"]) == 1024
    await stage.harness.hang_up(client)


@pytest_twisted.ensureDeferred
async def test_two_connections_do_not_share_their_limits(stage: Stage) -> None:
    """One that asks far too much is closed with 4029; another still has all of its own."""
    greedy = await stage.open()
    greedy.send(300 * say({"method": "PING"}))
    *answers, (opcode, payload) = await stage.until_close(greedy)
    assert (opcode, close_code(payload)) == (CLOSE, 4029)
    codes = [json.loads(answer).get("error", {}).get("code") for _, answer in answers]
    assert codes.count(None) >= 200
    assert codes[-19:] == 19 * [7]
    other = await stage.harness.client(stage.daemon, "/ws")
    assert await other.ask({"method": "PING", "id": 1}) == {"result": "PONG", "id": 1}
    await stage.harness.hang_up(other)


# Frames that end a connection.

CLOSING = [
    ("binary", 1003, frame(b"x", BINARY)),
    ("empty binary", 1003, frame(b"", BINARY)),
    ("binary in pieces", 1003, frame(b"x", BINARY, fin=False) + frame(b"x", CONTINUATION)),
    ("not UTF-8", 1007, frame(b'{"method":"\xff"}')),
    ("half a character at the end", 1007, frame(b"\xe2\x82")),
    ("a surrogate", 1007, frame(b"\xed\xa0\x80")),
    ("not UTF-8 across frames", 1007, frame(b"\xc3", fin=False) + frame(b"\x28", CONTINUATION)),
    ("a close whose reason is not UTF-8", 1007, frame(b"\x03\xe8\xff", CLOSE)),
    ("a message too large", 1009, frame(b" " * (MAX_MESSAGE + 1))),
    (
        "a message too large in pieces",
        1009,
        frame(b" " * 40000, fin=False) + frame(b" " * 40000, CONTINUATION, fin=False),
    ),
    (
        "a message in endless pieces",
        1009,
        frame(b"x" * 900, fin=False) + 90 * frame(b"x" * 900, CONTINUATION, fin=False),
    ),
    ("a length of 2^62", 1009, frame(b"x" * 1000, announced=2**62)),
    ("a binary length of 2^62", 1009, frame(b"", BINARY, announced=2**62)),
    ("a length of 2^63", 1002, frame(b"x" * 1000, announced=2**63)),
    ("not masked", 1002, frame(b'{"method":"PING"}', mask=None)),
    ("a ping that is not masked", 1002, frame(b"", PING, mask=None)),
    *((f"RSV {rsv}", 1002, frame(b"x", rsv=rsv)) for rsv in range(1, 8)),
    *((f"opcode {opcode}", 1002, frame(b"x", opcode)) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    ("a continuation of nothing", 1002, frame(b"x", CONTINUATION)),
    ("a message within a message", 1002, frame(b"x", fin=False) + frame(b"x")),
    ("a ping in pieces", 1002, frame(b"x", PING, fin=False)),
    ("a ping too large", 1002, frame(b"x" * 126, PING)),
    ("a length that is not minimal", 1002, frame(b"x", length_bytes=2)),
    ("a close of one byte", 1002, frame(b"x", CLOSE)),
    *(
        (f"close code {code}", 1002, frame(struct.pack("!H", code), CLOSE))
        for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535)
    ),
]


@pytest.mark.parametrize(("code", "data"), [case[1:] for case in CLOSING], ids=[case[0] for case in CLOSING])
@pytest_twisted.ensureDeferred
async def test_frames_that_end_the_connection(stage: Stage, code: int, data: bytes) -> None:
    """The close says why; it is the last frame, whatever follows, and what was right before was answered."""
    raw = await stage.open()
    raw.send(say({"method": "PING", "id": 1}) + data + say({"method": "PING", "id": 2}))
    frames = await stage.until_close(raw)
    assert frames[0] == (TEXT, b'{"result":"PONG","id":1}')
    assert [(opcode, close_code(payload)) for opcode, payload in frames[1:]] == [(CLOSE, code)]


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4000, 4999, None])
@pytest_twisted.ensureDeferred
async def test_a_close_is_answered(stage: Stage, code: int | None) -> None:
    """Any code that a client may send; then the server closes."""
    raw = await stage.open()
    raw.send(frame(b"" if code is None else struct.pack("!H", code) + b"bye", CLOSE) + say({"method": "PING"}))
    await raw.until_closed()
    assert list(frames_of(raw.data)) == [(CLOSE, b"\x03\xe8")]


@pytest_twisted.ensureDeferred
async def test_a_flood_of_pings(stage: Stage) -> None:
    """Each is answered, in order, to a client that reads, as fast as its frames are read; pongs are nothing."""
    raw = await stage.open()
    payloads = [b"%125d" % number for number in range(200)]
    raw.send(b"".join(frame(payload, PING) + frame(payload, PONG) for payload in payloads) + say({"method": "PING"}))
    await raw.until_ends(b'{"result":"PONG"}')
    of_server = (PING, b"")
    assert [answer for answer in frames_of(raw.data) if answer != of_server] == [
        *((PONG, payload) for payload in payloads),
        (TEXT, b'{"result":"PONG"}'),
    ]
    await stage.harness.hang_up(raw)


@pytest_twisted.ensureDeferred
async def test_a_message_byte_by_byte(stage: Stage) -> None:
    """The slowest of clients is served as any other."""
    raw = await stage.harness.raw(stage.daemon)
    assert raw.transport is not None
    raw.transport.setTcpNoDelay(True)  # type: ignore[attr-defined]
    for byte in handshake() + say({"method": "PING", "id": 1}):
        raw.send(bytes((byte,)))
        await stage.harness.pause(0)
    await raw.until_ends(b'{"result":"PONG","id":1}')
    await stage.harness.hang_up(raw)


# What is no WebSocket at all.

TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(194))
NOT_HTTP = [
    ("garbage", b"\x00\x01\x02\xff garbage\r\n\r\n"),
    ("a TLS hello that looks like the end of headers", TLS_HELLO + b"\r\n\r\n"),
    ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("Redis", b"*1\r\n$4\r\nPING\r\n\r\n"),
    ("a frame", say({"method": "PING"}) + b"\r\n\r\n"),
    ("too many headers", b"GET / HTTP/1.1\r\n" + b"A: x\r\n" * 101 + b"\r\n"),
    ("headers too large", b"GET / HTTP/1.1\r\n" + b"A: x\r\n" * 2800),
    ("a header too large", b"GET / HTTP/1.1\r\nA: " + b"x" * 16800),
    ("a line too large", b"G" * 16800),
    ("nothing but line ends", b"\r\n" * 50),
]


@pytest.mark.parametrize("data", [case[1] for case in NOT_HTTP], ids=[case[0] for case in NOT_HTTP])
@pytest_twisted.ensureDeferred
async def test_what_is_no_http_is_refused(stage: Stage, data: bytes) -> None:
    """400, without a byte of it, and the connection ends."""
    raw = await stage.harness.raw(stage.daemon)
    raw.send(data)
    answer = await raw.until_closed()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.count(b"\r\nConnection: ") == 1


@pytest_twisted.ensureDeferred
async def test_headers_without_end(stage: Stage) -> None:
    """They are not collected; what the peer sees of the refusal depends on how far it got."""
    before = stage.daemon.resident_kib()
    raw = await stage.harness.raw(stage.daemon)
    raw.send(b"GET / HTTP/1.1\r\n" + b"A: x\r\n" * 10_000_000)
    answer = await raw.until_closed()
    assert answer.startswith(b"HTTP/1.1 400 ") or not answer
    assert stage.daemon.resident_kib() - before < 10_000


@pytest.mark.parametrize(
    "first", [b"GET /nothing HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nwhat ever"]
)
@pytest_twisted.ensureDeferred
async def test_what_follows_a_refused_request_is_not_read(stage: Stage, first: bytes) -> None:
    """There is one answer; a WebSocket cannot be smuggled in behind it."""
    raw = await stage.harness.raw(stage.daemon)
    raw.send(first + handshake() + say({"method": "PING"}) + b"GET /healthz HTTP/1.1\r\n\r\n" * 100)
    answer = await raw.until_closed()
    assert answer[9:12] in (b"404", b"405")
    assert answer.count(b"\r\nConnection: ") == 1


@pytest_twisted.ensureDeferred
async def test_half_a_handshake_and_silence(stage: Stage) -> None:
    """408 after 10 s, which this test takes, whatever was sent by then; who has left meanwhile is no matter."""
    waiting = []
    for data in (b"", b"G", handshake()[:100], handshake()[:-1], TLS_HELLO, b"\x00"):
        for stays in (True, False):
            raw = await stage.harness.raw(stage.daemon)
            raw.send(data)
            if stays:
                waiting.append(raw)
            else:
                await stage.harness.hang_up(raw)
    for raw in waiting:
        assert (await raw.until_closed()).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


# Connections that end at any moment.


@pytest.mark.parametrize("length", [0, 1, 50, len(handshake()) - 1, len(handshake()), len(handshake()) + 5, 10000])
@pytest.mark.parametrize("reset", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_connection_that_ends_midway(stage: Stage, length: int, reset: bool) -> None:
    """With a reset or in order, before, in and after the handshake, between frames and within one."""
    data = (handshake() + say({"method": "SUBSCRIBE", "params": [STREAM]}) * 200)[:length]
    with socket.create_connection(("127.0.0.1", stage.daemon.port)) as peer:
        peer.sendall(data)
        if reset:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest_twisted.ensureDeferred
async def test_a_client_that_sends_no_more_but_reads(stage: Stage) -> None:
    """Half a connection is none: the server closes the other half."""
    raw = await stage.open()
    assert raw.transport is not None
    raw.transport.loseWriteConnection()  # type: ignore[attr-defined]
    await raw.until_closed()


@pytest_twisted.ensureDeferred
async def test_what_was_sent_appears_in_no_log_line_of_its_own(stage: Stage) -> None:
    """A request may be shown for debugging, but nothing in it looks like another line."""
    client: Any = await stage.harness.client(stage.daemon, "/ws")
    forged = '\n{"level":"error","message":"forged"}\n\x1b[31m'
    await client.ask({"method": "SUBSCRIBE", "params": [forged], "id": 1})
    await client.ask({"method": forged, "id": 1})
    await client.ask(b'{"method":"PING","id":"%b"}' % b"\xe2\x80\xa8")
    await stage.harness.hang_up(client)
    await stage.daemon.expect(r"forged")
    assert not any(line.startswith('{"level":"error"') for line in stage.daemon.lines)
