"""Streams: their names, kinds and spellings (docs/protocol.md#streams)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from marketfeed.model.streams import BadStreamName, StreamKinds, StreamName
from tests.strategies import almost_names, canonical_names, markets, property_test, spellings

KINDS = StreamKinds()


@pytest.mark.parametrize("name", ["trade@TATA_INR", "depth@TATA_INR", "ticker@TATA_INR"])
def test_built_in_kinds(name: str) -> None:
    """The three kinds of the original protocol are there without configuration."""
    assert str(KINDS.parse(name)) == name


def test_loss_policies() -> None:
    """Trades are all kept, depth updates merged, of tickers the newest counts."""
    assert {kind.name: kind.loss for kind in BUILT_IN} == {
        "trade": LossPolicy.KEEP,
        "depth": LossPolicy.MERGE,
        "ticker": LossPolicy.LATEST,
    }


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
        ("candle@TATA_INR", "the kind is none of trade, depth, ticker"),
        ("TATA_INR@trade", "the kind is none of"),
        ("Tata_inr@trade", "the kind is none of"),
        ("Trade@TATA_INR", "the kind is none of"),
        ("tata_inr@trade@100MS", "the kind is none of"),
        ("trade@TATA INR", "a market is 1 to 64 of the characters"),
        ("trade@TATA/INR", "a market is 1 to 64 of the characters"),
        ("trade@TATA_INR\n", "a market is 1 to 64 of the characters"),
        ("trade@é", "a market is 1 to 64 of the characters"),
        (f"trade@{65 * 'A'}", "a market is 1 to 64 of the characters"),
        (f"{65 * 'a'}@trade", "a market is 1 to 64 of the characters"),
        ("trade@TATA_INR@100ms", "only a depth stream may end in"),
        ("tata_inr@ticker@1000ms", "only a depth stream may end in"),
        ("depth@TATA_INR@250ms", "only a depth stream may end in"),
        ("depth@TATA_INR@", "only a depth stream may end in"),
        ("depth@TATA_INR@100ms@100ms", "only a depth stream may end in"),
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


@property_test
@given(spellings())
def test_every_spelling(pair: tuple[str, str]) -> None:
    """Reversed and lower case, or with a speed behind a depth name: the stream is the canonical one."""
    spelling, name = pair
    assert KINDS.parse(spelling) == KINDS.parse(name)
    assert str(KINDS.parse(spelling)) == name


@property_test
@given(st.sampled_from(("trade", "ticker")), markets, st.sampled_from(("100ms", "1000ms")))
def test_speed_on_depth_only(kind: str, market: str, speed: str) -> None:
    """No other kind of stream has a speed."""
    with pytest.raises(BadStreamName, match="only a depth stream"):
        KINDS.parse(f"{kind}@{market}@{speed}")


@property_test
@given(st.text() | st.text(st.characters()) | almost_names)
def test_any_text(text: str) -> None:
    """Any text at all is a stream, whose canonical name is one too, or a `BadStreamName` that can be sent."""
    try:
        stream = KINDS.parse(text)
    except BadStreamName as error:
        str(error).encode()
        return
    assert KINDS.parse(str(stream)) == stream
    assert str(stream).isascii()
    assert stream.market.lower() in text.lower()
