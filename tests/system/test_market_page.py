"""The market page of a demo in a real browser: its figures are the engine's, and it gets over whatever happens.

`PAGE=seconds` watches for up to a minute; `make faults` does. `test_market_page_load.py` is of a thousand a second.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import pytest_twisted
from playwright.sync_api import Page, Route
from twisted.internet.threads import blockingCallFromThread

from marketfeed.demo.market import INSTRUMENTS
from tests.system.browser import CHROMIUM
from tests.system.harness import Harness
from tests.system.market import FULL, Market
from tests.system.page import problems_of

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

_PICTURES = os.environ.get("PICTURES")
"""Where to put pictures of it; none are taken without."""
_SECONDS = int(os.environ.get("PAGE", "6"))
_IS_LONG = _SECONDS >= 60
_WIDTHS = (400, 1600)
_MATCHES = 10
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

    took = await market.look(look, may_fail=True)
    print(f"healed within {took:.1f} s of the daemon's start")
    assert took < 5 or not _IS_LONG
    assert await market.daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_a_past_that_is_late_is_shown(harness: Harness) -> None:
    """A daemon that has just begun has no candles yet: the page asks again, for the chart and for the list."""
    market = await Market.start(harness)
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        if asked.count(asked[-1]) == 1:
            route.fulfill(json=[])
        else:
            route.continue_()

    def look(page: Page) -> None:
        page.route("**/api/v3/klines?*", answer)
        page.reload()
        page.wait_for_function(FULL)

    await market.look(look)
    assert len(set(asked)) == 1 + len(INSTRUMENTS)
    assert await market.daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_it_is_for_everybody(harness: Harness) -> None:
    """axe-core finds nothing, in any width, light and dark, nor with the code shown; and nothing sticks out."""
    market = await Market.start(harness)

    def look(page: Page) -> list[str]:
        found = problems_of(page, (320, 400, 800, 1200, 1600))
        for width in _WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            found += page.evaluate(WIDE)
        for each in page.get_by_role("button", name="Show me the code").all():
            each.click()
        assert page.locator(".code pre").count() == 5
        assert "depth20@TATA_INR@100ms" in page.locator("#ladder-code pre").inner_text()
        return found + problems_of(page, _WIDTHS)

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
