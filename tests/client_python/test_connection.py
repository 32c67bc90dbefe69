"""What is cut out of the bytes of a connection, wherever they are torn."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from marketfeed_client.aio import _Connection
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol
from websockets.uri import parse_uri


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False

    def abort(self) -> None:
        pass

    close = abort


async def heard(frames: list[bytes], cuts: list[int]) -> tuple[list[bytes], list[tuple[int, str]], bytes]:
    """The texts, the ends, and what was written behind the handshake, of frames that come in pieces."""
    client, server = ClientProtocol(parse_uri("ws://localhost/")), ServerProtocol()
    connection, transport = _Connection(client, ping_interval=None), Transport()
    connection.connection_made(transport)
    shaking = asyncio.ensure_future(connection.handshake())
    for _ in range(5):
        await asyncio.sleep(0)  # it sends, and then waits for the answer
    server.receive_data(transport.written)
    transport.written = b""
    (request,) = server.events_received()
    server.send_response(server.accept(request))  # type: ignore[arg-type]
    data = b"".join([*server.data_to_send(), *frames])
    texts: list[bytes] = []
    ends: list[tuple[int, str]] = []
    places = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(places):
        if start != end:
            connection.data_received(data[start:end])
    connection.listen(texts.extend, lambda code, reason: ends.append((code, reason)))
    connection.connection_lost(None)
    await asyncio.gather(shaking, return_exceptions=True)  # it may have seen the end before the answer
    return texts, ends, transport.written


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=False)


MESSAGES = st.lists(st.sampled_from([b"", b"a", b"b" * 125, b"c" * 126, b"d" * 70_000]), max_size=5)


@given(MESSAGES, st.lists(st.integers(0, 2**20), max_size=12), st.booleans())
def test_every_text_comes_once_and_in_order(messages: list[bytes], cuts: list[int], in_parts: bool) -> None:
    frames = []
    for message in messages:
        if in_parts:
            frames += [frame(Opcode.TEXT, message[:1], fin=False), frame(Opcode.PING, b"p")]
            frames += [frame(Opcode.CONT, message[1:])]
        frames.append(frame(Opcode.TEXT, message))
    frames.append(frame(Opcode.CLOSE, b"\x03\xf4bye"))
    texts, ends, written = asyncio.run(heard(frames, cuts))
    assert texts == [message for message in messages for _ in range(1 + in_parts)]
    assert ends[0] == (1012, "bye")
    assert written.count(b"\x8a\x81") == in_parts * len(messages)  # pongs


def test_a_masked_frame_ends_the_connection() -> None:
    """It is websockets that says so, with 1002."""
    bad = Frame(Opcode.TEXT, b"no").serialize(mask=True)
    texts, ends, written = asyncio.run(heard([frame(Opcode.TEXT, b"yes"), bad], []))
    assert texts == [b"yes"]
    assert ends[0][0] == 1006
    assert written[:1] == b"\x88"
