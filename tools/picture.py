"""Draws docs/images/watch.svg: what `marketfeed watch` shows of the simulated market. The same at every run.

    env/bin/python tools/picture.py >docs/images/watch.svg

The market is the daemon's own (`--demo`), the lines are spelled by the command's own code; only the clock is another.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape

from twisted.internet.task import Clock

from marketfeed.commands.messages import Publication, read_message
from marketfeed.commands.watch.display import COLOURS, show_publication
from marketfeed.demo.simulator import TICK_SECONDS, MarketSimulation, SimulatedEngine
from marketfeed.wire.dialects import publication_head

__all__ = ["picture"]

MARKET = "TATA_INR"
URL = "ws://localhost:8080"
OPENING = datetime(2026, 1, 5, 9, 15, tzinfo=UTC).timestamp()
LINES = 16

_SIZE = 13
_WIDTH, _HEIGHT = 0.605 * _SIZE, 19  # of a character in most fonts, of a line
_MARGIN = 16
_STYLES = {COLOURS["buy"]: "buy", COLOURS["sell"]: "sell", COLOURS["time"]: "time"}
_CODE = re.compile("(\x1b\\[\\d+m)")
_CSS = f"""
text {{ font: {_SIZE}px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre; fill: #d4d7dd }}
.buy {{ fill: #6cc78a }} .sell {{ fill: #ee7f77 }} .time {{ fill: #8b93a1 }}
"""


class _Recorder:
    """Takes the simulated market's publications, and keeps one market's as lines."""

    ready = True

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.lines: list[str] = []

    def publish(self, batch: list[tuple[str, bytes]]) -> None:
        at = datetime.fromtimestamp(OPENING + self._clock.seconds(), UTC)
        for stream, payload in batch:
            message = read_message(publication_head(stream) + payload + b"}")
            if stream.endswith(f"@{MARKET}") and isinstance(message, Publication):
                self.lines.append(show_publication(message, at, colour=True))


def picture() -> str:
    """The picture, as SVG."""
    clock = Clock()
    recorder = _Recorder(clock)
    market = MarketSimulation(clock, recorder, SimulatedEngine(), now=lambda: OPENING + clock.seconds())
    market.startService()
    while len(recorder.lines) < LINES:
        clock.advance(TICK_SECONDS)
    market.stopService()
    streams = " ".join(f"{kind}@{MARKET}" for kind in ("trade", "ticker", "depth"))
    return _svg([f"$ marketfeed watch {URL} {streams}", f"connected to {URL}/", *recorder.lines[:LINES]])


def _svg(lines: list[str]) -> str:
    columns = max(len(_CODE.sub("", line).rstrip()) for line in lines)
    width = round(columns * _WIDTH + 2 * _MARGIN)
    height = len(lines) * _HEIGHT + 2 * _MARGIN
    texts = [
        f'<text x="{_MARGIN}" y="{_MARGIN + number * _HEIGHT + _SIZE}">{"".join(_spans(line))}</text>'
        for number, line in enumerate(lines)
    ]
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<title>marketfeed watch shows the trades, the order book and the ticker of {MARKET}</title>",
            f"<style>{_CSS}</style>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#1b1e24"/>',
            *texts,
            "</svg>\n",
        )
    )


def _spans(line: str) -> Iterator[str]:
    """A line's text, its colours as classes."""
    style = ""
    for part in _CODE.split(line):
        if _CODE.fullmatch(part):
            style = _STYLES.get(part, "")
        elif part:
            text = escape(part, quote=False)
            yield f'<tspan class="{style}">{text}</tspan>' if style else text


if __name__ == "__main__":
    sys.stdout.write(picture())
