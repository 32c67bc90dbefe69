"""What Binance's messages are made of, and what the numbers in them have to do with the engine's trades.

`trades`: what the engine has published, by `t`, which counts up by one; None where the test does not know.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

__all__ = ["Trades", "check_agg_trade", "check_kline", "check_mini_ticker", "check_ticker", "check_top", "check_trade"]

Trades = Mapping[int, Mapping[str, Any]] | None

_TICKER = frozenset("eEspPwxcQbBaAohlvqOCFLn")
_MINI_TICKER = frozenset("eEscohlvq")
_KLINE = frozenset("tTsifLochlvnxqVQB")


def check_trade(message: Mapping[str, Any], market: str, trades: Trades) -> None:
    """A message of `trade`."""
    assert set(message) >= set("eEstpqTmM")
    assert (message["e"], message["s"], message["M"]) == ("trade", market, True)
    _check_moments(message["E"], message["T"])
    if trades is not None:
        published = trades[message["t"]]
        assert {name: message[name] for name in published} == published


def check_agg_trade(message: Mapping[str, Any], market: str, trades: Trades) -> None:
    """A message of `aggTrade`: one for each trade, of which it has the id."""
    assert set(message) == set("eEsapqflTmM")
    assert (message["e"], message["s"], message["M"]) == ("aggTrade", market, True)
    _check_moments(message["E"], message["T"])
    assert message["a"] == message["f"] == message["l"]
    if trades is not None:
        published = trades[message["a"]]
        assert [message[name] for name in "pqm"] == [published[name] for name in "pqm"]


def check_kline(message: Mapping[str, Any], market: str, trades: Trades) -> None:
    """A message of `kline_1m`."""
    assert (message["e"], message["s"], set(message)) == ("kline", market, set("eEsk"))
    _check_moments(message["E"])
    kline = message["k"]
    assert set(kline) == _KLINE
    assert (kline["s"], kline["i"], kline["B"]) == (market, "1m", "0")
    assert type(kline["x"]) is bool
    assert kline["t"] % 60_000 == 0
    assert kline["T"] == kline["t"] + 59_999
    _check_sums({**kline, "F": kline["f"]}, trades)
    if trades is not None:
        bought = [each for t, each in trades.items() if kline["f"] <= t <= kline["L"] and not each["m"]]
        assert Decimal(kline["V"]) == sum(Decimal(each["q"]) for each in bought)
        assert Decimal(kline["Q"]) == sum(Decimal(each["p"]) * Decimal(each["q"]) for each in bought)


def check_mini_ticker(message: Mapping[str, Any], market: str) -> None:
    """A message of `miniTicker`, or one of those in `!miniTicker@arr`."""
    assert set(message) == _MINI_TICKER
    assert (message["e"], message["s"]) == ("24hrMiniTicker", market)
    _check_moments(message["E"])
    low, high = Decimal(message["l"]), Decimal(message["h"])
    assert all(low <= Decimal(message[name]) <= high for name in "oc")


def check_ticker(message: Mapping[str, Any], market: str, trades: Trades) -> None:
    """A message of `ticker`, whose statistics are whole."""
    assert set(message) >= _TICKER
    assert (message["e"], message["s"]) == ("24hrTicker", market)
    _check_moments(message["E"], message["C"])
    assert message["C"] - message["O"] in (86_400_000, 86_399_999)
    for name in "pPwxcQbBaAohlvq":
        Decimal(message[name])
    _check_sums(message, trades)


def check_top(message: Mapping[str, Any], market: str) -> tuple[Decimal, ...]:
    """A message of `bookTicker`; best bid, its quantity, best ask, its quantity."""
    assert set(message) >= set("usbBaA")
    assert message["s"] == market
    assert type(message["u"]) is int
    top = tuple(Decimal(message[name]) for name in "bBaA")
    assert top[0] < top[2]
    return top


def _check_sums(message: Mapping[str, Any], trades: Trades) -> None:
    """`o h l v q n` are those of the trades `F` to `L`; `c` may be newer."""
    low, high = Decimal(message["l"]), Decimal(message["h"])
    assert low <= Decimal(message["o"]) <= high
    if not message["n"]:
        assert (message["F"], message["L"]) == (-1, -1)
        return
    if trades is None:
        assert message["n"] <= message["L"] - message["F"] + 1  # of PUBLISH those count that were heard
        return
    assert message["n"] == message["L"] - message["F"] + 1
    within = [trades[number] for number in range(message["F"], message["L"] + 1)]
    prices = [Decimal(each["p"]) for each in within]
    amounts = [Decimal(each["q"]) for each in within]
    assert [Decimal(message[name]) for name in "ohl"] == [prices[0], max(prices), min(prices)]
    assert Decimal(message["v"]) == sum(amounts)
    assert Decimal(message["q"]) == sum(price * amount for price, amount in zip(prices, amounts, strict=True))


def _check_moments(*moments: object) -> None:
    """In ms since 1970, and not long ago."""
    for moment in moments:
        assert type(moment) is int
        assert abs(moment / 1000 - time.time()) < 3600
