"""What daemons say that they want."""

from __future__ import annotations

from marketfeed.candles.demand import Demand


def test_what_is_wanted() -> None:
    """Candles by market, the last 24 hours of some, or of all; a month is no minute; what is not ours is left out."""
    streams = ["kline_1m@A", "kline_1M@A", "kline_1s@B_C", "miniTicker@A", "!miniTicker@arr", "kline_2m@A", "trade@A"]
    demand = Demand.of([*[stream.encode() for stream in streams], b"\xff", b""])
    assert demand == Demand({"A": {"1m", "1M"}, "B_C": {"1s"}}, frozenset(["A"]), True)
    assert Demand.of([]) == Demand()
