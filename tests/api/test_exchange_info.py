"""Which markets there are: those that are declared, and those that were heard of."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from marketfeed.api.exchange_info import ExchangeInfo
from marketfeed.api.listing import Listing
from marketfeed.api.query import BAD_SYMBOL, BadQuery, Query
from marketfeed.http.response import Response
from marketfeed.model.identity import ANONYMOUS, Identity
from marketfeed.model.markets import Market, Markets

TATA = Market("TATA_INR", price_step="0.05", quantity_step="1", min_notional="100", alias="TATAINR")
GOLD = Market("GOLD", base="XAU", quote="USD", quantity_step="0.0000000001", min_quantity="0.01", status="HALT")


class Desk:
    def __init__(self, *declared: Market, heard: frozenset[str] = frozenset(), rate: int = 1200) -> None:
        self.heard = heard
        self.rate = rate
        self.listing = Listing(Markets(declared), lambda: self.heard)
        self.info = ExchangeInfo(self.listing, lambda: 1.5e9, lambda: self.rate)

    def ask(self, query: str = "", identity: Identity = ANONYMOUS) -> Response:
        answers: list[Response] = []
        Deferred.fromCoroutine(self.info.find(identity, Query(query))).addCallback(answers.append)
        return answers[0]

    def symbols(self, query: str = "") -> list[dict[str, Any]]:
        answer = self.ask(query)
        assert answer.status == 200
        return list(json.loads(answer.json)["symbols"])

    def names(self, query: str = "") -> list[str]:
        return [entry["symbol"] for entry in self.symbols(query)]


def test_all_of_them_by_name() -> None:
    """One that says nowhere what is traded there is not listed."""
    desk = Desk(TATA, GOLD, Market("INDEX"), heard=frozenset(("BTC_INR", "TATA_INR", "WORD")))
    assert desk.names() == ["BTC_INR", "GOLD", "TATA_INR"]
    assert [(entry["baseAsset"], entry["quoteAsset"]) for entry in desk.symbols()] == [
        ("BTC", "INR"),
        ("XAU", "USD"),
        ("TATA", "INR"),
    ]


def test_what_is_known_of_one() -> None:
    """The filters are those that are declared, in the spelling of the file."""
    (gold,) = Desk(TATA, GOLD).symbols("symbol=GOLD")
    assert (gold["status"], gold["baseAssetPrecision"], gold["quotePrecision"]) == ("HALT", 10, 8)
    assert gold["filters"] == [
        {"filterType": "LOT_SIZE", "minQty": "0.01", "maxQty": "9000000000.00000000", "stepSize": "0.0000000001"}
    ]
    (tata,) = Desk(TATA, GOLD).symbols("symbol=TATA_INR")
    assert [each["filterType"] for each in tata["filters"]] == ["PRICE_FILTER", "LOT_SIZE", "NOTIONAL"]
    assert (tata["isSpotTradingAllowed"], tata["permissionSets"]) == (True, [["SPOT"]])
    assert Desk(heard=frozenset(("A_B",))).symbols()[0]["filters"] == []


def test_some_of_them() -> None:
    """An alias is accepted, and never given out; each comes once."""
    desk = Desk(TATA, GOLD)
    assert desk.names("symbol=TATAINR") == ["TATA_INR"]
    assert desk.names('symbols=["GOLD","TATAINR","TATA_INR"]') == ["GOLD", "TATA_INR"]


def test_one_that_is_not_there() -> None:
    """Where some are declared it is no market; otherwise nobody knows."""
    faults: list[int] = []
    found = Deferred.fromCoroutine(Desk(TATA).info.find(ANONYMOUS, Query("symbol=NO_INR")))
    found.addErrback(lambda failure: faults.append(failure.value.code if failure.check(BadQuery) else 0))
    assert faults == [BAD_SYMBOL]
    assert Desk().ask("symbol=NO_INR").status == 503
    assert Desk(TATA, heard=frozenset(("NO_INR",))).names("symbol=NO_INR") == ["NO_INR"]


def test_it_changes_with_what_it_is_of() -> None:
    """What is heard, what is declared, the rate."""
    desk = Desk(TATA)
    assert desk.names() == ["TATA_INR"]
    desk.heard = frozenset(("A_B",))
    assert desk.names() == ["A_B", "TATA_INR"]
    desk.listing.declared = Markets([GOLD])
    assert desk.names() == ["A_B", "GOLD"]
    limits = json.loads(desk.ask().json)["rateLimits"]
    assert [each["limit"] for each in limits] == [1200, 1200]
    desk.rate = 0
    assert json.loads(desk.ask().json)["rateLimits"] == []
    assert json.loads(desk.ask().json)["serverTime"] == 1_500_000_000_000


@pytest.mark.parametrize(("identity", "whose"), [(ANONYMOUS, "public"), (Identity("alice", None, 2e9), "private")])
def test_who_may_keep_it(identity: Identity, whose: str) -> None:
    """For a minute; what a token was shown for, nobody in between."""
    assert Desk(TATA).ask("", identity).cache == f"{whose}, max-age=60"
