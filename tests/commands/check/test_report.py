"""The report of `marketfeed check`: the one that the documentation shows, and the colours of a terminal."""

from __future__ import annotations

from marketfeed.commands.check.examination import Examination
from marketfeed.commands.check.report import COLOURS, lines
from tests.commands.check.test_examination import examined, shown, ticker, trade
from tests.docs_runner import blocks


def an_engine() -> Examination:
    """One with a fault, and without some things."""
    good = [trade(number, T=None) for number in range(1, 600)]
    bad = ("depth@TATA_INR", b'{"e":"depth","b":[["1000.35","18"]],"a":[["1000.40",null]],"s":"TATA_INR"}')
    return examined(*good, bad, ticker(), on_streams=False)


def test_the_report_of_the_documentation() -> None:
    """Line for line."""
    shown_there = [each.text.rstrip("\n") for each in blocks("diagram") if each.document == "docs/market-data.md"]
    assert shown(an_engine(), 96) in shown_there


def test_colours() -> None:
    """They are there for who wants them, and change nothing but the colour."""
    coloured = "\n".join(lines(an_engine(), "redis://localhost:6379", 60, columns=96, colour=True))
    for name in ("yes", "no", "fault", "bold", "dim"):
        assert COLOURS[name] in coloured
    for code in (*COLOURS.values(), "\x1b[0m"):
        coloured = coloured.replace(code, "")
    assert coloured == shown(an_engine(), 96)


def test_a_narrow_terminal() -> None:
    """No line is longer than there is room for, but for those of figures."""
    assert max(map(len, shown(an_engine(), 64).splitlines())) <= 64
