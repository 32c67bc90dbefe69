"""Streams: their names, kinds and spellings (docs/protocol.md#streams)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from marketfeed.model.kinds.kline import INTERVALS
from marketfeed.model.streams import BadStreamName, StreamKinds, StreamName
from tests.strategies import almost_names, canonical_names, property_test, spellings, upper_markets

KINDS = StreamKinds()


@pytest.mark.parametrize("name", ["trade@TATA_INR", "depth@TATA_INR", "ticker@TATA_INR"])
def test_built_in_kinds(name: str) -> None:
    """The three kinds of the original protocol are there without configuration."""
    assert str(KINDS.parse(name)) == name


def test_loss_policies() -> None:
    """Trades are all kept, depth updates merged, of tickers the newest counts."""
    assert {kind.name: kind.loss for kind in BUILT_IN if not (kind.name.startswith("kline_") or kind.from_book)} == {
        "trade": LossPolicy.KEEP,
        "depth": LossPolicy.MERGE,
        "ticker": LossPolicy.LATEST,
        "miniTicker": LossPolicy.LATEST,
        "!miniTicker": LossPolicy.MERGE,
        "aggTrade": LossPolicy.KEEP,
    }


def test_a_kind_as_it_is_declared() -> None:
    """It takes the place of the one that is built in; one that is not declared is what it is."""
    own = StreamKind("trade", LossPolicy.LATEST)
    kinds = StreamKinds([own])
    assert [kinds.of(kind) for kind in BUILT_IN[:2]] == [own, BUILT_IN[1]]


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("tata_inr@trade", "trade@TATA_INR"),
        ("tata_inr@depth", "depth@TATA_INR"),
        ("btc-usd.p@ticker", "ticker@BTC-USD.P"),
        ("depth@TATA_INR@100ms", "depth@TATA_INR"),
        ("depth@TATA_INR@1000ms", "depth@TATA_INR"),
        ("tata_inr@depth@100ms", "depth@TATA_INR"),
        ("trade@tata_inr", "trade@tata_inr"),
        ("trade@depth", "trade@depth"),
        ("depth@trade@100ms", "depth@trade"),
        ("btc-usd.p@ticker@1000ms", "ticker@BTC-USD.P"),
        (f"trade@{64 * 'A'}", f"trade@{64 * 'A'}"),
        ("trade@.", "trade@."),
    ],
)
def test_spellings(spelling: str, name: str) -> None:
    """The other spellings reach the same stream; a known kind on the left always is the kind."""
    assert str(KINDS.parse(spelling)) == name


@pytest.mark.parametrize(
    ("spelling", "why"),
    [
        ("", "expected <kind>@<market>"),
        ("trade", "expected <kind>@<market>"),
        ("@", "expected <kind>@<market>"),
        ("trade@", "expected <kind>@<market>"),
        ("@TATA_INR", "expected <kind>@<market>"),
        ("trade@@TATA_INR", "expected <kind>@<market>"),
        (
            "candle@TATA_INR",
            "the kind is none of trade, depth, ticker, kline_<interval>, miniTicker, !miniTicker, aggTrade",
        ),
        ("kline@TATA_INR", f"expected kline_<interval>, with an interval of {', '.join(INTERVALS)}"),
        ("kline_2m@TATA_INR", "expected kline_<interval>, with an interval of 1s, 1m, 3m"),
        ("tata_inr@kline_1H", "expected kline_<interval>, with an interval of 1s, 1m, 3m"),
        ("TATA_INR@kline_1m", "the kind is none of"),
        ("klines_1m@TATA_INR", "the kind is none of"),
        ("TATA_INR@trade", "the kind is none of"),
        ("Tata_inr@trade", "the kind is none of"),
        ("Trade@TATA_INR", "the kind is none of"),
        ("tata_inr@Trade", "the kind is none of"),
        ("tata_inr@100ms@depth", "the kind is none of"),
        ("trade@TATA INR", "a market is 1 to 64 of the characters"),
        ("trade@TATA/INR", "a market is 1 to 64 of the characters"),
        ("trade@TATA_INR\n", "a market is 1 to 64 of the characters"),
        ("trade@é", "a market is 1 to 64 of the characters"),
        (f"trade@{65 * 'A'}", "a market is 1 to 64 of the characters"),
        (f"{65 * 'a'}@trade", "a market is 1 to 64 of the characters"),
        ("trade@TATA_INR@100ms", "every trade counts, and none can be left out: expected nothing behind the name"),
        ("tata_inr@trade@1000ms", "every trade counts"),
        ("trade@TATA_INR@", "every trade counts"),
        ("depth@TATA_INR@250ms", "expected @100ms or @1000ms behind the name, or nothing"),
        ("depth@TATA_INR@0ms", "expected @100ms or @1000ms"),
        ("depth@TATA_INR@+100ms", "expected @100ms or @1000ms"),
        ("tata_inr@depth@100MS", "expected @100ms or @1000ms"),
        ("tata_inr@ticker@1s", "expected @100ms or @1000ms"),
        ("depth@TATA_INR@", "expected @100ms or @1000ms"),
        ("depth@TATA_INR@100ms@100ms", "expected @100ms or @1000ms"),
    ],
)
def test_refused(spelling: str, why: str) -> None:
    """A refusal repeats the name and says what would be accepted."""
    with pytest.raises(BadStreamName) as caught:
        KINDS.parse(spelling)
    assert repr(spelling) in str(caught.value)
    assert why in str(caught.value)


@pytest.mark.parametrize("spelling", ["stra\u00dfe@trade", "\ufb01@trade", "\u0131@trade", "\u017f@trade"])
def test_no_letters_become_ascii(spelling: str) -> None:
    """A letter whose upper case is ASCII does not reach another market's stream."""
    with pytest.raises(BadStreamName, match="a market is 1 to 64"):
        KINDS.parse(spelling)


def test_long_name_is_shortened() -> None:
    """A refusal does not send a long name back; one of 80 characters it does."""
    for length, shown in ((80, "x" * 80), (81, "x" * 80 + "…"), (10000, "x" * 80 + "…")):
        with pytest.raises(BadStreamName, match=f"^bad stream name '{shown}': "):
            KINDS.parse("x" * length)


def test_declared_kinds() -> None:
    """A registry knows the kinds that it was given and no others."""
    kinds = StreamKinds([StreamKind("candle", LossPolicy.LATEST)])
    assert kinds.parse("tata_inr@candle") == StreamName(StreamKind("candle", LossPolicy.LATEST), "TATA_INR")
    with pytest.raises(BadStreamName, match="the kind is none of candle"):
        kinds.parse("trade@TATA_INR")


def test_a_private_kind_has_no_other_spelling() -> None:
    """docs/protocol.md#streams has the reversed form for public kinds; a user's name is in its token's case."""
    orders = StreamKind("orders", LossPolicy.KEEP, private=True)
    kinds = StreamKinds((*BUILT_IN, orders))
    assert kinds.parse("orders@alice") == StreamName(orders, "alice")
    with pytest.raises(BadStreamName, match="the kind is none of"):
        kinds.parse("alice@orders")
    assert not any(kind.private for kind in BUILT_IN)


@property_test
@given(canonical_names)
def test_canonical_round_trip(name: str) -> None:
    """Every canonical name is its own parsed stream's."""
    assert str(KINDS.parse(name)) == name


@pytest.mark.parametrize(
    ("spelling", "rate"),
    [
        ("depth@TATA_INR", 0),
        ("depth@TATA_INR@100ms", 100),
        ("tata_inr@depth@1000ms", 1000),
        ("ticker@TATA_INR@1000ms", 1000),
        ("tata_inr@ticker", 0),
    ],
)
def test_rates(spelling: str, rate: int) -> None:
    """What stands behind the name is how seldom the client wants it; the stream is the same one."""
    name = KINDS.parse(spelling)
    assert name.rate == rate
    assert name == StreamName(name.kind, "TATA_INR", rate)


def test_rates_of_declared_kinds() -> None:
    """They have rates where not every publication must be sent, private ones too."""
    declared = [StreamKind(policy.value, policy, private=True) for policy in LossPolicy]
    kinds = StreamKinds(declared)
    assert [kinds.parse(f"{kind.name}@alice@100ms").rate for kind in declared if kind.rates] == [100, 100]
    with pytest.raises(BadStreamName, match="every keep counts"):
        kinds.parse("keep@alice@100ms")


BINANCE = StreamKinds(
    (
        *BUILT_IN,
        *(
            StreamKind(name, LossPolicy.LATEST)
            for name in ("bookTicker", "depth20", "kline_1m", "kline_1M", "miniTicker")
        ),
        StreamKind("aggTrade", LossPolicy.KEEP),
        StreamKind("!miniTicker", LossPolicy.LATEST, only="arr"),
    )
)


@pytest.mark.parametrize(
    ("spelling", "kind", "market", "rate"),
    [
        ("tata_inr@bookTicker", "bookTicker", "TATA_INR", 0),
        ("bookTicker@TATA_INR@1000ms", "bookTicker", "TATA_INR", 1000),
        ("tata_inr@kline_1m", "kline_1m", "TATA_INR", 0),
        ("tata_inr@kline_1M", "kline_1M", "TATA_INR", 0),
        ("kline_1M@TATA_INR", "kline_1M", "TATA_INR", 0),
        ("tata_inr@depth20@100ms", "depth20", "TATA_INR", 100),
        ("tata_inr@aggTrade", "aggTrade", "TATA_INR", 0),
        ("!miniTicker@arr", "!miniTicker", "arr", 0),
        ("!miniTicker@arr@1000ms", "!miniTicker", "arr", 1000),
        ("miniTicker@arr", "miniTicker", "arr", 0),
        ("arr@miniTicker", "miniTicker", "ARR", 0),
    ],
)
def test_as_binance_spells_it(spelling: str, kind: str, market: str, rate: int) -> None:
    """The market in lower case, the kind to the letter."""
    name = BINANCE.parse(spelling)
    assert (name.kind.name, name.market, name.rate) == (kind, market, rate)


@pytest.mark.parametrize(
    ("spelling", "why"),
    [
        ("tata_inr@bookticker", "the kind is none of"),
        ("TATA_INR@bookTicker", "the kind is none of"),
        ("arr@!miniTicker", "the kind is none of"),
        ("!miniTicker@TATA_INR", "expected !miniTicker@arr"),
        ("!miniTicker@ARR", "expected !miniTicker@arr"),
        ("!miniTicker@arr@3000ms", "expected @100ms or @1000ms"),
        ("tata_inr@aggTrade@100ms", "every aggTrade counts"),
    ],
)
def test_what_binance_has_not(spelling: str, why: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(BadStreamName) as caught:
        BINANCE.parse(spelling)
    assert why in str(caught.value)


def test_aliases() -> None:
    """Another spelling of a market is good wherever the market is, and may be another one a moment later."""
    kinds = StreamKinds((*BUILT_IN, StreamKind("orders", LossPolicy.KEEP, private=True)), {"TATAINR": "TATA_INR"})
    for spelling in ("depth@TATAINR", "tatainr@depth", "depth@TATAINR@100ms", "tata_inr@depth", "depth@TATA_INR"):
        assert str(kinds.parse(spelling)) == "depth@TATA_INR"
    assert str(kinds.parse("depth@tatainr")) == "depth@tatainr"
    assert str(kinds.parse("orders@TATAINR")) == "orders@TATAINR", "who is another user"
    kinds.aliases = {"TATAINR": "tata.inr"}
    assert str(kinds.parse("tatainr@depth")) == "depth@tata.inr"
    kinds.aliases = {"arr": "TATA_INR"}
    assert str(kinds.parse("!miniTicker@arr")) == "!miniTicker@arr", "which is no market"
    kinds.aliases = {}
    assert str(kinds.parse("tatainr@depth")) == "depth@TATAINR"


@property_test
@given(spellings())
def test_every_spelling(pair: tuple[str, str]) -> None:
    """Reversed and the market in lower case, or with a rate behind it: the stream is the canonical one."""
    spelling, name = pair
    stream = KINDS.parse(spelling)
    assert msgspec.structs.replace(stream, rate=0) == KINDS.parse(name)
    assert str(stream) == name
    assert stream.rate == (int(spelling.split("@")[2][:-2]) if spelling.count("@") == 2 else 0)


@property_test
@given(
    st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,31}", fullmatch=True),
    st.sampled_from(LossPolicy),
    upper_markets,
    st.sampled_from(("", "@100ms", "@1000ms")),
)
def test_every_kind(name: str, policy: LossPolicy, market: str, rate: str) -> None:
    """Any kind is there under both spellings; with a rate if it is one of which something may be left out."""
    assume(market.lower() != name)  # a kind on the left is one
    kinds = StreamKinds([StreamKind(name, policy)])
    for spelling in (f"{name}@{market}", f"{market.lower()}@{name}"):
        if rate and policy is LossPolicy.KEEP:
            with pytest.raises(BadStreamName, match=f"every {name} counts"):
                kinds.parse(spelling + rate)
        else:
            assert str(kinds.parse(spelling + rate)) == f"{name}@{market}"


@property_test
@given(st.text() | st.text(st.characters()) | almost_names)
def test_any_text(text: str) -> None:
    """Any text at all is a stream, whose canonical name is one too, or a `BadStreamName` that can be sent."""
    try:
        stream = KINDS.parse(text)
    except BadStreamName as error:
        str(error).encode()
        return
    assert KINDS.parse(str(stream)) == msgspec.structs.replace(stream, rate=0)
    assert str(stream).isascii()
    assert stream.market.lower() in text.lower()


def test_what_was_parsed_is_remembered() -> None:
    """By what was said of its path, and as long as the kinds and the aliases are what they were; of so many at most."""
    kinds = StreamKinds(rebuilds=True)
    name = kinds.parse("tata_inr@depth")
    assert kinds.parse("tata_inr@depth") is name
    assert kinds.parse("tata_inr@depth", on_paths=True) != name
    kinds.aliases = {"TATA_INR": "TATA"}
    assert kinds.parse("tata_inr@depth").market == "TATA"
    kinds.add(msgspec.structs.replace(name.kind, private=True))
    with pytest.raises(BadStreamName):
        kinds.parse("tata_inr@depth")
    for number in range(10_000):
        kinds.parse(f"trade@M{number}")
    assert max(map(len, kinds._parsed)) <= 8192
