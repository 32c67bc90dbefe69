"""Markets that the file declares: what is accepted, and how a fault is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.config.declared_kinds import BadSetting
from marketfeed.config.declared_markets import read_markets
from marketfeed.config.settings import changed, load
from marketfeed.model.markets import Market, Markets
from marketfeed.model.streams import StreamKinds
from tests.strategies import property_test

DECIMAL = 'expected a decimal above 0, in quotes and without exponent, as "0.05"'
NAME = "expected 1 to 64 of the characters A-Z a-z 0-9 . _ -"


def test_all_of_it(tmp_path: Path) -> None:
    """As it was written."""
    fields = {
        "base": "TATA",
        "quote": "INR",
        "price_step": "0.05",
        "quantity_step": "1.0",
        "min_quantity": "2",
        "min_notional": "100",
        "status": "HALT",
        "alias": "TATAINR",
    }
    file = tmp_path / "marketfeed.toml"
    lines = [f'{name} = "{value}"' for name, value in fields.items()]
    file.write_text("[markets.B]\n[markets.TATA_INR]\n" + "\n".join(lines))
    settings = load({"config": str(file)}, {})
    assert settings.markets == (Market("B"), Market("TATA_INR", **fields))
    assert changed(settings)["[markets]"] == "declared"


def test_a_market_in_small_letters(tmp_path: Path) -> None:
    """As clients for Binance spell it."""
    file = tmp_path / "marketfeed.toml"
    file.write_text('[markets.tata_inr]\nalias = "TATA_INR"')
    markets = Markets(load({"config": str(file)}, {}).markets)
    assert StreamKinds(aliases=markets.aliases).parse("tata_inr@trade").market == "tata_inr"


@pytest.mark.parametrize(
    ("tables", "fault"),
    [
        (1, "markets in f: expected tables, as [markets.TATA_INR]"),
        ({"A@B": {}}, "markets.A@B in f: expected a market, 1 to 64 of the characters A-Z a-z 0-9 . _ -"),
        ({"A": 1}, 'markets.A in f: expected a table, as base = "TATA" and quote = "INR"'),
        (
            {"A": {"tick": 1}},
            "markets.A in f: 'tick' is unknown; expected one of base, quote, price_step, quantity_step, min_quantity, "
            "min_notional, status, alias".replace("'tick'", "tick"),
        ),
        ({"A": {"base": "A"}}, "markets.A in f: expected base and quote together, or neither"),
        ({"A": {"base": 1, "quote": "B"}}, f"markets.A in f: base: {NAME}"),
        ({"A": {"alias": ""}}, f"markets.A in f: alias: {NAME}"),
        *[
            ({"A": {"price_step": value}}, f"markets.A in f: price_step: {DECIMAL}")
            for value in (0.05, 1, True, "", "0", "0.0", "-1", "+1", ".5", "5.", "1e-2", "nan", "1" * 65)
        ],
        ({"A": {"min_quantity": "1"}}, "markets.A in f: min_quantity: expected together with quantity_step"),
        ({"A": {"status": "open"}}, "markets.A in f: status: expected TRADING or HALT or BREAK"),
        ({"A": {"alias": "A"}}, "markets.A in f: alias: expected another one; it is A already"),
        ({"A": {}, "B": {"alias": "a"}}, "markets.B in f: alias: expected another one; it is A already"),
        (
            {"A": {"alias": "X"}, "B": {"alias": "x"}},
            "markets.B in f: alias: expected another one; it is the alias of A already",
        ),
    ],
)
def test_what_cannot_be_used_is_named(tables: Any, fault: str) -> None:
    with pytest.raises(BadSetting) as caught:
        read_markets(tables, "f")
    assert str(caught.value) == fault


toml = st.recursive(
    st.text(max_size=10) | st.integers() | st.floats() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@property_test
@given(
    st.dictionaries(
        st.sampled_from(("A", "B_C")) | st.text(max_size=10),
        st.dictionaries(st.sampled_from(("base", "quote", "price_step", "alias", "status")), toml, max_size=4) | toml,
        max_size=4,
    )
    | toml
)
def test_anything_is_read_or_named(tables: Any) -> None:
    """Nothing else is raised."""
    fault = " in f"
    try:
        read = read_markets(tables, "f")
    except BadSetting as bad:
        fault = str(bad)
    else:
        assert [market.name for market in read] == list(tables)
    assert " in f" in fault
