"""The three dialects, word for word as in docs/protocol.md#paths-and-dialects."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.wire.dialects import Dialect, event_text, publication_head
from marketfeed.wire.messages import ErrorCode, Gap, GapReason, RequestError, ServerShutdown
from tests.strategies import json_texts, json_values, plain_text, property_test, spellings

BINANCE = (Dialect.COMBINED, Dialect.RAW)
GAP = Gap(["trade@TATA_INR"], GapReason.SOURCE_REFUSED, 1700000000000, None)
SHUTDOWN = ServerShutdown(1700000000000, 1500)

request_ids = st.just(msgspec.UNSET) | st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=36)


def with_id(fields: dict[str, Any], request_id: Any) -> dict[str, Any]:
    """`fields` with the id, where there is one."""
    return fields if request_id is msgspec.UNSET else {**fields, "id": request_id}


def test_replies() -> None:
    """A reply is an envelope too on `/`, and Binance's on the other paths."""
    assert json.loads(Dialect.HOUSE.reply(None, 1)) == {
        "stream": "!reply",
        "data": {"e": "reply", "id": 1, "result": None},
    }
    for dialect in BINANCE:
        assert dialect.reply(None, 1) == b'{"result":null,"id":1}'
        assert dialect.reply(["trade@TATA_INR"], 3) == b'{"result":["trade@TATA_INR"],"id":3}'
        assert dialect.reply("PONG", 6) == b'{"result":"PONG","id":6}'
        assert dialect.reply(True, None) == b'{"result":true,"id":null}'
        assert dialect.reply(None, msgspec.UNSET) == b'{"result":null}'


def test_errors() -> None:
    """An error has Binance's shape and codes, and on `/` it is an envelope."""
    error = RequestError(ErrorCode.INVALID_REQUEST, "…", 1)
    for dialect in BINANCE:
        assert dialect.error(error) == '{"error":{"code":2,"msg":"…"},"id":1}'.encode()
    assert Dialect.HOUSE.error(error) == '{"stream":"!error","data":{"e":"error","code":2,"msg":"…","id":1}}'.encode()


@pytest.mark.parametrize(
    ("event", "name", "data"),
    [
        (
            GAP,
            "!gap",
            {"e": "gap", "streams": ["trade@TATA_INR"], "reason": "source-refused", "from": 1700000000000, "to": None},
        ),
        (SHUTDOWN, "!serverShutdown", {"e": "serverShutdown", "E": 1700000000000, "reconnectAfter": 1500}),
    ],
)
def test_events(event: msgspec.Struct, name: str, data: dict[str, Any]) -> None:
    """A control event has its own stream; the raw dialect gets the data alone."""
    for dialect in (Dialect.HOUSE, Dialect.COMBINED):
        assert json.loads(dialect.event(event)) == {"stream": name, "data": data}
        assert dialect.event(event) == event_text(event, enveloped=True)
    assert json.loads(Dialect.RAW.event(event)) == data
    assert Dialect.RAW.event(event) == event_text(event, enveloped=False)


def test_publications() -> None:
    """A publication is enveloped on `/` and `/stream`, under the name that the client wrote, and bare on `/ws`."""
    assert [dialect for dialect in Dialect if dialect.enveloped] == [Dialect.HOUSE, Dialect.COMBINED]
    assert publication_head("trade@TATA_INR") == b'{"stream":"trade@TATA_INR","data":'


@property_test
@given(request_ids, json_values)
def test_any_reply(request_id: Any, result: Any) -> None:
    """Any result and id: one JSON text of the exact shape, the id absent when absent and null when null."""
    house = json.loads(Dialect.HOUSE.reply(result, request_id))
    assert house == {"stream": "!reply", "data": with_id({"e": "reply", "result": result}, request_id)}
    for dialect in BINANCE:
        assert json.loads(dialect.reply(result, request_id)) == with_id({"result": result}, request_id)


@property_test
@given(request_ids, st.sampled_from(ErrorCode), plain_text)
def test_any_error(request_id: Any, code: ErrorCode, message: str) -> None:
    """Any error and id: one JSON text of the exact shape; the code is a number."""
    error = RequestError(code, message, request_id)
    fault = {"code": int(code), "msg": message}
    house = json.loads(Dialect.HOUSE.error(error))
    assert house == {"stream": "!error", "data": with_id({"e": "error", **fault}, request_id)}
    for dialect in BINANCE:
        assert json.loads(dialect.error(error)) == with_id({"error": fault}, request_id)


@property_test
@given(spellings(), json_texts)
def test_any_publication(spelling: tuple[str, str], data: str) -> None:
    """Spliced into its envelope, data stays as it was written, under the spelling that the client used."""
    text = publication_head(spelling[0]) + data.encode() + b"}"
    assert data.encode() in text
    assert json.loads(text) == {"stream": spelling[0], "data": json.loads(data)}


@property_test
@given(st.sampled_from(ErrorCode), json_values, request_ids, st.lists(plain_text, max_size=3), st.integers(0, 2**53))
def test_house_frames(code: ErrorCode, result: Any, request_id: Any, streams: list[str], at: int) -> None:
    """On `/` every frame has `stream` and `data.e`: existing front ends read `message.data.e` unconditionally."""
    for frame in (
        Dialect.HOUSE.reply(result, request_id),
        Dialect.HOUSE.error(RequestError(code, "why", request_id)),
        Dialect.HOUSE.event(Gap(streams, GapReason.SOURCE_DOWN, at, at)),
        Dialect.HOUSE.event(ServerShutdown(at, at)),
    ):
        message = json.loads(frame)
        assert message["stream"] == f"!{message['data']['e']}"
