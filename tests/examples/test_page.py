"""The page, served as its file is but for the address, in a real browser."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from playwright.sync_api import Page
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.docs_runner import ROOT
from tests.examples.shown import ADDRESS, behind_a_door, commands
from tests.system.browser import CHROMIUM
from tests.system.harness import Harness
from tests.system.page import page_at, problems_of

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

LIVE = """() => document.getElementById('book').dataset.state === 'live'
    && [...document.querySelectorAll('td')].every((cell) => Number(cell.textContent) > 0)
    && Number(document.getElementById('price').textContent) > 0"""
SAYS = "pattern => new RegExp(pattern).test(document.getElementById('status').textContent)"


class Checkout(Resource):
    """The files of the checkout, as any web server has them; with the market at `port`."""

    isLeaf = True

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    def render_GET(self, request: Any) -> bytes:
        path = ROOT / request.path.decode().strip("/")
        path = path / "index.html" if path.is_dir() else path
        request.setHeader("Content-Type", "text/html" if path.suffix == ".html" else "text/javascript")
        return path.read_bytes().replace(ADDRESS.encode(), f"localhost:{self._port}".encode())


@pytest_twisted.ensureDeferred
async def test_it_is_live_and_gets_over_a_cut(harness: Harness) -> None:
    daemon, door = await behind_a_door(harness)
    site = Site(Checkout(door.port))
    site.noisy = False
    listening = harness.reactor.listenTCP(0, site, interface="127.0.0.1")
    harness.on_close(listening.stopListening)
    assert commands("A page") == ["python3 -m http.server --bind localhost 8000"]
    url = f"http://localhost:{listening.getHost().port}/examples/page/"

    def turn(is_open: bool) -> None:
        async def do() -> None:
            door.open() if is_open else door.shut()

        blockingCallFromThread(harness.reactor, lambda: Deferred.fromCoroutine(do()))

    def look(page: Page) -> None:
        page.wait_for_function(LIVE)
        assert page.locator("tbody tr").count() == 8
        bids, asks = (page.locator(f"td:nth-child({column})").all_inner_texts() for column in (2, 3))
        assert sorted(map(float, bids), reverse=True) == list(map(float, bids))
        assert sorted(map(float, asks)) == list(map(float, asks))
        assert float(bids[0]) < float(asks[0])
        assert problems_of(page) == []
        turn(False)
        page.wait_for_function(SAYS, arg=r"^Connection lost\. Attempt \d+ in [\d.]+ s$")
        page.wait_for_function("() => document.getElementById('book').dataset.state === 'stale'")
        turn(True)
        page.wait_for_function(SAYS, arg=r"^Connected again, nothing missed: \d+ came late$")
        page.wait_for_function(LIVE)

    def browse() -> None:
        with page_at(url) as (page, seen):
            look(page)
            assert [error for error in seen.errors if "WebSocket connection" not in error] == []
            assert not [asked for asked in seen.requests if not asked.startswith(("http://localhost:", "data:"))]

    await deferToThread(browse)
    assert await daemon.stop() == 0
