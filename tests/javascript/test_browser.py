"""The JavaScript client in a real browser, as plain modules under a strict policy: pictures, wake-ups, resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from playwright.sync_api import Page
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.javascript.places import CLIENT
from tests.system.browser import CHROMIUM
from tests.system.forwarder import Forwarder
from tests.system.harness import Harness, trade
from tests.system.page import page_at

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

A = "trade@TATA_INR"
D = "depth@TATA_INR"
POLICY = b"default-src 'none'; script-src 'self'; connect-src ws:; img-src data:"
PAGE = b'<!doctype html><title>feed</title><link rel="icon" href="data:,"><script type="module" src="page.js"></script>'


class Files(Resource):
    """The page, its program, and the client's modules as they are."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        name = request.path.decode().strip("/")
        request.setHeader("Content-Security-Policy", POLICY)
        request.setHeader("Content-Type", "text/javascript" if name else "text/html")
        if not name:
            return PAGE
        place = Path(__file__).parent if name == "page.js" else CLIENT / "src"
        return (place / Path(name).name).read_bytes()


@pytest_twisted.ensureDeferred
async def test_a_page_in_a_browser(harness: Harness) -> None:
    server = await harness.redis()
    redis = await server.connect()
    path = str(harness.directory / "daemon")
    daemon = await harness.daemon("--port", f"unix:{path}", "--linger", "600", redis=server, wait=False)
    await daemon.expect(r"redis: connected")
    door = Forwarder(harness, path)
    site = Site(Files())
    site.noisy = False
    port = harness.reactor.listenTCP(0, site, interface="127.0.0.1")
    harness.on_close(port.stopListening)

    async def is_followed() -> bool:
        return {A, D} <= await redis.channels()

    def here(coroutine: Any) -> Any:
        """Let the reactor do it."""
        return blockingCallFromThread(harness.reactor, lambda: Deferred.fromCoroutine(coroutine))

    async def publish(first: int, last: int) -> None:
        await redis.publish(A, *(trade(number=number) for number in range(first, last)))

    async def publish_book(whole: dict[str, Any]) -> None:
        await redis.publish(D, json.dumps(whole).encode())

    async def turn(is_open: bool) -> None:
        door.open() if is_open else door.shut()

    def until(page: Page, condition: str) -> None:
        page.wait_for_function(f"() => {{ const seen = window.seen; return seen && ({condition}); }}")

    def look() -> dict[str, Any]:
        with page_at(f"http://127.0.0.1:{port.getHost().port}/?port={door.port}") as (page, seen):
            here(harness.eventually(is_followed))
            whole = {"e": "depth", "U": 1, "u": 1, "a": [], "b": [["1.00", "2"]], "snapshot": True}
            here(publish_book(whole))
            here(publish(0, 2000))
            until(page, "seen.trades.length === 2000 && seen.book?.state === 'live'")
            for round_, wake in enumerate(("online", "visible")):
                here(turn(False))
                until(page, f"seen.reconnecting === {round_ + 1} && seen.book.state === 'stale'")
                here(publish(2000 + 10 * round_, 2010 + 10 * round_))
                here(turn(True))
                if wake == "online":
                    page.context.set_offline(True)
                    page.context.set_offline(False)
                else:
                    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
                until(page, f"seen.trades.length === {2010 + 10 * round_} && seen.book.state === 'live'")
            found: dict[str, Any] = page.evaluate("window.seen")
            errors = [error for error in seen.errors if "WebSocket connection" not in error]
            assert errors == []
            return found

    found = await deferToThread(look)
    assert found["trades"] == list(range(2020))
    assert found["batches"] < 1000
    assert found["book"]["bids"] == [["1.00", "2"]]
    assert found["states"] == ["open", "waiting", "connecting", "open", "waiting", "connecting", "open"]
    await daemon.stop()
