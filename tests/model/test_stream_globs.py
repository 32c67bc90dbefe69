"""Patterns of streams: what is read, what is refused, what is covered, what Redis is asked for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from marketfeed.model.stream_globs import EXPECTED, BadGlob, is_glob, parse_glob
from tests.strategies import canonical_names, property_test

KINDS = (*BUILT_IN, StreamKind("orders", LossPolicy.KEEP, private=True))


def covers(pattern: str, market: str) -> bool:
    """The obvious way: what is left of the pattern against what is left of the market."""
    if not pattern:
        return not market
    if pattern[0] == "*":
        return any(covers(pattern[1:], market[at:]) for at in range(len(market) + 1))
    return bool(market) and pattern[0] in ("?", market[0]) and covers(pattern[1:], market[1:])


@property_test
@given(canonical_names)
def test_a_name_covers_itself(name: str) -> None:
    """And nothing else; Redis knows it by that name."""
    glob = parse_glob(name, KINDS)
    assert (str(glob), glob.is_name, glob.covers(name), glob.covers(f"{name}x")) == (name, True, True, False)
    assert glob.behind("") == name.encode()


@property_test
@given(st.text("aB*?", min_size=1, max_size=6), st.text("aB", min_size=1, max_size=8))
def test_a_pattern_of_markets(pattern: str, market: str) -> None:
    """Beside the obvious way."""
    glob = parse_glob(f"depth@{pattern}", KINDS)
    assert glob.covers(f"depth@{market}") == covers(pattern, market)
    assert glob.is_name == (not re.search("[*?]", pattern))
    assert not glob.covers(f"trade@{market}")


@pytest.mark.parametrize(
    ("pattern", "covered"),
    [
        ("*@A", ["trade@A", "depth@A", "ticker@A", "orders@A"]),
        ("t*@A", ["trade@A", "ticker@A"]),
        ("?????@A", ["trade@A", "depth@A"]),
        ("orders@?", ["orders@A", "orders@B"]),
    ],
)
def test_a_pattern_of_kinds(pattern: str, covered: list[str]) -> None:
    """Declared ones only, private ones too."""
    names = [f"{kind}@{market}" for kind in ("trade", "depth", "ticker", "orders", "other") for market in "AB"]
    glob = parse_glob(pattern, KINDS)
    assert sorted(filter(glob.covers, names)) == sorted(covered)


@property_test
@given(st.text(max_size=20))
def test_only_names_of_streams_are_covered(name: str) -> None:
    """Canonical ones: no rate behind it, nothing reversed, no line end."""
    everything = parse_glob("*@*", KINDS)
    assert not everything.covers(f"depth@{name}@100ms")
    assert not everything.covers(f"{name.lower()}@trade") or name.lower() in ("trade", "depth", "ticker", "orders")
    if everything.covers(f"depth@{name}"):
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name)


def test_redis_takes_the_prefix_to_the_letter() -> None:
    """What is special in a pattern is escaped there, and only there."""
    assert parse_glob("depth@A?*", KINDS).behind("m[d]*?\\:") == rb"m\[d\]\*\?\\:depth@A?*"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "depth",
        "depth@",
        "@A",
        "*",
        "depth@A B",
        "depth@A@100ms",
        "depth@[AB]",
        "dépth@A",
        f"depth@{'A' * 65}",
        "a@b@*",
    ],
)
def test_what_is_no_pattern_is_refused(text: str) -> None:
    """With what would be accepted."""
    with pytest.raises(BadGlob, match=f"^{re.escape(EXPECTED)}$"):
        parse_glob(text, KINDS)
    assert not is_glob(text)


@pytest.mark.parametrize("text", ["book@A", "a@trade", "Depth@A", "x*@A", "depth?@A", "9@A"])
def test_a_kind_that_nobody_declared_is_refused(text: str) -> None:
    """With those that are."""
    with pytest.raises(
        BadGlob,
        match=r"of one of the kinds trade, depth, ticker, kline_<interval>, miniTicker, !miniTicker, aggTrade, orders$",
    ):
        parse_glob(text, KINDS)
    assert is_glob(text), "others may have declared it"


def test_what_is_made_of_another_kind_is_kept_ready_with_that_one() -> None:
    """A pattern leaves it out, and its own name says what to write instead."""
    assert not parse_glob("*@*", KINDS).covers("bookTicker@A")
    for text, other in (("bookTicker@A", "depth@A"), ("depth20@*", "depth@*")):
        with pytest.raises(BadGlob, match=rf"^{re.escape(other)}, of which \w+ is made$"):
            parse_glob(text, KINDS)
    with pytest.raises(BadGlob, match=r"of one of the kinds trade, depth, (?!.*bookTicker).*, orders$"):
        parse_glob("bookT*@A", KINDS)
