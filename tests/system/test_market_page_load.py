"""The market page at 1,000 messages a second: what it keeps is bounded, and it draws once for each picture.

`PAGE=seconds env/bin/python -m pytest -n 0 -rP tests/system/test_market_page_load.py` watches for so long, and prints
the figures; `make faults` does for ten minutes. A figure that depends on the machine is asserted only there.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import pytest_twisted
from playwright.sync_api import CDPSession, Page

from tests.system.browser import CHROMIUM
from tests.system.harness import Harness
from tests.system.market import FULL, Market

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

_SECONDS = int(os.environ.get("PAGE", "6"))
_IS_LONG = _SECONDS >= 60
_RATE = 1000
_FILLED = 60 if _IS_LONG else 10
"""Seconds until all that is bounded is full: the pulse shows a minute, the tape 60 trades."""
_PORTIONS = 6
"""Of the time, after each of which its memory is measured."""
_READINGS = 12
_PICTURE = 1 / 60

# When pictures were drawn, in ms; what kept the browser from it for 50 ms and longer; how often the chart was drawn.
OBSERVE = """() => {
    const seen = window.seen = { pictures: [], tasks: [], drawn: 0 };
    const picture = (now) => {
        seen.pictures.push(now);
        requestAnimationFrame(picture);
    };
    requestAnimationFrame(picture);
    new PerformanceObserver((list) => {
        for (const { duration } of list.getEntries()) seen.tasks.push(duration);
    }).observe({ type: 'longtask' });
    const { clearRect } = CanvasRenderingContext2D.prototype;
    CanvasRenderingContext2D.prototype.clearRect = function (...place) {
        if (this.canvas.id === 'candles') seen.drawn += 1;
        clearRect.apply(this, place);
    };
}"""


@pytest_twisted.ensureDeferred
async def test_its_memory_does_not_grow(harness: Harness) -> None:
    """Since all that is bounded is full: in a moment by less than its trades take, in minutes by at most a tenth."""
    market = await Market.start(harness)
    flood = await market.flood(_RATE)

    def look(page: Page) -> list[tuple[int, int]]:
        session = page.context.new_cdp_session(page)
        flood.last(page, _FILLED)
        kept = [_kept(page, session)]
        for _ in range(_PORTIONS):
            flood.last(page, _SECONDS / _PORTIONS)
            kept.append(_kept(page, session))
        page.wait_for_function(FULL)  # and nothing was thinned out for it
        return kept

    kept = await market.look(look)
    sizes, nodes = zip(*kept, strict=True)
    print(f"{flood.published:,} trades at {_RATE:,}/s; heap in MiB", end=" ")
    print(f"after {_FILLED} s and then each {_SECONDS / _PORTIONS:g} s:", end=" ")
    print(*(f"{size / 2**20:.2f}" for size in sizes), "with nodes:", *nodes)
    assert sizes[-1] - sizes[0] < (sizes[0] * 0.1 if _IS_LONG else _SECONDS * _RATE * 100)
    assert nodes[-1] - nodes[0] < 100
    assert await market.daemon.stop() == 0


def _kept(page: Page, session: CDPSession) -> tuple[int, int]:
    """Bytes of the heap that are in use, and nodes of the document: the least of several readings, each after a
    collection of garbage, for what comes between the two is not kept.
    """
    sizes, nodes = [], []
    for _ in range(_READINGS):
        session.send("HeapProfiler.collectGarbage")
        sizes.append(int(session.send("Runtime.getHeapUsage")["usedSize"]))
        nodes.append(int(session.send("Memory.getDOMCounters")["nodes"]))
        page.wait_for_timeout(50)
    return min(sizes), min(nodes)


@pytest_twisted.ensureDeferred
async def test_it_draws_once_for_each_picture(harness: Harness) -> None:
    """However many trades there are in one. Style and layout are worked out for the picture, not for each change; in
    a minute's time most of which is left to the browser.
    """
    market = await Market.start(harness)
    flood = await market.flood(_RATE)
    seconds = min(_SECONDS, 60)

    def look(page: Page) -> tuple[dict[str, Any], dict[str, float]]:
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        flood.last(page, 3)  # until all code is compiled
        page.evaluate(OBSERVE)
        before = _spent(session)
        flood.last(page, seconds)
        after = _spent(session)
        return page.evaluate("seen"), {name: after[name] - before[name] for name in after}

    seen, spent = await market.look(look, viewport={"width": 1600, "height": 900})
    pictures = len(seen["pictures"])
    gaps = sorted(later - earlier for earlier, later in zip(seen["pictures"], seen["pictures"][1:], strict=False))
    work = spent["TaskDuration"] / pictures
    print(
        f"{pictures / sum(gaps) * 1000:.1f} pictures a second at {_RATE:,} trades a second, for {seconds} s;", end=" "
    )
    print(f"from one to the next {_part(gaps, 0.5)} ms, p95 {_part(gaps, 0.95)}, p99 {_part(gaps, 0.99)};", end=" ")
    print(f"tasks over 50 ms: {len(seen['tasks'])}, the longest {max(seen['tasks'], default=0):.0f} ms;", end=" ")
    print(f"processor time of the page's thread for a picture: {work * 1000:.1f} ms, of which", end=" ")
    print(*(f"{name} {spent[f'{name}Duration'] / pictures * 1000:.1f}" for name in ("Script", "Layout", "RecalcStyle")))
    assert 0 < seen["drawn"] <= pictures + 1
    assert spent["LayoutCount"] < 3 * pictures
    assert spent["RecalcStyleCount"] < 4 * pictures
    assert not _IS_LONG or work < _PICTURE
    assert await market.daemon.stop() == 0


def _spent(session: CDPSession) -> dict[str, float]:
    """Seconds of processor time, and how often."""
    return {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}


def _part(ordered: list[float], part: float) -> str:
    return f"{ordered[int(len(ordered) * part)]:.1f}"
