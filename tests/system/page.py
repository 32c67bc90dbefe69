"""A page in a real browser, as a person and as their browser's console see it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

from tests.system.browser import CHROMIUM
from tests.system.harness import DEADLINE

__all__ = ["Seen", "page_at", "problems_of", "shoot", "until"]

_WIDTHS = (320, 800, 1600)
_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
_OPTIONS += ["--disable-sync", "--no-first-run", "--no-proxy-server"]


@dataclass
class Seen:
    """What the browser noticed: lines of its console, and requests, by URL."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def page_at(url: str, **options: Any) -> Iterator[tuple[Page, Seen]]:
    """The page at `url`, once its first answer is shown. To be used in a thread of its own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_OPTIONS)
        try:
            page = browser.new_page(**options)
            page.set_default_timeout(DEADLINE * 1000)
            seen = Seen()
            page.on("console", lambda message: seen.errors.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: seen.errors.append(str(error)))
            page.on("request", lambda request: seen.requests.append(request.url))
            page.goto(url)
            yield page, seen
        finally:
            browser.close()


def problems_of(page: Page, widths: Iterable[int] = _WIDTHS) -> list[str]:
    """What axe-core finds, in each width, in the light and in the dark; and what is wider than the screen."""
    problems = []
    for width in widths:
        for scheme in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            for violation in Axe().run(page).response["violations"]:
                where = [node["target"] for node in violation["nodes"]]
                problems.append(f"{width} {scheme}: {violation['id']}: {violation['help']}: {where}")
            wide = page.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                problems.append(f"{width} {scheme}: {wide} px wide")
    return problems


def shoot(page: Page, path: Path, *, height: int = 760) -> None:
    """A picture of the first screen, in the light."""
    page.set_viewport_size({"width": 1280, "height": height})
    page.emulate_media(color_scheme="light")
    page.wait_for_timeout(1500)
    page.screenshot(path=path)


def until(page: Page, pattern: str) -> str:
    """The sentence at the top, once it is like that."""
    page.wait_for_function(
        "pattern => new RegExp(pattern).test(document.getElementById('summary').textContent)", arg=pattern
    )
    text = page.locator("#summary").inner_text()
    assert re.search(pattern, text)
    return text
