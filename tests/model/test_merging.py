"""Messages about candles, and about many markets, merged for who is slow: what is left says the same in the end."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.hub.counted_history import CountedHistory
from marketfeed.hub.groups import Group
from marketfeed.hub.histories import Histories
from marketfeed.hub.stream import LiveStream
from marketfeed.model.kinds.kind import StreamKind
from marketfeed.model.kinds.kline import INTERVALS, KLINES, kline_of
from marketfeed.model.kinds.mini_ticker import ALL_MINI_TICKERS, MINI_TICKER
from marketfeed.model.merging import CandleMessage, MarketsMessage
from marketfeed.model.publications import BadPublication, PublicationReader
from marketfeed.model.state import MarketsState
from marketfeed.model.streams import BadStreamName, StreamKinds
from marketfeed.websocket.backlog import Backlog
from marketfeed.wire.dialects import Shape
from tests.fakes import payloads
from tests.strategies import property_test

ROOM = 1 << 20
KINDS = StreamKinds((*KLINES, MINI_TICKER, ALL_MINI_TICKERS))


def group_of(kind: StreamKind, market: str) -> Group:
    """A group of a stream of its own."""
    name = KINDS.parse(f"{kind.name}@{market}")
    history = CountedHistory(Histories(1000, 300, 1 << 20), "epoch")
    stream = LiveStream(str(name), PublicationReader(name, (str(name),), 1 << 20), kind, history)
    return stream.group(str(name), Shape.DATA, 0, False)


def kline(number: int, close: int, closed: bool) -> bytes:
    candle = {"t": number, "T": number, "i": "1m", "o": "1", "c": str(close), "h": "9", "l": "1", "v": "5", "x": closed}
    return json.dumps({"e": "kline", "s": "A", "k": candle}).encode()


def row(market: str, close: int) -> dict[str, str]:
    rest = dict.fromkeys("ohlvq", "1")
    return {"e": "24hrMiniTicker", "s": market, "c": str(close), **rest}


def array(rows: list[tuple[str, int]]) -> bytes:
    return json.dumps([row(*each) for each in rows]).encode()


def after(group: Group, published: list[bytes]) -> list[Any]:
    """What a client gets of all that, who was behind."""
    backlog = Backlog()
    for data in published:
        assert backlog.add(group, group.framed(data, ""), ROOM)
    size, taken = backlog.size, backlog.take(ROOM)
    assert len(taken) <= size
    return [json.loads(payload) for payload in payloads(taken)]


@property_test
@given(st.lists(st.integers(0, 3), max_size=12))
def test_every_closed_candle_comes_and_of_the_open_one_the_newest(counts: list[int]) -> None:
    """Each is published some times while it is open, and once when it is closed; the last one is open yet."""
    published = []
    for number, count in enumerate(counts):
        published += [kline(number, close, False) for close in range(count)]
        if number < len(counts) - 1:
            published.append(kline(number, 100, True))
    got = [(each["k"]["t"], each["k"]["c"], each["k"]["x"]) for each in after(group_of(KLINES[1], "A"), published)]
    closed = [(number, "100", True) for number in range(len(counts) - 1)]
    is_open = [(len(counts) - 1, str(count - 1), False) for count in counts[-1:] if count]
    assert got == closed + is_open


@property_test
@given(st.lists(st.lists(st.tuples(st.sampled_from("ABCDE"), st.integers(0, 99)), min_size=1), max_size=8))
def test_of_many_markets_the_newest_of_each_comes(published: list[list[tuple[str, int]]]) -> None:
    """In one message, and so has the state of the stream, which was seeded with others before or meanwhile."""
    newest = {market: str(close) for rows in published for market, close in rows}
    messages = after(group_of(ALL_MINI_TICKERS, "arr"), [array(rows) for rows in published])
    assert len(messages) <= 1
    assert {each["s"]: each["c"] for message in messages for each in message} == newest
    for seeded_at in range(len(published) + 1):
        state = MarketsState()
        for number, rows in enumerate(published):
            if number == seeded_at:
                assert state.seed(array([("A", 1000), ("Z", 7)]))
            assert not state.record(array(rows))
        assert state.is_complete == (seeded_at < len(published)) != state.is_wanting
        assert state.is_complete or state.seed(array([("A", 1000), ("Z", 7)]))
        held = {each["s"]: each["c"] for each in json.loads(state.snapshot() or b"")}
        assert (
            held
            == {"A": "1000", "Z": "7"}
            | {market: str(close) for r in published[seeded_at:] for market, close in r}
            | newest
        )


def test_a_state_of_many_markets_is_lost_with_the_link() -> None:
    """Until it is seeded anew."""
    state = MarketsState()
    state.record(array([("A", 1)]))
    assert state.snapshot() is None
    state.seed(array([("B", 2)]))
    state.lose()
    assert (state.snapshot(), state.is_complete) == (None, False)
    state.seed(array([("C", 3)]))
    assert json.loads(state.snapshot() or b"") == [row("C", 3)]


def test_no_market_is_a_state_that_says_nothing() -> None:
    """What comes from then on is all that there is."""
    state = MarketsState()
    state.seed(b"[]")
    assert (state.is_complete, state.snapshot()) == (True, None)
    state.record(array([("A", 1)]))
    assert json.loads(state.snapshot() or b"") == [row("A", 1)]


def test_copies_are_apart() -> None:
    """What is shared by many clients stays as it is."""
    candle, markets = CandleMessage.parse(kline(1, 1, False)), MarketsMessage.parse(array([("A", 1)]))
    first, second = candle.copy(), markets.copy()
    first.take(CandleMessage.parse(kline(1, 2, True)))
    second.take(MarketsMessage.parse(array([("A", 2), ("B", 3)])))
    assert json.loads(candle.to_bytes())["k"]["c"] == "1"
    assert json.loads(markets.to_bytes()) == [row("A", 1)]
    assert not first.can_take(candle)
    assert candle.can_take(first)


@pytest.mark.parametrize("data", [b"{}", b'{"k":{}}', b'{"k":{"x":1}}', b"[]"])
def test_what_is_no_candle_cannot_be_read(data: bytes) -> None:
    """It waits as it is."""
    with pytest.raises(msgspec.MsgspecError):
        CandleMessage.parse(data)


def test_their_names() -> None:
    """A month is not a minute; the stream of all markets is one, and is spelled in one way; candles have no rates."""
    assert [str(KINDS.parse(f"a_b@kline_{interval}")) for interval in ("1m", "1M")] == ["kline_1m@A_B", "kline_1M@A_B"]
    assert kline_of("1M").name == "kline_1M"
    assert len({kind.name for kind in KLINES}) == len(INTERVALS) == 16
    name = KINDS.parse("!miniTicker@arr@1000ms")
    assert (str(name), name.rate) == ("!miniTicker@arr", 1000)
    for bad in ("!miniTicker@A", "arr@!miniTicker", "kline_2m@A", "kline_1m@A@1000ms"):
        with pytest.raises(BadStreamName):
            KINDS.parse(bad)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("kline_1m@A", kline(1, 1, False), b'{"e":"kline","s":"A","k":{}}'),
        ("miniTicker@A", json.dumps(row("A", 1)).encode(), b'{"e":"24hrMiniTicker","s":"A"}'),
        ("!miniTicker@arr", array([("A", 1)]), b'[{"s":"A"}]'),
    ],
)
def test_what_they_require(name: str, good: bytes, bad: bytes) -> None:
    """As it is, or wrapped."""
    parsed = KINDS.parse(name)
    reader = PublicationReader(parsed, (name,), 1 << 20)
    assert reader.read(good) == good
    assert reader.read(b'{"stream":"%b","data":%b}' % (name.encode(), good)) == good
    with pytest.raises(BadPublication):
        reader.read(bad)


def test_how_they_are_shown() -> None:
    """`marketfeed watch` has a line for each."""
    candle = json.loads(kline(1, 2, True))
    shown = [column.text.split() for column in KLINES[1].columns(candle)] if KLINES[1].columns else []
    assert shown == [["1m"], ["open", "1", "high", "9", "low", "1", "close", "2"], ["vol", "5,", "closed"]]
    assert MINI_TICKER.columns is not None
    assert [column.side for column in MINI_TICKER.columns(row("A", 0))] == ["sell", "", ""]
