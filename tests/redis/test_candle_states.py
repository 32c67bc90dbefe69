"""What a subscriber of candles gets first, made of what the candle service keeps."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.candle_store import CandleKeys
from marketfeed.model.candles import MarketCandles
from marketfeed.model.intervals import Calendar
from marketfeed.model.kinds.kline import INTERVALS
from marketfeed.model.publications import PublicationReader
from marketfeed.model.streams import StreamKinds
from marketfeed.redis.candle_states import CandlePlaces
from marketfeed.redis.snapshots import StatePlace
from tests.model.test_candles import trade
from tests.strategies import json_values, property_test

NOW = 1_706_140_800_000
KINDS = StreamKinds()
ELSEWHERE = StatePlace(b"elsewhere", ("GET", b"elsewhere"), lambda reply: reply)
TICKER = {**dict.fromkeys("cohlvq", "1"), **dict.fromkeys("pPwxQ", "2"), "E": 5, "s": "A_B", "e": "24hrTicker"}


def place(stream: str, now: int = NOW, calendar: Calendar | None = None) -> StatePlace:
    places = CandlePlaces(CandleKeys("md:"), calendar or Calendar(), lambda _: ELSEWHERE, lambda: now / 1000)
    return places(stream)


def written(*times: int, now: int = NOW) -> list[bytes]:
    """What the service keeps at `now` of a market with a trade at each of `times`."""
    candles = MarketCandles(Calendar(), NOW)
    for number, time in enumerate(times, 1):
        candles.take(trade(number, time, str(number), "3"), time)
    candles.pass_time(now)
    return [msgspec.json.encode(each) for each in (candles.written(), candles.unwritten())]


def is_good(stream: str, state: bytes) -> bool:
    return PublicationReader(KINDS.parse(stream), (stream,), 1 << 20).read(state) == state


def candle(stream: str, reply: list[bytes], now: int = NOW) -> dict[str, Any]:
    """The state of the stream, which has to be good for it."""
    state = place(stream, now).read(reply)
    assert state is not None
    assert is_good(stream, state)
    found: dict[str, Any] = json.loads(state)["k"]
    return found


def test_where_it_is() -> None:
    """In the keys that the service writes; of any other stream, where an engine keeps it."""
    assert place("kline_1M@A_B")[:2] == (
        b"md:candles:{A_B}:state",
        ("HMGET", b"md:candles:{A_B}:state", "candles", "longer"),
    )
    assert place("miniTicker@A_B")[:2] == (b"md:candles:tickers", ("HGET", b"md:candles:tickers", "A_B"))
    assert place("!miniTicker@arr")[:2] == (b"md:candles:tickers", ("HVALS", b"md:candles:tickers"))
    for stream in ("depth@A_B", "kline_2m@A_B", "kline@A_B", "miniTickers@A_B", "ticker@A_B"):
        assert place(stream) is ELSEWHERE


def test_the_open_candle() -> None:
    """As it is at the moment."""
    found = candle("kline_1m@A_B", written(NOW + 5, NOW + 9))
    assert (found["s"], found["i"], found["t"], found["T"]) == ("A_B", "1m", NOW, NOW + 59_999)
    assert (found["o"], found["c"], found["v"], found["n"], found["f"], found["L"]) == ("1", "2", "6", 2, 1, 2)
    assert found["x"] is False


@pytest.mark.parametrize("interval", INTERVALS)
def test_a_period_without_trades(interval: str) -> None:
    """Flat, at the last price, with ids of -1; and it is that of now."""
    calendar = Calendar()
    later = calendar.next(interval, calendar.next(interval, calendar.start(interval, NOW)))
    found = candle(f"kline_{interval}@A_B", written(NOW, now=later), later)
    assert (found["t"], found["T"] + 1) == (later, calendar.next(interval, later))
    assert [found[name] for name in "ochl"] == ["1"] * 4
    assert [found[name] for name in ("v", "q", "V", "Q", "n", "f", "L")] == ["0", "0", "0", "0", 0, -1, -1]


def test_the_last_day_of_a_market() -> None:
    """What is short of what is kept of it."""
    state = place("miniTicker@A_B").read(msgspec.json.encode(TICKER))
    assert state is not None
    assert is_good("miniTicker@A_B", state)
    assert json.loads(state) == {"e": "24hrMiniTicker", "E": 5, "s": "A_B", **dict.fromkeys("cohlvq", "1")}


def test_the_last_day_of_all() -> None:
    """One that somebody else has put there is in nobody's way."""
    rows = [msgspec.json.encode(each) for each in (TICKER, {"c": "1"}, 7, {**TICKER, "s": "C_D"})]
    state = place("!miniTicker@arr").read([*rows, b"\xff"])
    assert state is not None
    assert is_good("!miniTicker@arr", state)
    assert [each["s"] for each in json.loads(state)] == ["A_B", "C_D"]


def test_what_nobody_has_traded() -> None:
    """There is no state of it, but that of all markets is known: there are none."""
    assert place("kline_1m@A_B").read([None, None]) is None
    assert place("kline_1m@A_B").read(written()) is None
    assert place("miniTicker@A_B").read(None) is None
    assert place("!miniTicker@arr").read([]) == b"[]"


spoilt = json_values.map(msgspec.json.encode) | st.binary(max_size=30)
rows = st.lists(st.integers() | st.text("1.x"), max_size=13)
ends = st.tuples(st.integers(), st.text("1.x"))
short = st.fixed_dictionaries(
    {},
    optional={
        "open": st.none() | rows,
        "run": st.none() | rows,
        "until": st.none() | ends,
        "last": st.none() | st.lists(st.integers() | st.text("1.x"), max_size=6),
    },
).map(msgspec.json.encode)
longer = st.fixed_dictionaries(
    {},
    optional={
        "open": st.dictionaries(st.sampled_from(("1m", "1M")), rows),
        "until": st.dictionaries(st.sampled_from(("1m", "1M")), ends),
    },
).map(msgspec.json.encode)


@property_test
@given(
    st.tuples(
        st.sampled_from(("kline_1s@A_B", "kline_1m@A_B", "kline_1M@A_B")),
        st.tuples(st.none() | spoilt | short, st.none() | spoilt | longer),
    )
    | st.tuples(st.just("miniTicker@A_B"), spoilt)
)
def test_what_cannot_be_used(case: tuple[str, Any]) -> None:
    """It is refused with a reason, or makes a state; there is no other failure."""
    stream, reply = case
    try:
        state = place(stream).read(reply)
    except ValueError:
        return
    assert state is None or isinstance(json.loads(state), dict)
