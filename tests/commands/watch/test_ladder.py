"""The ladders of `marketfeed watch`, on a terminal of the test's own that obeys their codes."""

from __future__ import annotations

import json
import re
from io import BytesIO, StringIO
from typing import Any
from unicodedata import east_asian_width

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.commands.messages import Publication, read_message
from marketfeed.commands.watch.command import TextScreen
from marketfeed.commands.watch.ladder import Ladders
from tests.docs_runner import blocks
from tests.strategies import property_test

BIDS = [["1000.35", "18"], ["1000.30", "6"]]
ASKS = [["1000.40", "4"], ["1000.45", "9"]]


class Terminal:
    """What is on a screen: the lines above the cursor, which is always at the beginning of a line."""

    _CODE = re.compile(r"\x1b\[(\d*)([AJKm])|\r|\n|[^\x1b\r\n]+")

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self.size = (columns, rows)
        self.lines: list[str] = [""]
        self._at = 0

    def feed(self, text: str) -> None:
        column = 0
        for found in self._CODE.finditer(text):
            token, count, code = found[0], found[1], found[2]
            if code == "A":
                self._at -= int(count)
                assert self._at >= max(0, len(self.lines) - self.size[1]), "what has left the screen is out of reach"
            elif code == "J":
                self.lines[self._at :] = [self.lines[self._at][:column]]
            elif code == "K":
                self.lines[self._at] = self.lines[self._at][:column]
            elif token == "\r":
                column = 0
            elif token == "\n":
                self._at, column = self._at + 1, 0
                if self._at == len(self.lines):
                    self.lines.append("")
            elif code is None:
                line = self.lines[self._at]
                wide = sum(east_asian_width(character) in "WF" for character in token)
                assert column + len(token) + wide <= self.size[0], "it would go on in the next line"
                self.lines[self._at] = line[:column] + token + line[column + len(token) :]
                column += len(token)
        assert text.count("\x1b") == len(re.findall("\x1b\\[\\d*[AJKm]", text)), "no other code"

    @property
    def shown(self) -> list[str]:
        assert self._at == len(self.lines) - 1
        return self.lines[:-1]


def depth(stream: str = "depth20@TATA_INR", bids: Any = BIDS, asks: Any = ASKS) -> bytes:
    kind = next(part for part in stream.split("@") if part.startswith("depth"))
    return json.dumps({"stream": stream, "data": {"e": kind, "s": "X", "bids": bids, "asks": asks}}).encode()


def publication(payload: bytes) -> Publication:
    message = read_message(payload)
    assert isinstance(message, Publication)
    return message


def drawn(ladders: Ladders, *payloads: bytes) -> str:
    for payload in payloads:
        assert ladders.take(publication(payload), "12:00:00")
    return ladders.draw()


def test_a_ladder() -> None:
    """Asks above bids, best to best, figures in columns, a bar for each quantity."""
    terminal = Terminal()
    terminal.feed(drawn(Ladders(lambda: terminal.size), depth()))
    assert terminal.shown == [
        "TATA_INR      depth20  12:00:00",
        "  1000.45   9  " + "#" * 15,
        "  1000.40   4  " + "#" * 6,
        "  spread 0.05",
        "  1000.35  18  " + "#" * 30,
        "  1000.30   6  " + "#" * 10,
    ]


def test_the_ladder_of_the_documentation() -> None:
    """Line for line."""
    terminal = Terminal()
    terminal.feed(drawn(Ladders(lambda: terminal.size), depth("depth5@TATA_INR")))
    shown_there = [each.text.splitlines() for each in blocks("diagram") if each.document == "docs/market-data.md"]
    assert terminal.shown in shown_there


def test_it_is_redrawn_in_its_place() -> None:
    """The next one stands where the last one stood, with nothing left of that."""
    terminal = Terminal()
    ladders = Ladders(lambda: terminal.size)
    terminal.feed(drawn(ladders, depth()))
    terminal.feed(drawn(ladders, depth(bids=[["1", "2"]], asks=[])))
    assert terminal.shown == ["TATA_INR      depth20  12:00:00", "  no asks", "  1  2  " + "#" * 30]


def test_several() -> None:
    """One below the other, each of the levels for which there is room, the best ones."""
    terminal = Terminal(rows=11)
    levels = [[str(100 + number), "1"] for number in range(20)]
    ladders = Ladders(lambda: terminal.size)
    terminal.feed(drawn(ladders, depth("depth20@A", levels[::-1], levels), depth("depth5@B")))
    assert [line.split()[0] for line in terminal.shown] == [
        "A",
        "100",
        "spread",
        "119",
        "B",
        "1000.40",
        "spread",
        "1000.35",
    ]


def test_too_many() -> None:
    """What has no room is a line like any other publication."""
    ladders = Ladders(lambda: (80, 8))
    assert [ladders.take(publication(depth(f"depth20@M{number}")), "") for number in range(3)] == [True, False, False]
    assert ladders.take(publication(depth("depth20@M0")), "")


def test_a_terminal_that_becomes_too_small() -> None:
    """Nothing is drawn that has no room."""
    terminal = Terminal()
    ladders = Ladders(lambda: terminal.size)
    terminal.feed(drawn(ladders, depth()))
    terminal.size = (80, 3)
    assert drawn(ladders, depth()).count("\n") == 0


@pytest.mark.parametrize("columns", [1, 5, 20, 25])
def test_a_narrow_terminal(columns: int) -> None:
    """No line goes on in the next one."""
    terminal = Terminal(columns=columns)
    terminal.feed(drawn(Ladders(lambda: terminal.size), depth()))
    assert len(terminal.shown) == 6


def test_colours() -> None:
    """Bids are green, asks red."""
    text = drawn(Ladders(lambda: (80, 24), colour=True), depth())
    assert "\x1b[31m  1000.40" in text
    assert "\x1b[32m  1000.35" in text


def test_other_publications_are_none() -> None:
    """Ladders are of the best levels of a book, alone."""
    ladders = Ladders(lambda: (80, 24))
    for payload in (b'{"e":"depth","a":[],"b":[]}', b'{"e":["depth20"]}', b"[]", b'{"e":"depth7"}'):
        assert not ladders.take(publication(payload), "")
    assert ladders.draw() == ""


@property_test
@given(
    st.lists(
        st.one_of(
            st.just(b'{"stream":"funding@A","data":{"e":"funding"}}'),
            st.just(b'{"stream":"!gap","data":{"e":"gap","streams":[],"from":1,"to":null}}'),
            st.builds(
                depth,
                st.sampled_from(["depth5@A", "depth20@A", "depth10@\u6f22", "b@depth20"]),
                *[
                    st.lists(
                        st.one_of(
                            st.tuples(
                                st.sampled_from(["1", "2.50", "1E+999999", "-1", "0", "x\x1b[2J", "\u6f22" * 50]),
                                st.sampled_from(["1", "20", "1E+999999", "0", "", "\u6f22"]),
                            ),
                            st.sampled_from([None, [], [1, 2], "text"]),
                        ),
                        max_size=25,
                    )
                ]
                * 2,
            ),
        ),
        max_size=12,
    ),
    st.integers(60, 100),
    st.integers(4, 40),
)  # fmt: skip
def test_lines_stand_above_ladders(payloads: list[bytes], columns: int, rows: int) -> None:
    """Whatever comes, lines stay, in their order, and the ladders are below them, each once."""
    terminal, out = Terminal(columns, rows), BytesIO()
    ladders = Ladders(lambda: terminal.size)
    screen = TextScreen(out, StringIO(), is_terminal=True, ladders=ladders)
    lines, shown = 0, set()
    for payload in payloads:
        message = read_message(payload)
        if isinstance(message, Publication):
            is_ladder = message.stream in shown or ladders._room(len(shown) + 1) >= 1
            if message.data.get("e") == "funding" or not is_ladder:
                if message.data.get("e") != "funding":
                    continue  # a line that may be longer than this terminal is wide
                lines += 1
            else:
                shown.add(message.stream)
        screen.message(payload, message)
    terminal.feed(out.getvalue().decode())
    assert sum("funding" in line for line in terminal.shown) == lines
    assert all("funding" in line for line in terminal.shown[:lines])
    assert sum(bool(re.search(r"  depth\d+ ", line)) for line in terminal.shown) == len(shown)
    assert len(terminal.shown) - lines < rows
