"""The market page of a demo in a real browser: its figures are the engine's, and it gets over whatever happens.

`PAGE=seconds` watches for longer, at 1,000 messages a second; `make faults` does.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.request import ProxyHandler, build_opener

import pytest
import pytest_twisted
from playwright.sync_api import Page
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.threads import blockingCallFromThread, deferToThread

from tests.system.browser import CHROMIUM
from tests.system.harness import DaemonProcess, Harness, Redis, trade
from tests.system.page import Seen, page_at, problems_of

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

_PICTURES = os.environ.get("PICTURES")
"""Where to put pictures of it; none are taken without."""
_SECONDS = int(os.environ.get("PAGE", "6"))
_RATE = 1000
_PORTIONS = 6
"""Of that time, after each of which its memory is measured."""
_WIDTHS = (400, 1600)
_MATCHES = 10
T = TypeVar("T")

FULL = """() => document.documentElement.dataset.ready && document.getElementById('pill').dataset.level === 'good'
    && Number(document.getElementById('chart').dataset.candles) > 100
    && document.querySelectorAll('#asks li:not([hidden])').length > 5
    && document.querySelectorAll('#bids li:not([hidden])').length > 5 && document.querySelector('#trades li')"""
# Each book that the ladder has shown lately, by the id of its last change.
REMEMBER = """() => {
    window.shown = new Map();
    const read = (side) => [...document.querySelectorAll(`#${side} li`)].filter((row) => !row.hidden).map(
        (row) => [row.children[1], row.children[2]].map((cell) => cell.textContent.replaceAll(',', '')));
    const keep = () => {
        const ladder = document.getElementById('ladder');
        shown.set(Number(ladder.dataset.update), { bids: read('bids'), asks: read('asks') });
        if (shown.size > 200) shown.delete(shown.keys().next().value);
    };
    new MutationObserver(keep).observe(document.getElementById('ladder'), { attributeFilter: ['data-update'] });
}"""
# What sticks out of the window, but for what is scrolled or hidden on purpose.
WIDE = """() => [...document.querySelectorAll('body *')].filter((node) => node.getClientRects().length
    && !node.closest('#market-list, .unseen, .side, #trades')
    && node.getBoundingClientRect().right > innerWidth + 1).map((node) => node.outerHTML)"""


class Market:
    """A demo, and its page."""

    def __init__(self, harness: Harness, daemon: DaemonProcess) -> None:
        self.harness = harness
        self.daemon = daemon

    @classmethod
    async def start(cls, harness: Harness, *options: str) -> Market:
        return cls(harness, await harness.daemon("--demo", *options))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.daemon.port}/"

    async def look(self, further: Callable[[Page], T], *, may_fail: bool = False, **options: Any) -> T:
        """What `further` finds on the page, once it is full. `may_fail`: the browser may say that it cannot connect."""
        return await deferToThread(self._look, further, may_fail, options)

    def _look(self, further: Callable[[Page], T], may_fail: bool, options: dict[str, Any]) -> T:
        with page_at(f"{self.url}#TATA_INR", **options) as (page, seen):
            page.wait_for_function(FULL)
            found = further(page)
            self._assert_quiet(seen, may_fail)
            return found

    def _assert_quiet(self, seen: Seen, may_fail: bool) -> None:
        errors = [each for each in seen.errors if not (may_fail and ("WebSocket" in each or "Failed to load" in each))]
        assert errors == []
        assert [url for url in seen.requests if not url.startswith(self.url)] == []

    def depth(self) -> Any:
        """The engine's book, as the daemon has it. To be called in a thread."""
        with build_opener(ProxyHandler({})).open(f"{self.url}api/v3/depth?symbol=TATA_INR&limit=20") as answer:
            return json.load(answer)


@pytest_twisted.ensureDeferred
async def test_its_figures_are_the_engines_book(harness: Harness) -> None:
    """Each book that the ladder shows is the one that the daemon had after the same change, also after a while."""
    market = await Market.start(harness)
    await market.daemon.expect(rf"A simulated market is open: http://localhost:{market.daemon.port}/$")

    def look(page: Page) -> int:
        page.evaluate(REMEMBER)
        page.wait_for_timeout(min(_SECONDS, 60) * 1000)
        equal = 0
        while equal < _MATCHES:
            book = market.depth()
            page.wait_for_function(
                "id => Number(document.getElementById('ladder').dataset.update) > id", arg=book["lastUpdateId"]
            )
            shown = page.evaluate("id => shown.get(id) ?? null", book["lastUpdateId"])
            if shown is not None:  # not one of those that were merged with the next
                assert shown == {"bids": book["bids"], "asks": book["asks"]}
                equal += 1
        return equal

    assert await market.look(look) == _MATCHES
    assert await market.daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_cut_misses_nothing(harness: Harness) -> None:
    """The page says so, with how many messages came behind; the tape marks them."""
    market = await Market.start(harness)

    def look(page: Page) -> tuple[str, str, int]:
        page.get_by_role("button", name="Cut my connection").click()
        page.wait_for_function("() => document.getElementById('words').textContent.startsWith('Cut off')")
        assert page.get_by_role("button", name="Cut my connection").is_disabled()
        pill = page.locator("#pill").inner_text()
        page.wait_for_function("() => /[(][1-9]/.test(document.getElementById('verdict').textContent)")
        page.wait_for_function("() => document.querySelector('#trades .recovered')")
        page.wait_for_function(FULL)
        recovered = page.locator("#trades .recovered").count()
        return pill, page.locator("#verdict").inner_text(), recovered

    pill, verdict, recovered = await market.look(look)
    assert pill == "cut off"
    assert verdict.startswith("Nothing missed (")
    assert verdict.endswith(" recovered)")
    assert recovered > 0
    assert await market.daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_it_gets_over_a_restart_of_the_daemon(harness: Harness) -> None:
    """By itself and without a reload: connection, book, trades and candles are those of the new daemon."""
    market = await Market.start(harness)
    port = market.daemon.port

    async def restart() -> None:
        assert await market.daemon.stop() == 0
        market.daemon = await harness.daemon("--demo", "--port", f"tcp:{port}:interface=127.0.0.1")

    def look(page: Page) -> float:
        page.evaluate("window.isTheSame = true")
        blockingCallFromThread(harness.reactor, pytest_twisted.ensureDeferred(restart))
        began = time.monotonic()
        page.wait_for_function(FULL)
        took = time.monotonic() - began
        page.evaluate(REMEMBER)
        page.wait_for_function("() => shown.size > 1")
        newest = page.evaluate("Math.max(...shown.keys())")
        assert newest <= market.depth()["lastUpdateId"]
        assert page.evaluate("window.isTheSame")
        return took

    print(f"healed within {await market.look(look, may_fail=True):.1f} s of the daemon's start")
    assert await market.daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_its_memory_does_not_grow(harness: Harness) -> None:
    """At a thousand trades a second: what is kept is bounded. In a moment it grows by less than these trades take; in
    minutes by no more than a tenth.
    """
    market = await Market.start(harness)
    server = (await market.daemon.expect(r"redis: connected to unix:(\S+)"))[1]
    engine: Redis = await connectProtocol(UNIXClientEndpoint(harness.reactor, server), Redis())
    harness.on_close(lambda: harness.hang_up(engine))  # type: ignore[arg-type]
    last = 0

    def flood(page: Page, seconds: int) -> None:
        nonlocal last
        for _ in range(seconds * 20):
            numbers = range(last + 1, last + 1 + _RATE // 20)
            payloads = [trade("TATA_INR", 10**6 + each, q=str(each % 90 + 1)) for each in numbers]
            last = numbers[-1]
            blockingCallFromThread(harness.reactor, engine.publish, "trade@TATA_INR", *payloads)
            page.wait_for_timeout(50)
        mark = str(10**9 + last)
        blockingCallFromThread(
            harness.reactor, engine.publish, "trade@TATA_INR", trade("TATA_INR", 10**7 + last, q=mark)
        )
        page.wait_for_function(
            """mark => [...document.querySelectorAll('#trades li')].some(
                (row) => row.textContent.replaceAll(',', '').includes(mark))""",
            arg=mark,
        )

    def look(page: Page) -> list[int]:
        session = page.context.new_cdp_session(page)

        def used() -> int:
            session.send("HeapProfiler.collectGarbage")
            return int(session.send("Runtime.getHeapUsage")["usedSize"])

        flood(page, 10)  # until all code is compiled, and every list as long as it may be
        sizes = [used()]
        for _ in range(_PORTIONS):
            flood(page, _SECONDS // _PORTIONS)
            sizes.append(used())
        return sizes

    sizes = await market.look(look)
    print("heap in MiB, in the course of", f"{_SECONDS * _RATE:,} trades:", *(f"{size / 2**20:.2f}" for size in sizes))
    assert sizes[-1] - sizes[0] < (sizes[0] * 0.1 if _SECONDS >= 60 else _SECONDS * _RATE * 100)
    assert await market.daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_it_is_for_everybody(harness: Harness) -> None:
    """axe-core finds nothing, in any width, light and dark, nor with the code shown; and nothing sticks out."""
    market = await Market.start(harness)

    def look(page: Page) -> list[str]:
        found = problems_of(page)
        for width in _WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            found += page.evaluate(WIDE)
        for each in page.get_by_role("button", name="Show me the code").all():
            each.click()
        assert page.locator(".code pre").count() == 5
        assert "depth20@TATA_INR@100ms" in page.locator("#ladder-code pre").inner_text()
        return found + problems_of(page)

    assert await market.look(look) == []
    assert await market.daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_it_is_worked_with(harness: Harness) -> None:
    """By mouse and by keys: another market, another interval, the past, the other colours."""
    market = await Market.start(harness)

    def look(page: Page) -> None:
        page.locator("#market-list button", has_text="BTC").click()
        page.wait_for_function("() => document.getElementById('name').textContent === 'BTC/INR'")
        page.wait_for_function(FULL)
        assert page.url.endswith("#BTC_INR")
        page.get_by_role("button", name="5m", exact=True).click()
        page.wait_for_function("() => Number(document.getElementById('chart').dataset.candles) > 60")
        newest = page.locator("#legend").get_attribute("data-time")
        page.locator("#candles").focus()
        for key in ("ArrowLeft", "ArrowLeft", "Shift+ArrowLeft", "+", "-"):
            page.keyboard.press(key)
        page.wait_for_function("then => document.getElementById('legend').dataset.time < then", arg=newest)
        box = page.locator("#candles").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 300, box["y"] + 200)
        page.mouse.wheel(0, -200)
        page.mouse.down()
        page.mouse.move(box["x"] + 500, box["y"] + 220, steps=4)
        page.mouse.up()
        page.get_by_role("button", name="Now").click()
        theme = page.evaluate("document.documentElement.dataset.theme")
        page.locator("#theme").click()
        assert page.evaluate("document.documentElement.dataset.theme") != theme
        page.reload()
        page.wait_for_function(FULL)
        assert page.evaluate("document.documentElement.dataset.theme") != theme
        assert page.locator("#name").inner_text() == "BTC/INR"

    await market.look(look)
    assert await market.daemon.stop() == 0


@pytest.mark.skipif(not _PICTURES, reason="PICTURES is not set")
@pytest_twisted.ensureDeferred
async def test_pictures(harness: Harness) -> None:
    """As a newcomer sees it, in the light and in the dark, on a phone and on a screen."""
    market = await Market.start(harness)

    def look(page: Page) -> None:
        page.set_viewport_size({"width": 1600, "height": 900})
        page.wait_for_timeout(40_000)
        page.get_by_role("button", name="Cut my connection").click()
        page.wait_for_function("() => /[(][1-9]/.test(document.getElementById('verdict').textContent)")
        page.wait_for_timeout(6000)
        for width, height in ((1600, 900), (400, 860)):
            for scheme in ("dark", "light"):
                page.set_viewport_size({"width": width, "height": height})
                page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                page.mouse.move(0, 0)
                page.wait_for_timeout(700)
                page.screenshot(path=Path(str(_PICTURES)) / f"market-{scheme}-{width}.png")

    await market.look(look)
    assert await market.daemon.stop() == 0
