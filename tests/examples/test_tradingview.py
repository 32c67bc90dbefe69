"""The datafeed, driven as the Charting Library does it: its chart has the daemon's candles, whatever happens."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest_twisted

from tests.examples.shown import ADDRESS, EXAMPLES, behind_a_door, demo, way_to
from tests.javascript.places import CLIENT, needs_node
from tests.system.harness import DaemonProcess, Harness, Process

pytestmark = needs_node

LIBRARY = Path(__file__).parent / "library.mjs"


class Chart:
    """The library in a process of its own, with a chart of one market."""

    def __init__(self, harness: Harness, daemon: DaemonProcess, resolution: str) -> None:
        node = shutil.which("node")
        assert node is not None
        datafeed, url = EXAMPLES / "tradingview" / "datafeed.js", f"http://{daemon.host}:{daemon.port}"
        words = (LIBRARY, datafeed, CLIENT, url, "TATA_INR", resolution)
        self._harness = harness
        self.process: Process = harness.spawn([node, *map(str, words)])

    def told(self, name: str) -> list[Any]:
        """What it has said of this, in order."""
        assert self.process.status is None, "\n".join(self.process.lines.all)
        lines = [json.loads(line) for line in self.process.lines.all if line.startswith("[")]
        return [words[1:] for words in lines if words[0] == name]

    async def until(self, name: str, more_than: int = 0) -> list[Any]:
        """The same, once it has said it more than so many times."""
        await self._harness.eventually(lambda: len(self.told(name)) > more_than)
        return self.told(name)

    async def ask(self, task: str, answer: str) -> list[Any]:
        """What it answers when it has done that."""
        before = len(self.told(answer))
        self.process.process.write(f"{task}\n".encode())  # type: ignore[attr-defined]
        return (await self.until(answer, before))[-1]  # type: ignore[no-any-return]

    async def end(self) -> None:
        """Nothing was given to it that it cannot take, and nothing is left that keeps it running."""
        assert [words for words in self.told("error") if words[0] == "handler"] == []
        self.process.process.write(b"end\n")  # type: ignore[attr-defined]
        assert await self.process.wait() == 0


@pytest_twisted.ensureDeferred
async def test_it_is_what_the_library_asks_for(harness: Harness) -> None:
    """What is said of a market; then its history, back in pages to where it begins."""
    daemon = await demo(harness)
    chart = Chart(harness, daemon, "1")
    ((filled,),) = await chart.until("filled")
    ((ready,),) = chart.told("ready")
    ((symbol,),) = chart.told("symbol")
    assert filled == 300
    assert ready["supports_time"]
    assert {"1", "60", "1D", "1W", "1M"} <= set(ready["supported_resolutions"]) == set(symbol["supported_resolutions"])
    assert (symbol["pricescale"], symbol["minmov"], symbol["volume_precision"]) == (100, 5, 0)
    assert (symbol["session"], symbol["timezone"], symbol["has_intraday"]) == ("24x7", "Etc/UTC", True)
    assert chart.told("time") == [[True]]
    assert chart.told("found") == [[["TATA_INR"]]]
    assert chart.told("unknown") == [["resolveSymbol: unknown_symbol"]]
    (pages,) = await chart.ask("back", "back")
    assert pages[-1] == 0
    assert sum(pages) > 0
    await chart.until("bar")
    await chart.ask("compare", "same")
    await chart.end()
    assert await daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_bars_go_on_across_a_cut_and_a_restart(harness: Harness) -> None:
    """What was missed is recovered, or the chart is told to ask anew: it ends with the daemon's own candles."""
    daemon, door = await behind_a_door(harness)
    chart = Chart(harness, daemon, "1S")
    await chart.until("filled")
    await chart.until("bar", 5)
    await chart.ask("compare", "same")
    door.shut()
    await chart.until("error")
    await harness.pause(3)  # several bars come to their end meanwhile
    seen = len(chart.told("bar"))
    door.open()
    await chart.until("bar", seen + 3)
    await chart.ask("compare", "same")
    resets = len(chart.told("reset"))
    assert await daemon.stop() == 0
    path = str(harness.directory / "another")
    again = await harness.daemon("--demo", "--port", f"unix:{path}", wait=False)
    await way_to(harness, again, path)
    door.path = path
    await chart.until("reset", resets)
    await chart.ask("compare", "same")
    seen = len(chart.told("bar"))
    await chart.until("bar", seen + 3)
    await chart.end()
    assert await again.stop() == 0


STAND_IN = """
import {{ WebSocket as Socket }} from '{client}/node_modules/ws/wrapper.mjs';
globalThis.WebSocket ??= Socket;
globalThis.TradingView = {{ widget: class {{
  constructor({{ datafeed, symbol, interval }}) {{
    const to = Math.floor(Date.now() / 1000) + 60;
    const show = (info) => datafeed.getBars(info, interval, {{ to, countBack: 50, firstDataRequest: true }},
      (bars) => console.log(`${{info.name}}: ${{bars.length}} bars`), console.error);
    datafeed.onReady(() => datafeed.resolveSymbol(symbol, show, console.error));
  }}
}} }};
"""
"""What the library does first with what a page gives it."""


@pytest_twisted.ensureDeferred
async def test_the_page_puts_it_together(harness: Harness) -> None:
    """The lines that README shows give the library a datafeed that it can use."""
    daemon = await demo(harness)
    (shown,) = re.findall(r"```js\n(.*?)```", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    for name, path in (
        ("marketfeed/rest", CLIENT / "src" / "rest.js"),
        ("marketfeed", CLIENT / "src" / "index.js"),
        ("./datafeed.js", EXAMPLES / "tradingview" / "datafeed.js"),
    ):
        shown = shown.replace(f"from '{name}'", f"from '{path}'")
    program = harness.directory / "page.mjs"
    program.write_text(STAND_IN.format(client=CLIENT) + shown.replace(ADDRESS, f"127.0.0.1:{daemon.port}"))
    node = shutil.which("node")
    assert node is not None
    page = harness.spawn([node, str(program)])
    await page.expect("^TATA_INR: 50 bars$")
