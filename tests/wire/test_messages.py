"""Requests, error codes, events and close reasons (docs/protocol.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.nesting import MAX_NESTING
from marketfeed.wire.messages import (
    ErrorCode,
    Expiring,
    Gap,
    GapReason,
    Quality,
    QualityLevel,
    Request,
    RequestError,
    RequestId,
    ServerShutdown,
    _parse_carefully,
    parse_request,
)
from tests.strategies import further_members, json_texts, json_values, objects, plain_text, property_test

ID_FAULT = "invalid request: id must be a signed 64-bit integer, a string of up to 36 characters, or null"
METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY", "PING", "AUTH", "HISTORY")

request_ids = st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=36)


def refusal(payload: bytes) -> RequestError:
    """The error with which a request is answered."""
    with pytest.raises(RequestError) as caught:
        parse_request(payload)
    return caught.value


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        (
            '{"method":"SUBSCRIBE","params":["trade@TATA_INR","depth@TATA_INR"],"id":1}',
            Request("SUBSCRIBE", ["trade@TATA_INR", "depth@TATA_INR"], 1),
        ),
        ('{"method":"UNSUBSCRIBE","params":["depth@TATA_INR"],"id":2}', Request("UNSUBSCRIBE", ["depth@TATA_INR"], 2)),
        ('{"method":"LIST_SUBSCRIPTIONS","id":3}', Request("LIST_SUBSCRIPTIONS", msgspec.UNSET, 3)),
        ('{"method":"SET_PROPERTY","params":["combined",true],"id":4}', Request("SET_PROPERTY", ["combined", True], 4)),
        ('{"method":"GET_PROPERTY","params":["combined"],"id":5}', Request("GET_PROPERTY", ["combined"], 5)),
        ('{"method":"PING","id":6}', Request("PING", msgspec.UNSET, 6)),
        ('{"method":"AUTH","params":["eyJ"],"id":8}', Request("AUTH", ["eyJ"], 8)),
        ('{"method":"PING"}', Request("PING", msgspec.UNSET, msgspec.UNSET)),
        ('{"method":"PING","id":null}', Request("PING", msgspec.UNSET, None)),
        ('{"method":"PING","params":null,"id":"a-b"}', Request("PING", None, "a-b")),
        ('\n{ "id" : 6 , "method" : "PING" }\n', Request("PING", msgspec.UNSET, 6)),
        ('{"method":"PING","id":1,"future":{"a":[1e999]},"limi":1}', Request("PING", msgspec.UNSET, 1)),
        (
            '{"method":"SUBSCRIBE","params":["trade@A"],"since":{"trade@A":"7-1"}}',
            Request("SUBSCRIBE", ["trade@A"], msgspec.UNSET, {"trade@A": "7-1"}),
        ),
        (
            '{"method":"HISTORY","params":["trade@A"],"limit":100,"id":7}',
            Request("HISTORY", ["trade@A"], 7, msgspec.UNSET, 100),
        ),
        (
            '{"method":"HISTORY","params":["trade@A"],"before":"7-1","id":7}',
            Request("HISTORY", ["trade@A"], 7, before="7-1"),
        ),
        ('{"method":"no such method"}', Request("no such method", msgspec.UNSET, msgspec.UNSET)),
    ],
)
def test_requests(text: str, request_: Request) -> None:
    """The requests of the protocol; unknown fields are ignored, and the method is the session's to judge."""
    assert parse_request(text.encode()) == request_


@pytest.mark.parametrize("request_id", [0, -1, 2**63 - 1, -(2**63), "", "x" * 36, "é" * 36, None])
def test_good_ids(request_id: RequestId) -> None:
    """An id is a signed 64-bit integer, a string of at most 36 characters, or null."""
    payload = json.dumps({"method": "PING", "id": request_id}).encode()
    assert parse_request(payload).id == request_id


@pytest.mark.parametrize(
    "request_id",
    ["9223372036854775808", "-9223372036854775809", "1.0", "1.5", "1e3", "true", "[]", "{}", f'"{37 * "x"}"'],
)
def test_bad_ids(request_id: str) -> None:
    """Any other id is refused, and not repeated in the reply."""
    error = refusal(f'{{"method":"PING","id":{request_id}}}'.encode())
    assert (error.code, error.message, error.request_id) == (ErrorCode.INVALID_REQUEST, ID_FAULT, msgspec.UNSET)


@pytest.mark.parametrize(
    ("text", "fault", "request_id"),
    [
        ("{}", "invalid request: method is missing", msgspec.UNSET),
        ('{"id":7}', "invalid request: method is missing", 7),
        ('{"id":null}', "invalid request: method is missing", None),
        ('{"id":"a","method":5}', "invalid request: method must be a string", "a"),
        ('{"id":8,"method":null}', "invalid request: method must be a string", 8),
        ('{"id":8,"Method":"PING"}', "invalid request: method is missing", 8),
        ("[]", "invalid request: expected a JSON object with a method", msgspec.UNSET),
        ('"PING"', "invalid request: expected a JSON object with a method", msgspec.UNSET),
        ("null", "invalid request: expected a JSON object with a method", msgspec.UNSET),
        ("6", "invalid request: expected a JSON object with a method", msgspec.UNSET),
        (
            '{"id":9,"method":"SUBSCRIBE","params":[1e999]}',
            "invalid request: params has a number out of range",
            9,
        ),
        (
            '{"id":1e999,"method":"PING"}',
            "invalid request: id has a number out of range",
            msgspec.UNSET,
        ),
    ],
)
def test_wrong_fields(text: str, fault: str, request_id: RequestId) -> None:
    """A missing or wrong field is code 2, the message names it, and the reply has the request's id."""
    error = refusal(text.encode())
    assert (error.code, error.message, error.request_id) == (ErrorCode.INVALID_REQUEST, fault, request_id)


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        (b"", "unexpected end (byte 0)"),
        (b" ", "unexpected end (byte 1)"),
        (b'{"method":"PING"', "unexpected end (byte 16)"),
        (b"[1", "unexpected end (byte 2)"),
        (b"PING", "invalid character (byte 0)"),
        (b'{"method":PING}', "invalid character (byte 10)"),
        (b"{'method':'PING'}", "expected '\"' (byte 1)"),
        (b'{"method" "PING"}', "expected ':' (byte 10)"),
        (b'{"method":"PING",}', "trailing comma in object (byte 17)"),
        (b'{"method":"PING"} {}', "trailing characters (byte 19)"),
        (b'5 {"method":"PING"}', "trailing characters (byte 3)"),
        (b'{"id":01}', "invalid number (byte 7)"),
        (b'{"id":NaN}', "invalid character (byte 6)"),
        (b'{"id":"\xff"}', "not UTF-8 (byte 7)"),
        (b'\xef\xbb\xbf{"method":"PING"}', "invalid character (byte 0)"),
    ],
)
def test_not_json(payload: bytes, fault: str) -> None:
    """What is not JSON is code 3, with the position and without an id."""
    error = refusal(payload)
    assert (error.code, error.message) == (ErrorCode.INVALID_JSON, f"invalid JSON: {fault}")
    assert error.request_id is msgspec.UNSET


@pytest.mark.parametrize("depth", [2000, 30000])
def test_deep_nesting(depth: int) -> None:
    """Nesting without end is an error like others."""
    nest = b"[" * depth + b"]" * depth
    for payload in (nest, b'{"method":"PING","x":' + nest + b"}", b'{"method":"PING","params":' + nest + b"}"):
        assert refusal(payload).code is ErrorCode.INVALID_JSON
    assert refusal(b"[" * depth).code is ErrorCode.INVALID_JSON


@pytest.mark.parametrize("member", ["params", "since", "limit", "id", "later"])
def test_nesting_about_the_limit(member: str) -> None:
    """32 levels are read, the request's own among them, and no more; wherever they are."""
    for text in (f'{{"method":"PING","{member}":%s}}', f'{{"method":"PING","{member}":[[],[],"[\\"[",%s]}}'):
        room = MAX_NESTING - (2 if ",%s" in text else 1)
        fits, exceeds = [(text % ("[" * levels + "]" * levels)).encode() for levels in (room, room + 1)]
        if member == "id":
            assert refusal(fits).message == ID_FAULT
        else:
            assert parse_request(fits).method == "PING"
        error = refusal(exceeds)
        assert (error.code, error.message) == (
            ErrorCode.INVALID_JSON,
            "invalid JSON: nested deeper than 32 levels",
        )


def is_json_text(payload: bytes) -> bool:
    """Whether `payload` is JSON, all of its strings text: half a surrogate pair is none."""
    try:
        value = json.loads(payload.decode(), parse_constant=int)
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        return False
    return True


@property_test
@given(st.sampled_from(METHODS) | plain_text, request_ids, json_values, further_members, st.data())
def test_any_request(
    method: str, request_id: Any, params: Any, further: list[tuple[str, str]], data: st.DataObject
) -> None:
    """In any layout, with any further fields, a good request is read."""
    fields = {key: text for key, text in further if key not in ("method", "id", "params")}
    fields |= {"method": json.dumps(method), "id": json.dumps(request_id), "params": json.dumps(params)}
    text = data.draw(objects(fields.items()))
    assert parse_request(text.encode()) == Request(method, params, request_id)


@property_test
@given(
    st.binary()
    | json_texts.map(str.encode)
    | st.builds(bytes.__add__, json_texts.map(str.encode), st.binary(max_size=3))
)
def test_any_bytes(payload: bytes) -> None:
    """Any bytes are a request or a `RequestError`; exactly what is not JSON is code 3, with the position."""
    is_json = is_json_text(payload)
    error = None
    try:
        assert parse_request(payload).method is not None
    except RequestError as caught:
        error = caught
    if not is_json:
        assert error is not None
        assert error.code is ErrorCode.INVALID_JSON
        assert re.search(r"\(byte \d+\)$", error.message)
    elif error is not None:
        assert error.code is ErrorCode.INVALID_REQUEST


@property_test
@given(
    st.one_of(
        st.integers(max_value=-(2**63) - 1),
        st.integers(min_value=2**63),
        st.floats(allow_nan=False, allow_infinity=False),
        st.booleans(),
        st.text(min_size=37, max_size=60),
        st.lists(json_values, max_size=2),
    )
)
def test_any_bad_id(request_id: Any) -> None:
    """Ids of other types and sizes are refused by that name."""
    error = refusal(json.dumps({"method": "PING", "id": request_id}).encode())
    assert error.code is ErrorCode.INVALID_REQUEST
    assert error.message.startswith("invalid request: id ")


def test_error_codes() -> None:
    """The numbers are Binance's where it has one."""
    assert {code.name: int(code) for code in ErrorCode} == {
        "PROPERTY_NAME": 0,
        "PROPERTY_VALUE": 1,
        "INVALID_REQUEST": 2,
        "INVALID_JSON": 3,
        "TOO_MANY_SUBSCRIPTIONS": 4,
        "NOT_PERMITTED": 5,
        "AUTHENTICATION_FAILED": 6,
        "TOO_MANY_REQUESTS": 7,
    }


@pytest.mark.parametrize("until", [None, 1700000002000])
def test_gap(until: int | None) -> None:
    """A gap has the fields of the protocol; `to` is null while it lasts."""
    gap = Gap(["trade@TATA_INR", "tata_inr@depth"], GapReason.SOURCE_DOWN, 1700000000000, until)
    assert json.loads(msgspec.json.encode(gap)) == {
        "e": "gap",
        "streams": ["trade@TATA_INR", "tata_inr@depth"],
        "reason": "source-down",
        "from": 1700000000000,
        "to": until,
    }


def test_gap_reasons() -> None:
    """The words that the protocol has for them."""
    assert (GapReason.SOURCE_DOWN, GapReason.SOURCE_REFUSED) == ("source-down", "source-refused")


def test_server_shutdown() -> None:
    """The hint before a drain has the fields of the protocol."""
    assert json.loads(msgspec.json.encode(ServerShutdown(1700000000000, 1500))) == {
        "e": "serverShutdown",
        "E": 1700000000000,
        "reconnectAfter": 1500,
    }


def test_quality() -> None:
    """The shape of docs/protocol.md#slow-clients."""
    assert json.loads(msgspec.json.encode(Quality(["trade@A"], QualityLevel.THINNED, 5))) == {
        "e": "quality",
        "streams": ["trade@A"],
        "level": "thinned",
        "E": 5,
    }


def test_expiring() -> None:
    """What a client hears of its token's end has the fields of the protocol."""
    assert json.loads(msgspec.json.encode(Expiring(1700000000000, 1700000060000))) == {
        "e": "expiring",
        "E": 1700000000000,
        "expiresAt": 1700000060000,
    }


@property_test
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=40),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(("method", "id", "x")), inner),
        max_leaves=6,
    )
    | st.fixed_dictionaries(
        {"method": st.text(max_size=5)},
        optional={"params": st.lists(st.text(max_size=5)), "id": st.integers() | st.text(max_size=40) | st.floats()},
    )
)
def test_the_quick_way_and_the_careful_one_agree(request: object) -> None:
    """Most requests are read at once; what that does not take is read with care, to say what is wrong with it."""
    payload = json.dumps(request).encode()

    def outcome(parse: Callable[[bytes], Request]) -> object:
        try:
            return parse(payload)
        except RequestError as error:
            return (error.code, error.message, error.request_id)

    assert outcome(parse_request) == outcome(_parse_carefully)
