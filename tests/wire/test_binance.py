"""Payloads as clients made for Binance read them, however the engine writes them."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.book import Difference
from marketfeed.model.spelling import ZERO, PriceSpelling
from marketfeed.wire.binance import DepthPayloads, Moment, agg_trade, trade
from marketfeed.wire.binance_ticker import TickerPayloads
from marketfeed.wire.ticker_fields import TICKER_FIELDS
from tests.strategies import property_test

MARKET = b'"A"'
MOMENT = Moment(1_000, 5_000_007, 5_000_003)

amounts = st.sampled_from(['"0"', '"0.0"', "0", "1.50", '"2"', f'"{ZERO}"'])
rows = st.lists(st.tuples(st.sampled_from(['"1.5"', '"1.50"', "1.5", '"2"', '"300"']), amounts), max_size=4)
layouts = st.sampled_from([("", ""), (" ", ""), ("", " "), ("\n", "\t")])


def written(members: dict[str, str], layout: tuple[str, str]) -> bytes:
    before, behind = layout
    text = f",{behind}".join(f'"{name}":{behind}{value}' for name, value in members.items())
    return f"{before}{{{text}}}{behind}".encode()


def side(levels: list[tuple[str, str]], layout: tuple[str, str]) -> str:
    between = f",{layout[1]}"
    return f"[{between.join(f'[{price}{between}{quantity}]' for price, quantity in levels)}]"


@st.composite
def depths(draw: st.DrawFn) -> bytes:
    """A depth message, its members in any order, some with what makes it hard to read at a glance."""
    layout = draw(layouts)
    members = {"e": draw(st.sampled_from(['"depth"', '"depthUpdate"']))}
    members["a"], members["b"] = side(draw(rows), layout), side(draw(rows), layout)
    for name, values in (
        ("E", ["7", "null"]),
        ("T", ["8", "null"]),
        ("s", ['"B"', "null"]),
        ("U", ["3", "null", '"3"']),
        ("u", ["4", "4.5"]),
        ("x", ['[["1","0"]]', '{"e":"depth"}', '"\\",\\"0\\"]"', '",0"']),
        ("snapshot", ["true", "false", "1"]),
    ):
        value = draw(st.none() | st.sampled_from(values))
        if value is not None:
            members[name] = value
    first = ["e"] if draw(st.booleans()) else []
    order = first + draw(st.permutations([name for name in members if name not in first]))
    return written({name: members[name] for name in order}, layout)


def good(found: Any, name: str) -> bool:
    return found.get(name) is not None


@property_test
@given(depths(), st.sampled_from([None, ([], []), (["7.0"], ["1.50", "6"])]))
def test_depth(data: bytes, gone: Any) -> None:
    payloads, engine = DepthPayloads(MARKET, PriceSpelling()), json.loads(data)
    made = payloads.update(data, MOMENT, gone)
    found = json.loads(made)
    assert payloads.update(made, MOMENT, None) is made or engine.get("snapshot") is True
    assert found["e"] == "depthUpdate"
    assert found["E"] == (engine["E"] if good(engine, "E") else engine["T"] if good(engine, "T") else MOMENT.at)
    assert found["s"] == (engine["s"] if good(engine, "s") else "A")
    has_ids = type(engine.get("U")) is int and type(engine.get("u")) is int
    is_snapshot = engine.get("snapshot") is True
    if has_ids:
        assert (found["U"], found["u"]) == (engine["U"], engine["u"])
    elif is_snapshot and gone is None:
        assert found["U"] == found["u"] == MOMENT.number
    else:
        assert (found["U"], found["u"]) == (MOMENT.previous + 1, MOMENT.number)  # type: ignore[operator]
    spellings: dict[Decimal, set[str]] = {}
    for name, at in (("a", 0), ("b", 1)):
        zeros = gone[at] if is_snapshot and gone is not None else []
        expected = [[Decimal(str(p)), Decimal(str(q))] for p, q in [*engine[name], *([price, 0] for price in zeros)]]
        assert [[Decimal(p), Decimal(q)] for p, q in found[name]] == expected
        assert all(type(text) is str for level in found[name] for text in level)
        assert all(q == ZERO for _, q in found[name] if not Decimal(q))
        for price, _ in found[name]:
            spellings.setdefault(Decimal(price), set()).add(price)
    assert all(len(texts) == 1 for texts in spellings.values())
    others = set(engine) - {"e", "E", "s", "U", "u", "a", "b"}
    assert {name: found[name] for name in others} == {name: engine[name] for name in others}


@property_test
@given(st.dictionaries(st.sampled_from(["E", "T", "s", "M", "x"]), st.sampled_from(["1", "null"])), layouts)
def test_trades(members: dict[str, str], layout: tuple[str, str]) -> None:
    engine = {"e": '"trade"', "t": "1", "p": '"1.50"', "q": "2.0", "m": "true", **members}
    data = written(engine, layout)
    given_ones = {name for name in ("E", "T", "s", "M") if members.get(name, "null") != "null"}
    expected = json.loads(data)
    expected["E"] = expected["E"] if "E" in given_ones else expected.get("T") or MOMENT.at
    expected["T"] = expected["T"] if "T" in given_ones else expected["E"]
    expected["s"] = expected["s"] if "s" in given_ones else "A"
    expected["M"] = expected["M"] if "M" in given_ones else True
    made = trade(data, MARKET, MOMENT.at)
    assert json.loads(made) == expected
    assert (made is data) == (given_ones == {"E", "T", "s", "M"})
    single = json.loads(agg_trade(data, MARKET, MOMENT.at))
    assert list(single) == ["e", "E", "s", "a", "p", "q", "f", "l", "T", "m", "M"]
    assert {name: single[name] for name in "EsTpqm"} == {name: expected[name] for name in "EsTpqm"}
    assert single["a"] == single["f"] == single["l"] == 1


@property_test
@given(st.sets(st.sampled_from(TICKER_FIELDS)), st.sampled_from(['"ticker"', '"24hrTicker"']), layouts)
def test_tickers(names: set[str], event: str, layout: tuple[str, str]) -> None:
    data = written({"e": event, "c": '"110"', "s": '"A"', **dict.fromkeys(names, '"100"')}, layout)
    found = json.loads(TickerPayloads(MARKET).update(data, MOMENT.at, {}))
    assert found.keys() == {"e", "E", "c", "s", *TICKER_FIELDS}
    assert (found["e"], found["E"]) == ("24hrTicker", MOMENT.at)
    assert all(found[name] == "100" for name in names)
    if not {"p", "o"} & names:
        assert (found["p"], found["P"] if "P" not in names else "0.000") == (ZERO, "0.000")
    elif "p" not in names:
        assert found["p"] == "10"
    elif "o" not in names:
        assert found["o"] == "10"


@pytest.mark.parametrize(
    "data",
    [
        *(b"{}", b" { } ", b"[]", b"1", b"", b"{", b'{"e":1}', b"[" * 5000, b'{"e":"depth","a":1,"b":2}'),
        *(b'{"e":"depth","a":[["x","1"]],"b":[]}', b'{"e":"ticker","c":"x"}', b'{"e":"ticker","c":{}}'),
        b'{"e":"ticker","c":"1e90","o":"1e-90"}',
    ],
)
def test_nothing_raises(data: bytes) -> None:
    """What is nothing that these clients could read is passed on, or as good as can be."""
    payloads = DepthPayloads(MARKET, PriceSpelling())
    for made in (
        trade(data, MARKET, MOMENT.at),
        agg_trade(data, MARKET, MOMENT.at),
        payloads.update(data, MOMENT),
        payloads.update(data, MOMENT, ([], [])),
        TickerPayloads(MARKET).update(data, MOMENT.at, {}),
    ):
        assert made is data or isinstance(json.loads(made), dict)


@pytest.mark.parametrize("blank", [b"", b" "])
@pytest.mark.parametrize("time", ['"2026-11-29T07:00:00Z"', '"1790000000000"', "1.79e12", "[1]", "true"])
def test_a_time_that_is_no_number_of_ms_stands_for_no_other(time: str, blank: bytes) -> None:
    """It stays as it is, and all else is made good as ever, however the message is written."""

    def made(name: str) -> list[dict[str, Any]]:
        given = b',"%b":%b}' % (name.encode(), time.encode())
        a_trade = b'{%b"e":"trade","t":1,"m":true,"p":"1","q":"2","s":"A"%b' % (blank, given)
        a_depth = b'{%b"e":"depth","a":[["1","0"]],"b":[]%b' % (blank, given)
        of_depth = DepthPayloads(MARKET, PriceSpelling())
        a_ticker = TickerPayloads(MARKET).update(b'{%b"e":"ticker","c":"1"%b' % (blank, given), MOMENT.at, {})
        trades = trade(a_trade, MARKET, MOMENT.at), agg_trade(a_trade, MARKET, MOMENT.at)
        return [json.loads(each) for each in (*trades, of_depth.update(a_depth, MOMENT), a_ticker)]

    for found in made("T"):
        assert (found["E"], found["T"]) == (MOMENT.at, json.loads(time))
        assert found["e"] in ("trade", "aggTrade", "depthUpdate", "24hrTicker")
    for found in made("E"):
        assert found["E"] == json.loads(time)
        assert found["e"] in ("trade", "aggTrade", "depthUpdate", "24hrTicker")
        assert found.get("T", MOMENT.at) == MOMENT.at


def test_an_update_without_ids_among_others_goes_on_from_the_last_one() -> None:
    payloads = DepthPayloads(MARKET, PriceSpelling())
    found = json.loads(payloads.update(b'{"e":"depth","a":[],"b":[]}', Moment(1, 2_000, 1_000, 160)))
    assert (found["U"], found["u"]) == (161, 160)


@property_test
@given(st.lists(st.tuples(st.booleans(), rows), min_size=2, max_size=6))
def test_merged_differences_make_the_same_book(messages: list[tuple[bool, list[tuple[str, str]]]]) -> None:
    """Snapshots among them; and who replaces a book by what says `snapshot` has the same as well."""
    prices = PriceSpelling()
    payloads = DepthPayloads(MARKET, prices)
    book: dict[str, str] = {}
    begun = {prices["9"]: "9"}  # what the client has
    kept = dict(begun)
    merged = None
    for number, (is_snapshot, levels) in enumerate(messages, 10):
        text = json.dumps({"e": "depth", "a": json.loads(side(levels, ("", ""))), "b": []})
        data = (text[:-1] + (',"snapshot":true}' if is_snapshot else "}")).encode()
        engine = {prices.of(str(p)): str(q) for p, q in json.loads(text)["a"]}
        gone = [price for price in {**begun, **book} if price not in engine] if is_snapshot else None
        made = payloads.update(data, Moment(1, number, number - 1), None if gone is None else (gone, []))
        for price, quantity in json.loads(made)["a"]:
            book.pop(price, None)
            kept.pop(price, None)
            if quantity != ZERO:
                book[price] = kept[price] = quantity
        difference = Difference.parse(made)
        if merged is None:
            merged = difference
        else:
            assert merged.can_take(difference)
            merged.take(difference)
    assert merged is not None
    whole = json.loads(merged.to_bytes())
    assert (whole["U"], whole["u"]) == (10, 10 + len(messages) - 1)
    client = dict(begun)
    for price, quantity in whole["a"]:
        client.pop(price, None)
        if quantity != ZERO:
            client[price] = quantity
    assert client == kept
    if whole.get("snapshot") is True:
        assert {price: quantity for price, quantity in whole["a"] if quantity != ZERO} == kept


@pytest.mark.parametrize("odd", ['""', '"1.5%"', "[1]", "true", '"Infinity"', '"0x1"'])
@pytest.mark.parametrize("name", ["o", "p"])
def test_a_field_of_a_ticker_that_is_no_decimal_says_nothing_of_the_others(name: str, odd: str) -> None:
    """It stays as it is, and the others are there as ever."""
    data = b'{"e":"ticker","c":"1.50","s":"A","%b":%b}' % (name.encode(), odd.encode())
    found = json.loads(TickerPayloads(MARKET).update(data, MOMENT.at, {}))
    assert found.keys() == {"e", "E", "s", "c", *TICKER_FIELDS}
    assert (found["e"], found[name], found["h"], found["P"]) == ("24hrTicker", json.loads(odd), "1.50", "0.000")


@property_test
@given(
    st.lists(
        st.tuples(
            st.fixed_dictionaries(
                {"c": st.sampled_from(["1.5", "2"])},
                optional={
                    "o": st.sampled_from(["1", "1.50"]),
                    "p": st.just("0.5"),
                    "s": st.just("B"),
                    "E": st.integers(1, 9),
                    "T": st.integers(1, 9),
                    "O": st.integers(1, 9),
                    "v": st.just("7"),
                },
            ),
            st.dictionaries(st.sampled_from(["o", "v", "b", "C", "n"]), st.sampled_from([b'"3"', b'"4"']), max_size=3),
            st.integers(1, 1000),
        ),
        max_size=8,
    )
)
def test_what_is_remembered_of_tickers_is_what_each_would_be(said: list[tuple[Any, dict[str, bytes], int]]) -> None:
    """One that writes all of them writes each as one that has written none, and as one that cannot remember it."""
    payloads = TickerPayloads(MARKET)
    for fields, known, at in said:
        data = json.dumps({"e": "ticker", **fields}, separators=(",", ":")).encode()
        made = payloads.update(data, at, known)
        assert made == TickerPayloads(MARKET).update(data, at, known)
        apart = TickerPayloads(MARKET).update(data.replace(b"{", b"{ ", 1), at, known)
        assert json.loads(made) == json.loads(apart)
        assert json.loads(made).keys() == {"e", "E", "s", "c", *TICKER_FIELDS, *fields}
