"""The lines of `marketfeed watch`: what is told of each message, and what no message can do to a terminal."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfeed.commands.messages import Event, Message, Publication, Refusal, Reply, read_message
from marketfeed.commands.watch.display import COLOURS, show_event, show_publication, show_refusal
from tests.strategies import property_test

NOON = datetime(2026, 3, 4, 12, 0, 0, 5_000, tzinfo=UTC)
NOON_MS = 1772625600000


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def envelope(stream: str, **data: Any) -> bytes:
    return encode({"stream": stream, "data": data})


def line(payload: bytes, *, colour: bool = False) -> str:
    """What is shown of one message, on whichever stream."""
    message: Message = read_message(payload)
    match message:
        case Publication():
            return show_publication(message, NOON, colour=colour)
        case Event():
            return show_event(message, UTC)
        case Refusal():
            return show_refusal(message)
        case Reply():
            return ""


TRADE = b'{"stream":"trade@TATA_INR","data":{"e":"trade","t":1,"m":true,"p":"712.350","q":4.000,"s":"X"}}'


# Publications.


def test_trade() -> None:
    """A trade shows when it was received, the stream's market, price and quantity as spelled, and who was the taker."""
    assert line(TRADE) == "12:00:00.005  TATA_INR      trade          712.350           4.000  sell"


def test_trade_of_a_taker_who_bought() -> None:
    """Where the buyer is not the maker, the taker has bought."""
    assert line(TRADE.replace(b"true", b"false")).endswith("  buy")


@pytest.mark.parametrize("maker", [b"1", b'"true"', b"null", b"[]"])
def test_trade_without_a_side(maker: bytes) -> None:
    """A side is shown only where `m` is true or false."""
    assert line(TRADE.replace(b"true", maker)).endswith("  -")


def test_trade_without_an_envelope() -> None:
    """In the raw dialect the market is the data's own."""
    data = {"e": "trade", "m": False, "p": "1.50", "q": "2", "s": "INFY_INR"}
    assert line(encode(data)).split() == ["12:00:00.005", "INFY_INR", "trade", "1.50", "2", "buy"]


def test_trade_without_its_fields() -> None:
    """What is missing, or is no value at all, is a dash."""
    assert line(envelope("trade@A", e="trade", p=[1], q="")).split()[2:] == ["trade", "-", "-", "-"]


@pytest.mark.parametrize(
    ("stream", "market"),
    [
        ("depth@TATA_INR@100ms", "TATA_INR"),
        ("tata_inr@depth", "TATA_INR"),
        ("tata_inr@depth@1000ms", "TATA_INR"),
        ("depth@ticker", "ticker"),
        ("depth@", "-"),
    ],
)
def test_market_of_other_spellings(stream: str, market: str) -> None:
    """The market is found in every spelling of a stream's name."""
    assert line(envelope(stream, e="depth", a=[], b=[])).split()[1] == market


def test_depth() -> None:
    """A depth update shows the best changed level of each side, compared as decimals, and how many changed."""
    bids = [["99.5", "1"], ["100.10", "5"], ["9.9", "7"]]
    asks = [["101", "3"], [100.2, "2.0"]]
    assert line(envelope("depth@A", e="depthUpdate", b=bids, a=asks)) == (
        "12:00:00.005  A             depth   bid 100.10 x 5              ask 100.2 x 2.0             3 bids, 2 asks"
    )


def test_depth_of_a_level_that_is_gone() -> None:
    """A level without quantity is gone; a side without changes is a dash."""
    assert "bid 100 gone " in line(envelope("depth@A", e="depth", b=[["100", "0.00"]], a=[]))
    assert line(envelope("depth@A", e="depth", b=[["100", "0.00"]], a=[])).endswith("1 bid, 0 asks")
    assert "ask -  " in line(envelope("depth@A", e="depth", b=[], a=[]))


def test_depth_snapshot() -> None:
    """A snapshot says so."""
    assert line(envelope("depth@A", e="depth", b=[], a=[], snapshot=True)).endswith("0 bids, 0 asks, snapshot")


def test_depth_with_odd_levels() -> None:
    """What is no level is counted, and otherwise passed over."""
    odd = [None, [], ["1"], ["x", "1"], ["NaN", "1"], ["1e999999999999999999999", "1"], ["9" * 5000, "1"], [True, "1"]]
    shown = line(envelope("depth@A", e="depth", b=[*odd, ["7", "1"]], a="none"))
    assert "bid 7 x 1 " in shown
    assert shown.endswith("9 bids, 0 asks")


def test_ticker() -> None:
    """A ticker shows the price and the changes that it has."""
    assert line(envelope("ticker@A", e="24hrTicker", c="10.0", p="-0.50", P="-4.7")).split()[2:] == [
        "ticker",
        "10.0",
        "-0.50",
        "-4.7%",
    ]
    assert line(envelope("ticker@A", e="ticker", c="10.0", P=1.2)).split()[3:] == ["10.0", "+1.2%"]
    assert line(envelope("ticker@A", e="ticker", c="10.0", p="much")).endswith("          10.0")


@pytest.mark.parametrize(
    ("stream", "data", "words"),
    [
        (
            "kline_1m@TATA_INR",
            {"e": "kline", "k": {"i": "1m", "o": "1.0", "h": "3", "l": "1", "c": "2.50", "v": "7", "x": False}},
            "TATA_INR kline 1m open 1.0 high 3 low 1 close 2.50 vol 7, open",
        ),
        (
            "tata_inr@kline_1M",
            {"e": "kline", "k": {"i": "1M", "o": "1", "h": "3", "l": "1", "c": "2", "v": "7", "x": True}},
            "TATA_INR kline 1M open 1 high 3 low 1 close 2 vol 7, closed",
        ),
        (
            "miniTicker@TATA_INR",
            {"e": "24hrMiniTicker", "c": "2.50", "o": "1", "h": "3", "l": "1", "v": "7", "q": "9"},
            "TATA_INR miniTicker 2.50 open 1 high 3 low 1 vol 7",
        ),
        (
            "bookTicker@TATA_INR",
            {"e": "bookTicker", "u": 1, "b": "1000.35", "B": "31", "a": "1000.40", "A": "40"},
            "TATA_INR bookTicker bid 1000.35 x 31 ask 1000.40 x 40 spread 0.05",
        ),
        (
            "tata_inr@bookTicker",
            {"e": "bookTicker", "u": 1, "b": "0.00000000", "B": "0.00000000", "a": "1000.40", "A": "40"},
            "TATA_INR bookTicker bid - ask 1000.40 x 40",
        ),
        (
            "aggTrade@TATA_INR",
            {"e": "aggTrade", "a": 1, "p": "1.50", "q": "4", "f": 1, "l": 1, "T": 1, "m": True, "M": True},
            "TATA_INR aggTrade 1.50 4 sell",
        ),
        (
            "tata_inr@depth20@100ms",
            {"e": "depth20", "lastUpdateId": 1, "bids": [["1.5", "2"], ["1", "1"]], "asks": [["3", "4"]]},
            "TATA_INR depth20 bid 1.5 x 2 ask 3 x 4 2 bids, 1 ask",
        ),
        ("depth5@TATA_INR", {"e": "depth5", "bids": [], "asks": 1}, "TATA_INR depth5 bid - ask - 0 bids, 0 asks"),
        ("kline_1m@TATA_INR", {"e": "kline", "k": 1}, "TATA_INR kline - open - high - low - close - vol -, open"),
    ],
)
def test_what_is_made_of_an_engines_streams(stream: str, data: dict[str, Any], words: str) -> None:
    """Each has its columns, in every spelling of its name."""
    assert line(envelope(stream, s="X", **data)).split()[1:] == words.split()


@pytest.mark.parametrize("is_raw", [True, False])
def test_all_markets_at_once(is_raw: bool) -> None:
    """Each is a line, with its own market."""
    rows = [{"e": "24hrMiniTicker", "s": market, "c": "1", "o": "1", "h": "1", "l": "1"} for market in ("A", "B")]
    message = read_message(encode(rows if is_raw else {"stream": "!miniTicker@arr", "data": rows}))
    assert isinstance(message, Publication)
    shown = [show_publication(each, NOON).split()[1:4] for each in message.each]
    assert shown == [["A", "miniTicker", "1"], ["B", "miniTicker", "1"]]


def test_prices_that_are_too_far_apart() -> None:
    """What Python does not reckon is left out."""
    assert "spread" not in line(
        envelope("bookTicker@A", e="bookTicker", b="-9E999999999999999999", a="9E999999999999999999")
    )
    assert "spread" not in line(envelope("bookTicker@A", e="bookTicker", b="-9E+999999", a="9E+999999"))


def test_unknown_kind() -> None:
    """A kind that this client does not know is compact JSON, in the engine's spelling."""
    payload = b'{"stream": "funding@A", "data": {"e": "funding",\n "r": 0.00010, "n": [1, 2]}}'
    assert line(payload) == '12:00:00.005  funding@A  {"e":"funding","r":0.00010,"n":[1,2]}'
    assert line(b' {"e" : "funding"} ') == '12:00:00.005  {"e":"funding"}'


@pytest.mark.parametrize("text", ["", "no json", "[1,2]", '"text"', "{", "{}", "NaN", "[" * 100_000])
def test_other_texts(text: str) -> None:
    """What is no JSON object is shown as it is, shortened."""
    assert line(text.encode()).startswith(f"12:00:00.005  {text[:1000]}")


def test_long_text_is_shortened() -> None:
    """A line has an end, whatever is sent."""
    assert line(b"x" * 1_000_000).endswith("xx…")
    assert len(line(b"x" * 1_000_000)) < 2100
    assert len(line(TRADE.replace(b"712.350", b"7" * 1_000_000))) < 200


def test_colours() -> None:
    """A sale is red, a purchase green, the time dim; colours do not change the columns."""
    sale, purchase = line(TRADE, colour=True), line(TRADE.replace(b"true", b"false"), colour=True)
    assert sale.endswith("\x1b[31msell\x1b[0m")
    assert purchase.endswith("\x1b[32mbuy\x1b[0m")
    assert sale.startswith("\x1b[2m12:00:00.005\x1b[0m  TATA_INR")
    fall = line(envelope("ticker@A", e="ticker", c="1", p="-1E-5"), colour=True)
    rise = line(envelope("ticker@A", e="ticker", c="1", p="1E-5"), colour=True)
    assert "\x1b[31m" in fall
    assert "\x1b[32m" in rise


@pytest.mark.parametrize(
    "payload",
    [
        TRADE,
        envelope("depth@A", e="depth", b=[["1", "2"]], a=[["3", "0"]]),
        envelope("ticker@A", e="ticker", c="1", p="2", P="3"),
        envelope("ticker@A", e="ticker", c="1"),
        envelope("funding@A", e="funding"),
    ],
)
def test_colours_change_nothing_else(payload: bytes) -> None:
    """Without its codes a coloured line is the line without colours."""
    assert without_colours(line(payload, colour=True)) == line(payload)


# Everything else that a server says.


@pytest.mark.parametrize(
    "payload",
    [
        envelope("!error", e="error", code=2, msg="bad stream name 'x'", id=1),
        encode({"error": {"code": 2, "msg": "bad stream name 'x'"}, "id": 1}),
    ],
)
def test_refusal(payload: bytes) -> None:
    """So is an error, and its code and message are shown."""
    assert line(payload) == "error 2: bad stream name 'x'"


def test_refusal_without_a_message() -> None:
    """An error that says nothing is still an error."""
    assert line(encode({"error": {}})) == "error -: -"


def test_gap() -> None:
    """A gap names the streams, since when, and why."""
    data = {"e": "gap", "streams": ["trade@A", "depth@A"], "reason": "source-down", "from": NOON_MS, "to": None}
    told = "gap: trade@A, depth@A: what is published since 12:00:00 may be missing (source-down)"
    assert line(envelope("!gap", **data)) == told
    assert line(encode(data)) == told


def test_gap_that_is_closed() -> None:
    """The second event of a gap says until when, and a long list of streams is shortened."""
    streams = [f"trade@{number}" for number in range(9)]
    data = {"e": "gap", "streams": streams, "reason": "source-down", "from": NOON_MS, "to": NOON_MS + 60_000}
    assert line(envelope("!gap", **data)) == (
        "gap closed: trade@0, trade@1, trade@2, trade@3, trade@4 and 4 more: "
        "what was published from 12:00:00 to 12:01:00 may be missing (source-down)"
    )


@pytest.mark.parametrize("moment", ["soon", "9" * 30, "9" * 5000, "-" + "9" * 18, 1e400, [], {}, True])
def test_gap_at_an_odd_moment(moment: Any) -> None:
    """A time that is none does no harm."""
    assert line(envelope("!gap", e="gap", to=moment, **{"from": moment})).startswith("gap closed: : ")


def test_shutdown() -> None:
    """A shutdown says how long to stay away, and the same is there for the back-off, in seconds."""
    payload = envelope("!serverShutdown", e="serverShutdown", E=NOON_MS, reconnectAfter=2500)
    event = read_message(payload)
    assert isinstance(event, Event)
    assert event.reconnect_after == 2.5
    assert line(payload) == "the server is shutting down; it asks to stay away for 2.5 s"


@pytest.mark.parametrize("after", [None, "soon", [], True])
def test_shutdown_without_a_hint(after: Any) -> None:
    """A hint that is none is none."""
    event = read_message(encode({"e": "serverShutdown", "reconnectAfter": after}))
    assert isinstance(event, Event)
    assert event.reconnect_after is None
    assert show_event(event, UTC) == "the server is shutting down"


def test_other_events() -> None:
    """Events that this client does not know are shown as they are."""
    assert line(envelope("!expiring", e="expiring", E=1)) == 'event expiring: {"e":"expiring","E":1}'


# What no server can do.


def without_colours(text: str) -> str:
    for code in COLOURS.values():
        text = text.replace(code, "")
    return text


@pytest.mark.parametrize("bad", ["\x1b[2J", "\x07", "\r", "\n", "\x7f", "\x9b31m", "\u202e", "\u2028", "\x00"])
def test_control_characters(bad: str) -> None:
    """Whatever moves a cursor, rings a bell, or turns text around is replaced wherever it stands."""
    payloads = [
        envelope(f"trade@A{bad}", e="trade", p=f"1{bad}", q=bad, m=True),
        envelope(f"funding@A{bad}", e="funding", x=bad),
        envelope(f"!x{bad}", e="x", x=bad),
        envelope("!gap", e="gap", streams=[bad], reason=bad, to=bad),
        envelope("!quality", e="quality", streams=[bad], level=bad, E=bad),
        envelope("!error", e="error", code=bad, msg=bad),
        f"text {bad}".encode(),
        json.dumps({"e": "funding", "x": bad}, ensure_ascii=False).encode(),
    ]
    for payload in payloads:
        assert line(payload).isprintable()
        assert without_colours(line(payload, colour=True)).isprintable()


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["1.0", "\x1b[2J"])
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
fields = st.sampled_from(
    ["s", "m", "p", "q", "c", "P", "a", "b", "snapshot", "code", "msg", "id", "reason", "from", "to"]
)


def test_quality() -> None:
    """Whether the client reads as fast as is published, and of which streams."""
    data = {"e": "quality", "streams": ["ticker@A", "depth@A"], "E": NOON_MS}
    told = line(envelope("!quality", **data, level="thinned"))
    assert told == (
        "quality: ticker@A, depth@A: since 12:00:00 something is left out or merged, for this client reads too slowly"
    )
    live = line(envelope("!quality", **data, level="live"))
    assert live == "quality: ticker@A, depth@A: since 12:00:00 everything comes again"
    odd = line(envelope("!quality", e="quality", level=[1]))
    assert odd.startswith("quality: : since ")


names = st.sampled_from(
    ["trade", "depthUpdate", "24hrTicker", "gap", "quality", "serverShutdown", "expiring", "reply", "error"]
)
levels = st.lists(st.lists(values, max_size=3) | values, max_size=4)
data = st.builds(
    lambda members, name, some: {**members, **({"e": name} if name else {}), **some},
    st.dictionaries(fields | st.text(), values, max_size=6),
    names | st.none(),
    st.fixed_dictionaries({}, optional={"a": levels, "b": levels, "streams": values, "reconnectAfter": values}),
)
streams = names.map("{}@A".format) | names.map("!{}".format) | st.text()
messages = st.one_of(
    data,
    st.fixed_dictionaries({"stream": streams | values, "data": data | values}),
    st.fixed_dictionaries({"error": data | values}, optional={"id": values}),
    values,
)
payloads = st.one_of(
    st.binary(),
    st.text().map(lambda text: text.encode("utf-8", "surrogatepass")),
    messages.map(encode),
    messages.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")),
)


@property_test
@given(payloads)
@example(encode({"e": "serverShutdown", "reconnectAfter": "1E+999999999"}))
@example(encode({"e": "trade", "s": "\ud800"}))
@example(b'{"data":' * 50_000)
def test_any_bytes_become_one_harmless_line(payload: bytes) -> None:
    """Whatever a server sends is read and shown without an exception, on one line of bounded length, all printable."""
    for colour in (False, True):
        shown = line(payload, colour=colour)
        assert without_colours(shown).isprintable()
        assert len(shown) < 3000


@property_test
@given(st.from_regex(r"-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,15})?([eE][+-]?[0-9]{1,3})?", fullmatch=True))
def test_numbers_keep_their_spelling(number: str) -> None:
    """A price is shown as the engine wrote it, whether a string or a number, to the last zero."""
    for spelled in (number, f'"{number}"'):
        assert line(f'{{"e":"trade","s":"A","m":true,"p":{spelled},"q":1}}'.encode()).split()[3] == number
