"""The pages that README and the JavaScript client's page show, as they are but for the address, in a real browser."""

from __future__ import annotations

import re
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.docs_runner import ROOT
from tests.javascript.places import CLIENT
from tests.system.browser import CHROMIUM
from tests.system.harness import Harness
from tests.system.page import page_at

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

PAGES = [
    page
    for place in (ROOT, CLIENT)
    for page in re.findall(r"```html\n(.+?)```", (place / "README.md").read_text(encoding="utf-8"), re.DOTALL)
]


class Checkout(Resource):
    """The files of the checkout, and the page as `first.html`, which finds the market at `port`."""

    isLeaf = True

    def __init__(self, page: str, port: int) -> None:
        super().__init__()
        self._page = page.replace("localhost:8080", f"localhost:{port}")

    def render_GET(self, request: Any) -> bytes:
        path = request.path.decode().strip("/")
        if path == "favicon.ico":
            return b""
        request.setHeader("Content-Type", "text/html" if path == "first.html" else "text/javascript")
        return self._page.encode() if path == "first.html" else (ROOT / path).read_bytes()


@pytest.mark.parametrize("page", PAGES, ids=["readme", "client"])
@pytest_twisted.ensureDeferred
async def test_a_page_shows_the_price(page: str, harness: Harness) -> None:
    daemon = await harness.daemon("--demo")
    site = Site(Checkout(page, daemon.port))
    site.noisy = False
    listening = harness.reactor.listenTCP(0, site, interface="127.0.0.1")
    harness.on_close(listening.stopListening)

    def look() -> None:
        with page_at(f"http://localhost:{listening.getHost().port}/first.html") as (shown, seen):
            shown.wait_for_function("() => Number(document.getElementById('price').textContent) > 0")
            assert seen.errors == []

    await deferToThread(look)
