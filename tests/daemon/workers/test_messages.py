"""Lines of two pipes: whatever way they come in pieces, and each message as it was."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.boundaries import Past
from marketfeed.daemon.workers.messages import (
    Accept,
    Answer,
    Beat,
    Found,
    Leave,
    Lines,
    Question,
    Ready,
    Reload,
    Reloaded,
    Seek,
    Sought,
    decode_from_worker,
    decode_to_worker,
    encode,
)
from tests.strategies import property_test


@property_test
@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(1, 30)))
def test_lines_come_as_they_were(pieces: list[bytes], cuts: list[int]) -> None:
    lines = [piece.replace(b"\n", b" ") for piece in pieces]
    data, feed, found = b"".join(line + b"\n" for line in lines) + b"rest", Lines(), []
    for cut in cuts:
        found += feed.feed(data[:cut])
        data = data[cut:]
    assert found + feed.feed(data) == lines


@pytest.mark.parametrize(
    "message",
    [
        Accept((0, 2)),
        Reload(),
        Leave(retire=True),
        Leave(at_once=True),
        Question(3, "clients", "a\nb", "age", 5),
        Sought(4, [("trade@A", "1f.0")]),
        Found(4, [[Past("trade@A", "1f.0", 7, [b"\0\n", b"2"], "server")], []]),
    ],
)
def test_what_a_parent_says(message: object) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode_to_worker(line) == message


@pytest.mark.parametrize(
    "message",
    [
        Ready("1f"),
        Beat(["memory"]),
        Reloaded(False),
        Answer(3, msgspec.Raw(b'{"a":1}')),
        Seek(4, [("trade@A", "1f.0")]),
    ],
)
def test_what_a_worker_says(message: object) -> None:
    assert decode_from_worker(encode(message)) == message
