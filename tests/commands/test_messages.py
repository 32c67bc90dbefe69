"""What a server says: replies, errors and events are told from what is published, in every dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from marketfeed.commands.messages import Event, Publication, Refusal, Reply, read_message


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def envelope(stream: str, **data: Any) -> bytes:
    return encode({"stream": stream, "data": data})


@pytest.mark.parametrize(
    "payload",
    [
        envelope("!reply", e="reply", id=1, result=None),
        encode({"result": None, "id": 1}),
        encode({"id": "1", "result": ["trade@A"]}),
    ],
)
def test_reply(payload: bytes) -> None:
    """A reply is known in every dialect."""
    assert read_message(payload) == Reply()


@pytest.mark.parametrize("payload", [envelope("!error", code=2, msg="x"), encode({"error": {"code": 2, "msg": "x"}})])
def test_refusal(payload: bytes) -> None:
    """So is an error, whose numbers are texts."""
    assert read_message(payload) == Refusal("2", "x")


@pytest.mark.parametrize("name", ["quality", "serverShutdown", "expiring"])
def test_the_other_events(name: str) -> None:
    """With an envelope or without."""
    for payload in (envelope(f"!{name}", e=name), encode({"e": name})):
        message = read_message(payload)
        assert isinstance(message, Event)
        assert message.name == name


@pytest.mark.parametrize("payload", [envelope("!gap", reason="x"), encode({"e": "gap", "reason": "x"})])
def test_event(payload: bytes) -> None:
    """And an event."""
    message = read_message(payload)
    assert isinstance(message, Event)
    assert (message.name, message.data["reason"]) == ("gap", "x")


@pytest.mark.parametrize("data", [[], [1], [{"e": "x"}, 1], [{"x": 1}], {"e": "x"}])
def test_a_stream_of_all_markets(data: Any) -> None:
    """A name with `!` and `@` is no event; what it brings is rows, where these are publications."""
    message = read_message(encode({"stream": "!miniTicker@arr", "data": data}))
    assert isinstance(message, Publication)
    assert message.each == (message,)
    message = read_message(encode({"stream": "!miniTicker@arr", "data": [{"e": "x", "n": 1.50}]}))
    assert isinstance(message, Publication)
    assert message.each == (Publication("", {"e": "x", "n": "1.5"}, ""),)


@pytest.mark.parametrize(
    "data",
    [{"e": "trade", "result": 1}, {"e": "trade", "error": {}}, {"error": "text"}, {"stream": "!reply", "data": []}],
)
def test_publications_that_look_like_answers(data: dict[str, Any]) -> None:
    """Data is data, whatever further fields it has."""
    assert isinstance(read_message(encode(data)), Publication)
