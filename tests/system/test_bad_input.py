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

from tests.by_hand import BINARY, CLOSE, CONTINUATION, TEXT, close_code, frame, frames_of, handshake, say
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

BAD_MESSAGES = [
    b"",
    b"nonsense",
    b"\x00",
    b"\xef\xbb\xbf{}",
    b'["\\ud800"]',
    b"-1e999",
    b"[" * 60000,
    b'{"a":' * 10000,
    b'"' + b"x" * 60000 + b'"',
    b"9" * 60000,
    b'{"method":"%b"}' % (b"x" * 60000),
    b'{"method":"PING","id":%b}' % (b"9" * 4000),
    b'{"method":"SUBSCRIBE","params":["trade@GOOD","trade@%b"]}' % (b"x" * 60000),
]


@pytest_twisted.ensureDeferred
async def test_a_message_that_is_no_request_is_an_error(stage: Stage) -> None:
    """Each gets one error, in order, and leaves no subscription; in between, what is right is answered."""
    client = await stage.harness.client(stage.daemon, "/ws")
    for number, message in enumerate(BAD_MESSAGES):
        client.send(message)
        client.send({"method": "PING", "id": number})
        error = (await client.next())["error"]
        assert error["code"] in (2, 3), message[:100]
        assert 10 < len(error["msg"]) < 400
        assert (await client.next())["id"] == number
    assert await client.ask({"method": "LIST_SUBSCRIPTIONS", "id": 1}) == {"result": [], "id": 1}
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


@pytest.mark.parametrize(
    ("code", "data"),
    [
        (1002, frame(b'{"method":"PING"}', mask=None)),
        (1003, frame(b"x", BINARY)),
        (1007, frame(b'{"method":"\xff"}')),
        (1009, frame(b"x" * 900, fin=False) + 90 * frame(b"x" * 900, CONTINUATION, fin=False)),
    ],
)
@pytest_twisted.ensureDeferred
async def test_frames_that_end_the_connection(stage: Stage, code: int, data: bytes) -> None:
    """The close says why; it is the last frame, whatever follows, and what was right before was answered."""
    raw = await stage.open()
    raw.send(say({"method": "PING", "id": 1}) + data + say({"method": "PING", "id": 2}))
    frames = await stage.until_close(raw)
    assert frames[0] == (TEXT, b'{"result":"PONG","id":1}')
    assert [(opcode, close_code(payload)) for opcode, payload in frames[1:]] == [(CLOSE, code)]


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
