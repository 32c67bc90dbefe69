"""Publications: what is let through to the byte, and why not the rest (docs/protocol.md#what-the-engine-publishes)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.decimals import ACCEPTED
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from marketfeed.model.nesting import MAX_NESTING, TOO_DEEP
from marketfeed.model.publications import BadPublication, DropReason, PublicationReader
from marketfeed.model.streams import StreamKinds, StreamName
from tests.strategies import (
    KINDS,
    bad_decimals,
    blanks,
    broken_publications,
    canonical_names,
    decimals,
    further_members,
    json_texts,
    kinds,
    objects,
    property_test,
    publications,
    required_fields,
    wrapped,
)

MARKET = "TATA_INR"
TRADE = '{"e":"trade","t":7,"m":true,"p":"101.50","q":"2","s":"TATA_INR"}'
DEPTH = '{"e":"depth","a":[["101.5","2"]],"b":[]}'
TICKER = '{"e":"ticker","c":"101.5","s":"TATA_INR"}'
GOOD = {"trade": TRADE, "depth": DEPTH, "ticker": TICKER}
NEWS = StreamKind("news", LossPolicy.KEEP)
NEST = "[" * 50000 + "]" * 50000


def reader(kind: str, prefix: str = "", max_payload: int = 262144) -> PublicationReader:
    """The reader of a stream of this kind, as the hub makes it."""
    stream = StreamName(NEWS, MARKET) if kind == "news" else StreamKinds().parse(f"{kind}@{MARKET}")
    return PublicationReader(stream, (str(stream), prefix + str(stream)), max_payload)


def read(kind: str, text: str) -> bytes:
    return reader(kind).read(text.encode())


def refusal(kind: str, payload: str | bytes, max_payload: int = 262144) -> BadPublication:
    """Why a payload is refused."""
    with pytest.raises(BadPublication) as caught:
        reader(kind, max_payload=max_payload).read(payload.encode() if isinstance(payload, str) else payload)
    return caught.value


def without(kind: str, field: str) -> str:
    """A good publication that lacks one field."""
    return json.dumps({key: value for key, value in json.loads(GOOD[kind]).items() if key != field})


def changed(kind: str, field: str, value: str) -> str:
    """A good publication with another JSON text as one field's value."""
    members = {key: json.dumps(old) for key, old in json.loads(GOOD[kind]).items()} | {field: value}
    return "{" + ",".join(f'"{key}":{text}' for key, text in members.items()) + "}"


def is_json_object(data: bytes) -> bool:
    """Whether `data` is UTF-8 and one JSON object, by another parser than the one under test."""
    try:
        return isinstance(json.loads(data.decode(), parse_constant=int), dict)
    except ValueError:
        return False


# What real engines write.


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("trade", TRADE),
        ("trade", '{"e":"trade","t":12345678901234567890123,"m":false,"p":101.5,"q":3,"s":"btc-usd.p"}'),
        ("trade", '{"e":"trade","t":-1,"m":false,"p":1e5,"q":1.5E-7,"s":"A"}'),
        ("trade", '{"e":"trade","t":7.0,"m":false,"p":"1E+5","q":"+.5","s":"A"}'),
        ("trade", '{"e":"trade","E":1700000000000,"T":1,"M":true,"a":8,"b":9,"t":7,"m":true,"p":"1.","q":"0","s":"A"}'),
        ("trade", ' {\n "s": "A", "q": "1", "p": "1", "m": true, "t": 1, "e": "trade" }\r\n'),
        ("trade", '{"e":"trade","t":7,"m":true,"p":"1","q":"1","s":"A","note":"Zürich ☕ 𝄞","x":{"y":[null]}}'),
        ("trade", '{"\\u0065":"tr\\u0061de","t":7,"m":true,"p":"\\u0031","q":"1","s":"\\u0041"}'),
        ("trade", '{"e":"trade","t":7,"m":true,"p":"1","q":"1","s":"A","x":1e999,"y":-0.0e-999}'),
        ("trade", '{"e":"trade","t":7,"m":true,"p":"1","q":"1","s":"A","x":' + "9" * 5000 + "}"),
        ("trade", '{"e":"trade","t":7,"m":true,"p":"' + "1" * 64 + '","q":"-1e+99","s":"A"}'),
        ("depth", DEPTH),
        ("depth", '{"e":"depthUpdate","E":1,"s":"A","U":157,"u":160,"b":[["0.0024","10"]],"a":[["0.0026",0]]}'),
        ("depth", '{"e":"depth","a":[],"b":[],"snapshot":true,"U":null,"u":"160","pu":{}}'),
        ("depth", '{"a":[[1,2],[1.5,"0"]],"b":[[ "1" , 0 ]],"e":"depth","s":5}'),
        ("ticker", TICKER),
        ("ticker", '{"e":"24hrTicker","c":-1e-9,"s":"A","P":"-1.5","v":null,"o":[]}'),
        ("news", '{"anything":1}'),
        ("news", "{}"),
    ],
)
def test_good(kind: str, text: str) -> None:
    """What the table of docs/protocol.md#what-the-engine-publishes permits is forwarded as it was written."""
    assert read(kind, text) == text.encode()


@pytest.mark.parametrize("kind", KINDS)
def test_wrapped(kind: str) -> None:
    """A wrapped publication's data are the bytes inside the envelope, under the name with the prefix or without."""
    data = GOOD[kind]
    for stream in (f"{kind}@{MARKET}", f"live:{kind}@{MARKET}"):
        for text in (
            f'{{"stream":"{stream}","data":{data}}}',
            f'{{"stream": "{stream}", "data": {data}}}\n',
            f'{{"data":{data},"stream":"{stream}"}}',
            f' {{ "id":1, "stream" : "{stream}", "at":[1], "data"\t:\n{data} , "data2":null}} ',
            f'{{"\\u0073tream":"\\u00{ord(stream[0]):x}{stream[1:]}","d\\u0061ta":{data}}}',
        ):
            assert reader(kind, prefix="live:").read(text.encode()) == data.encode()


def test_wrapped_in_a_declared_kind() -> None:
    """A kind of which nothing is required is unwrapped too, whatever the order of keys."""
    assert read("news", '{"stream":"news@TATA_INR","data":{"a":1}}') == b'{"a":1}'
    assert read("news", '{"data": {"a": 1}, "stream": "news@TATA_INR"}') == b'{"a": 1}'
    bare = '{"stream":"news@TATA_INR","data":[1]}'
    assert read("news", bare) == bare.encode()


@pytest.mark.parametrize(
    "further",
    [
        '"stream":5',
        '"data":{"x":1}',
        '"stream":"other","data":null',
        '"stream":"other","data":{}',
        '"stream":"trade@TATA_INR"',
        '"stream":"trade@TATA_INR","data":null',
        '"stream":"trade@TATA_INR","data":"x"',
        '"stream":"trade@TATA_INR","data":{"e":"trade"}',
        '"stream":{"stream":"trade@TATA_INR","data":{}}',
    ],
)
def test_bare_with_fields_of_the_envelope(further: str) -> None:
    """Fields called `stream` and `data` are allowed like others, in front and behind."""
    for text in ("{" + further + "," + TRADE[1:], TRADE[:-1] + "," + further + "}"):
        assert read("trade", text) == text.encode()


def test_largest_payload() -> None:
    """The limit is a payload's whole size, and it is still permitted."""
    data = TRADE.encode()
    assert reader("trade", max_payload=len(data)).read(data) == data
    bad = refusal("trade", data, max_payload=len(data) - 1)
    assert (bad.reason, bad.fault, bad.data) == (
        DropReason.TOO_LARGE,
        f"{len(data)} bytes, more than --max-payload {len(data) - 1}",
        None,
    )


# What is refused, and why.


@pytest.mark.parametrize("kind", KINDS)
def test_each_required_field(kind: str) -> None:
    """Without any one of the required fields a publication is bad, and the fault names the field."""
    for field in required_fields(kind):
        bad = refusal(kind, without(kind, field))
        assert (bad.reason, bad.fault) == (DropReason.BAD_FIELD, f"Object missing required field `{field}`")
        assert bad.data == without(kind, field).encode()
        assert str(bad) == bad.fault


@pytest.mark.parametrize(
    ("kind", "field", "value", "fault"),
    [
        ("trade", "e", '"aggTrade"', "Invalid enum value 'aggTrade' - at `$.e`"),
        ("trade", "t", "7.5", "expected an integer - at `$.t`"),
        ("trade", "t", '"7"', "Expected `int | float`, got `str` - at `$.t`"),
        ("trade", "t", "true", "Expected `int | float`, got `bool` - at `$.t`"),
        ("trade", "t", "9" * 5000, "Integer value out of range - at `$.t`"),
        ("trade", "m", "1", "Expected `bool`, got `int` - at `$.m`"),
        ("trade", "p", "null", "Expected `int | float | str`, got `null` - at `$.p`"),
        ("trade", "p", "1e999", "Number out of range - at `$.p`"),
        ("trade", "p", '"NaN"', f"expected {ACCEPTED}, got 'NaN' - at `$.p`"),
        ("trade", "q", '"1,5"', f"expected {ACCEPTED}, got '1,5' - at `$.q`"),
        ("trade", "q", f'"{"x" * 90}"', f"expected {ACCEPTED}, got '{'x' * 40}' - at `$.q`"),
        ("trade", "p", f'"{"1" * 65}"', f"expected {ACCEPTED}, got '{'1' * 40}' - at `$.p`"),
        ("trade", "q", '"1e1000000000000000000"', f"expected {ACCEPTED}, got '1e1000000000000000000' - at `$.q`"),
        ("trade", "q", '"0e-100"', f"expected {ACCEPTED}, got '0e-100' - at `$.q`"),
        ("trade", "s", '"TATA INR"', "expected a market, got 'TATA INR' - at `$.s`"),
        ("depth", "e", '"trade"', "Invalid enum value 'trade' - at `$.e`"),
        ("depth", "a", "null", "Expected `array`, got `null` - at `$.a`"),
        ("depth", "a", '[["1","2","3"]]', "Expected `array` of length 2 - at `$.a[0]`"),
        ("depth", "a", '[["1"]]', "Expected `array` of length 2 - at `$.a[0]`"),
        ("depth", "a", '[["1","x"]]', f"expected {ACCEPTED}, got 'x' - at `$.a`"),
        ("depth", "b", '[["x","1"]]', f"expected {ACCEPTED}, got 'x' - at `$.b`"),
        ("ticker", "e", '"trade"', "Invalid enum value 'trade' - at `$.e`"),
        ("ticker", "c", '""', f"expected {ACCEPTED}, got '' - at `$.c`"),
        ("ticker", "s", "5", "Expected `str`, got `int` - at `$.s`"),
    ],
)
def test_wrong_fields(kind: str, field: str, value: str, fault: str) -> None:
    """A field that is not what the table requires is named, wrapped or not; the data can be forwarded all the same."""
    data = changed(kind, field, value)
    for text in (
        data,
        f'{{"stream":"{kind}@{MARKET}","data":{data}}}',
        f'{{"data":{data},"stream":"{kind}@{MARKET}"}}',
    ):
        bad = refusal(kind, text)
        assert (bad.reason, bad.fault, bad.data) == (DropReason.BAD_FIELD, fault, data.encode())


@pytest.mark.parametrize("text", ["null", "[]", f"[{TRADE}]", "7", '"trade"', "true", " 1.5 "])
@pytest.mark.parametrize("kind", [*KINDS, "news"])
def test_not_an_object(kind: str, text: str) -> None:
    """JSON that is no object cannot be forwarded, bare or wrapped."""
    bad = refusal(kind, text)
    assert (bad.reason, bad.fault, bad.data) == (DropReason.NOT_OBJECT, "not a JSON object", None)
    if kind != "news":
        bad = refusal(kind, f'{{"stream":"{kind}@{MARKET}","data":{text}}}')
        assert (bad.reason, bad.fault, bad.data) == (DropReason.NOT_OBJECT, "not a JSON object", None)


@pytest.mark.parametrize("layout", ['{{"stream":{0},"data":{1}}}', '{{"data":{1},"stream":{0}}}'])
def test_wrapped_for_another_stream(layout: str) -> None:
    """An envelope of another stream is refused; what may be forwarded is its data, not the envelope once more."""
    bad = refusal("trade", layout.format('"trade@OTHER"', TRADE))
    assert (bad.reason, bad.fault) == (DropReason.WRONG_STREAM, "wrapped for the stream 'trade@OTHER'")
    assert bad.data == TRADE.encode()
    assert refusal("trade", layout.format(f'"{"x" * 100}"', "{}")).fault == f"wrapped for the stream '{'x' * 80}'"


def test_stream_without_object() -> None:
    """A field `stream` with no object beside it makes no envelope: the fault is that of the bare object."""
    text = '{"stream":"trade@OTHER","data":5}'
    bad = refusal("trade", text)
    assert (bad.reason, bad.fault) == (DropReason.BAD_FIELD, "Object missing required field `e`")
    assert bad.data == text.encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "x",
        TRADE[:-1],
        TRADE + "}",
        TRADE + TRADE,
        TRADE[:-1] + ',"x":NaN}',
        TRADE[:-1] + ',"x":Infinity}',
        TRADE[:-1] + ',"x":01}',
        TRADE[:-1] + ',"x":.5}',
        TRADE[:-1] + ',"x":1.}',
        TRADE[:-1] + ',"x":[1,]}',
        TRADE[:-1] + ',"x":"\n"}',
        TRADE[:-1] + ',"x":"\\q"}',
        TRADE[:-1] + ",}",
        TRADE[:-1] + ',"x":"\\ud800"}',
        TRADE[:-1] + ',"\\udc00\\ud800":1}',
        '{"e":1 garbage',
        '{"stream":1 garbage',
        '{"stream":"trade@OTHER","data":{} garbage',
        '{"stream":"trade@TATA_INR","data":' + TRADE,
        '{"stream":"trade@TATA_INR","data":' + TRADE[:-1] + ',"x":NaN}}',
        '{"stream":"\\ud800","data":{}}',
        "{'e':'trade'}",
        "\ufeff" + TRADE,
        TRADE[:-1] + ',"x":' + NEST + "}",
        '{"e":1,"x":' + NEST + "}",
        '{"stream":1,"x":' + NEST + "}",
        '{"stream":"trade@TATA_INR","data":' + TRADE[:-1] + ',"x":' + NEST + "}}",
        "[1 garbage",
        '"garbage',
        NEST,
    ],
)
@pytest.mark.parametrize("kind", [*KINDS, "news"])
def test_not_json(kind: str, text: str) -> None:
    """What is not JSON, or nests without end, or has half a surrogate pair, is never forwarded."""
    bad = refusal(kind, text)
    assert (bad.reason, bad.data) == (DropReason.NOT_JSON, None)
    assert bad.fault


@pytest.mark.parametrize(
    ("payload", "at"),
    [
        (b"\xff", 0),
        (TRADE[:-1].encode() + b',"x":"\xff"}', len(TRADE) + 5),
        (TRADE[:-1].encode() + b',"\xc3":1}', len(TRADE) + 1),
        (TRADE[:-1].encode() + b',"x":"\xed\xa0\x80"}', len(TRADE) + 5),
        (b'{"stream":"trade@TATA_INR","data":' + TRADE[:-1].encode() + b',"x":"\xc0\xaf"}}', len(TRADE) + 39),
    ],
)
def test_not_utf8(payload: bytes, at: int) -> None:
    """Bytes that are not UTF-8 are found in fields too that nobody reads: browsers would close with 1007."""
    bad = refusal("trade", payload)
    assert (bad.reason, bad.fault, bad.data) == (DropReason.NOT_UTF8, f"not UTF-8 at byte {at}", None)


def test_long_fault_is_shortened() -> None:
    """A fault repeats no more of what the engine wrote than fits a line of the log."""
    bad = refusal("trade", changed("trade", "e", f'"{"x" * 100000}"'))
    assert len(bad.fault) < 200
    assert bad.fault.startswith("Invalid enum value 'xxx")
    assert bad.fault.endswith("x' - at `$.e`")


@pytest.mark.parametrize("tail", ["x", "e", ".1.", "e+"])
def test_long_decimals_take_linear_time(tail: str) -> None:
    """A string of a hundred thousand digits that is no decimal in the end is refused; a slow pattern would hang."""
    assert refusal("ticker", changed("ticker", "c", f'"{"1" * 100000}{tail}"')).reason == DropReason.BAD_FIELD


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "Input data was truncated"),
        ('{"e":"trade",}', "JSON is malformed: trailing comma in object (byte 13)"),
        ("[]", "not a JSON object"),
        ('{"e":"trade"}', "Object missing required field `t`"),
    ],
)
def test_the_fault_is_said(text: str, fault: str) -> None:
    """In the words of who found it."""
    assert refusal("trade", text).fault == fault


def test_reasons() -> None:
    """The names under which drops are counted are a contract with whoever reads the counters."""
    assert DropReason.ALL == ("too-large", "not-utf8", "not-json", "not-object", "wrong-stream", "bad-field")


# Properties.


@property_test
@given(st.data(), kinds, blanks, blanks)
def test_any_bare(data: st.DataObject, kind: str, before: str, behind: str) -> None:
    """Every good publication comes out as the bytes that went in."""
    payload = (before + data.draw(publications(kind)) + behind).encode()
    assert reader(kind).read(payload) == payload


@property_test
@given(st.data(), kinds, st.sampled_from(("", "live:")))
def test_any_wrapped(data: st.DataObject, kind: str, prefix: str) -> None:
    """Wrapped in any layout, with any further keys, it comes out as exactly the data."""
    text = data.draw(publications(kind))
    payload = data.draw(wrapped(f"{prefix}{kind}@{MARKET}", text)).encode()
    assert reader(kind, prefix).read(payload) == text.encode()


@property_test
@given(st.data(), kinds)
def test_any_broken(data: st.DataObject, kind: str) -> None:
    """Every single defect is found, bare or wrapped, the fault names the field, and the data are handed over."""
    text, field = data.draw(broken_publications(kind))
    for payload in (text, data.draw(wrapped(f"{kind}@{MARKET}", text))):
        bad = refusal(kind, payload)
        assert bad.reason == DropReason.BAD_FIELD
        assert f"`{field}`" in bad.fault or f"`$.{field}" in bad.fault
        assert bad.data == text.encode()


@property_test
@given(st.data(), kinds, canonical_names.filter(lambda name: not name.endswith(f"@{MARKET}")))
def test_any_wrong_stream(data: st.DataObject, kind: str, stream: str) -> None:
    """What is wrapped for any other stream is not let into this one."""
    text = data.draw(publications(kind))
    bad = refusal(kind, data.draw(wrapped(stream, text)))
    assert (bad.reason, bad.data) == (DropReason.WRONG_STREAM, text.encode())


@property_test
@given(decimals)
def test_any_decimal(decimal: str) -> None:
    """A decimal within the bounds is one wherever the table asks for one, in any spelling that JSON has."""
    read("trade", changed("trade", "p", decimal))
    read("ticker", changed("ticker", "c", decimal))
    read("depth", changed("depth", "b", f"[[{decimal},{decimal}]]"))


@property_test
@given(bad_decimals)
def test_any_bad_decimal(decimal: str) -> None:
    """What is none, or beyond the bounds, is none in any place."""
    for kind, field, value in (
        ("trade", "q", decimal),
        ("ticker", "c", decimal),
        ("depth", "a", f'[["1","2"],["1",{decimal}]]'),
    ):
        assert refusal(kind, changed(kind, field, value)).reason == DropReason.BAD_FIELD


@property_test
@given(st.lists(decimals | bad_decimals, max_size=5), st.sampled_from(("1", "2.50", "-.5")))
def test_many_levels_are_judged_as_few_are(tokens: list[str], good: str) -> None:
    """They are looked at together, which changes nothing about what is accepted."""
    few = [f'["{good}",{token}]' for token in tokens]
    many = [f'["{good}","{number}.25"]' for number in range(100)] + few
    verdicts = []
    for rows in (few, many, many[::-1]):
        try:
            read("depth", changed("depth", "a", f"[{','.join(rows)}]"))
            verdicts.append("good")
        except BadPublication as bad:
            verdicts.append(bad.reason)
    assert len(set(verdicts)) == 1


@st.composite
def damaged(draw: st.DrawFn, kind: str) -> bytes:
    """A good payload, bare or wrapped, in which some bytes were replaced, removed or inserted."""
    payload = draw(publications(kind))
    if draw(st.booleans()):
        payload = draw(wrapped(f"{kind}@{MARKET}", payload))
    raw = bytearray(payload.encode())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(raw)))
        noise = draw(
            st.binary(max_size=2) | st.sampled_from((b"\\", b'"', b"}", b"{", b",", b"\xff", b"1", b"[", b" "))
        )
        raw[at : at + draw(st.integers(0, 2))] = noise
    return bytes(raw)


def check_any(kind: str, payload: bytes) -> None:
    """`payload` is let through as a JSON object of its bytes, or refused for one of the known reasons."""
    try:
        taken: bytes | None = reader(kind).read(payload)
    except BadPublication as bad:
        taken, reason = bad.data, bad.reason
    else:
        reason = None
    assert reason in (None, *DropReason.ALL)
    assert taken is None or (taken in payload and is_json_object(taken))
    assert outcome(reader(kind).read, payload) == outcome(reader(kind)._read_carefully, payload)


def outcome(read: Callable[[bytes], bytes], payload: bytes) -> object:
    """What comes of `payload`: the quick way of reading and the careful one are to agree about it."""
    try:
        return read(payload)
    except BadPublication as bad:
        return bad.reason, bad.fault, bad.data


any_kind = st.sampled_from((*KINDS, "news"))


@property_test
@given(any_kind, st.binary())
def test_any_bytes(kind: str, payload: bytes) -> None:
    """Whatever is published, nothing but `BadPublication` escapes, and what goes out is JSON."""
    check_any(kind, payload)


@property_test
@given(st.data(), any_kind, kinds)
def test_any_damage(data: st.DataObject, kind: str, written: str) -> None:
    """The same for what was a publication once, of this kind or of another."""
    check_any(kind, data.draw(damaged(written)))


@property_test
@given(st.data(), any_kind, json_texts)
def test_any_envelope(data: st.DataObject, kind: str, content: str) -> None:
    """The same for envelopes with anything inside."""
    check_any(kind, data.draw(wrapped(f"{kind}@{MARKET}", content)).encode())


@property_test
@given(st.data(), any_kind, blanks)
def test_any_json(data: st.DataObject, kind: str, before: str) -> None:
    """Every JSON object can be forwarded by a lenient daemon, and no other JSON can."""
    members = [(key, text) for key, text in data.draw(further_members) if key != "stream"]
    text = before + data.draw(objects(members))
    if kind == "news":
        assert read(kind, text) == text.encode()
    else:
        assert refusal(kind, text).data == text.encode()
    bad = refusal(kind, f"[{text}]")
    assert (bad.reason, bad.data) == (DropReason.NOT_OBJECT, None)


@pytest.mark.parametrize("before", ["", " ", "\n  "])
@pytest.mark.parametrize("behind", ["", " ", "\n"])
def test_blanks_about_the_data_are_no_part_of_it(before: str, behind: str) -> None:
    """Where the rest of the envelope is as most encoders write it."""
    data = '{"e":"depth","a":[],"b":[]}'
    for blank in ("", " "):
        head = f'{{"stream":{blank}"depth@{MARKET}",{blank}"data":{blank}'
        assert reader("depth").read(f"{head}{before}{data}{behind}}}".encode()) == data.encode()


@pytest.mark.parametrize("blank", ["", " "])
@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_follows_an_engine_that_changes_its_layout(kind: str, blank: str) -> None:
    """From one payload to the next; each is read as it would be by itself."""
    data = {
        "trade": '{"e":"trade","t":1,"m":true,"p":"1","q":2,"s":"A"}',
        "depth": '{"e":"depth","a":[["1","2"]],"b":[]}',
        "ticker": '{"e":"ticker","c":"1","s":"A"}',
    }[kind]
    one = reader(kind)
    stream = f"{kind}@{MARKET}"
    good = [
        f'{{"stream":{blank}"{stream}",{blank}"data":{blank}{data}}}',
        data,
        f'{{"data":{data},"stream":"{stream}"}}',
    ]
    for text in good * 2:
        assert one.read(text.encode()) == data.encode()
        for bad in (text[:-1], text[:-1] + "x", text + "x", text[:-1] + ',"x":1}}'):
            assert outcome(one.read, bad.encode()) == outcome(one._read_carefully, bad.encode())


def nest(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize("kind", [*KINDS, "news"])
@pytest.mark.parametrize("siblings", ["", ',"y":[[],[]],"z":[[], []],"[":"]"', ',"{[\\"":[1,{"u":[]},{},[[]]]'])
@pytest.mark.parametrize("spread", ["{0}", "[{0},1]", '{{"u":{0}}}', '[["1","2"], {0}]'])
def test_nesting_about_the_limit(kind: str, siblings: str, spread: str) -> None:
    """32 levels of a payload are passed on, its envelope among them; and 33 are not, however the daemon reads them."""
    inner = 1 if spread == "{0}" else 2
    for levels in (MAX_NESTING - 1, MAX_NESTING, MAX_NESTING + 1):
        members = f',"x":{spread.format(nest(levels - inner))}{siblings}'
        data = GOOD.get(kind, '{"e":"news"}')[:-1] + members + "}"
        envelope = f'{{"stream":"{kind}@{MARKET}","data":{data}}}'
        for payload, depth in (
            (data, levels),
            (f" {data}", levels),
            (envelope, levels + 1),
            (f"{envelope} ", levels + 1),
        ):
            if depth <= MAX_NESTING:
                assert read(kind, payload).strip() == data.encode()
            else:
                bad = refusal(kind, payload)
                assert (bad.reason, bad.fault, bad.data) == (DropReason.NOT_JSON, TOO_DEEP, None)


def test_nesting_in_many_levels_of_a_book() -> None:
    """As many as fill a payload hide nothing."""
    book = json.dumps({"e": "depth", "a": [["1", "2"]] * 5000, "b": [[1, 2]] * 5000}, separators=(",", ":"))
    for depth in (MAX_NESTING - 1, MAX_NESTING):
        data = f'{book[:-1]},"x":{nest(depth)}}}'
        if depth < MAX_NESTING:
            assert read("depth", data) == data.encode()
        else:
            assert refusal("depth", data).fault == TOO_DEEP


@property_test
@given(st.data(), kinds, st.integers(0, 40), st.booleans())
def test_any_nesting(data: st.DataObject, kind: str, levels: int, wraps: bool) -> None:
    """Publications of any layout that hold a nest: the quick and the careful way agree, and keep to the limit."""
    text = data.draw(publications(kind)).rstrip()[:-1] + f',"nest":{nest(levels)}}}'
    if wraps:
        text = f'{{"stream":"{kind}@{MARKET}","data":{text}}}'
    one = reader(kind)
    assert outcome(one.read, text.encode()) == outcome(one._read_carefully, text.encode())
    if levels + 1 + wraps > MAX_NESTING:
        assert refusal(kind, text).fault == TOO_DEEP


def test_what_was_read_last_is_there_as_it_was_read() -> None:
    """Only of what is plainly written, and it is told apart from all else by the bytes themselves."""
    reader = PublicationReader(StreamKinds().parse("depth@A"), ("depth@A",), 1 << 20)
    plain = b'{"e":"depth","a":[["1","2"]],"b":[],"U":3,"u":4,"E":5}'
    for payload in (plain, b'{"stream":"depth@A","data":%b}' % plain):
        data = reader.read(payload)
        assert reader.data is data
        found: Any = reader.plain
        assert (found.a, found.b, found.U, found.u, found.E, found.T) == ([("1", "2")], [], 3, 4, 5, msgspec.UNSET)
    careful = '{"e":"depth","a":[],"b":[],"x":"ä"}'.encode()
    large = b'{"e":"depth","a":[%b],"b":[]}' % b",".join([b'["1","2"]'] * 400)
    for data in (careful, large):
        assert reader.read(data) is not reader.data
    with pytest.raises(BadPublication):
        reader.read(b'{"e":"depth"}')
    assert reader.data == plain
