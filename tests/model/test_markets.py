"""Markets, by name and by alias."""

from __future__ import annotations

import pytest

from marketfeed.model.markets import Market, Markets


@pytest.mark.parametrize(
    ("market", "pair"),
    [
        (Market("TATA_INR"), ("TATA", "INR")),
        (Market("A_B_INR"), ("A_B", "INR")),
        (Market("GOLD", base="XAU", quote="USD"), ("XAU", "USD")),
        (Market("X_Y", base="XAU", quote="USD"), ("XAU", "USD")),
        (Market("GOLD"), None),
        (Market("_INR"), None),
        (Market("TATA_"), None),
    ],
)
def test_what_is_traded_for_what(market: Market, pair: tuple[str, str] | None) -> None:
    assert market.pair == pair


def test_they_are_found_by_name_and_alias() -> None:
    """A name is its own market's, whatever the aliases of others."""
    tata, other = Market("TATA_INR", alias="TATAINR"), Market("B", alias="bee")
    markets = Markets([tata, other])
    assert [markets.resolve(name) for name in ("TATAINR", "TATA_INR", "B", "bee", "BEE", "Bee", "C")] == [
        *("TATA_INR", "TATA_INR", "B", "B", "B", "Bee", "C"),
    ]
    assert (markets.find("TATAINR"), markets.find("C")) == (tata, None)
    assert markets.aliases == {"TATAINR": "TATA_INR", "bee": "B", "BEE": "B"}
    assert (len(markets), list(markets)) == (2, [tata, other])
