"""A real browser with a page of the test's own, which reports what it sees."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.system.harness import Harness, Process

__all__ = ["CHROMIUM", "Browser"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
"""Its path; None: there is none here."""


class Pages(Resource):
    """Serves one page, and keeps what it reports."""

    isLeaf = True

    def __init__(self, page: str, reported: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._page = page
        self._reported = reported

    def render_GET(self, request: Any) -> bytes:
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        return self._page.encode()

    def render_POST(self, request: Any) -> bytes:
        self._reported(json.loads(request.content.read()))
        return b""


class Browser:
    """Chromium with one page. `host`: of the page's origin; names that end in .example are this machine.

    `trusted`: the SHA-256 of a public key, in base64, which is believed whatever its certificate says.
    """

    def __init__(self, harness: Harness, page: str, host: str = "127.0.0.1", trusted: str = "") -> None:
        self._harness = harness
        self.reports: dict[str, Any] = {}
        site = Site(Pages(page, self.reports.update))
        site.noisy = False
        port = harness.reactor.listenTCP(0, site, interface="127.0.0.1")
        harness.on_close(port.stopListening)
        profile = harness.directory / "profile"
        options = ["headless", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update"]
        options += ["disable-sync", "no-first-run", "no-proxy-server", f"user-data-dir={profile}"]
        options += ["host-resolver-rules=MAP *.example 127.0.0.1"]
        options += [f"ignore-certificate-errors-spki-list={trusted}"] if trusted else []
        url = f"http://{host}:{port.getHost().port}/"
        assert CHROMIUM is not None
        self.process: Process = harness.spawn([CHROMIUM, *(f"--{option}" for option in options), url])

    async def report(self, name: str) -> Any:
        """What the page has reported under this name, once it has."""
        await self._harness.eventually(lambda: name in self.reports or self.process.status is not None)
        assert name in self.reports, self.process.lines.all
        return self.reports[name]

    async def close(self) -> None:
        """Let it put everything away, its many processes too."""
        self.process.signal("TERM")
        await self.process.wait()
