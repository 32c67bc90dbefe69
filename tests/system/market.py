"""The market page of a demo, for tests: the daemon, the page once it is full, and an engine that publishes fast."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.request import ProxyHandler, build_opener

from playwright.sync_api import Page
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.task import LoopingCall
from twisted.internet.threads import blockingCallFromThread, deferToThread

from tests.system.harness import DaemonProcess, Harness, Redis, trade
from tests.system.page import Seen, page_at

__all__ = ["FULL", "Flood", "Market"]

T = TypeVar("T")

FULL = """() => document.documentElement.dataset.ready && document.getElementById('pill').dataset.level === 'good'
    && Number(document.getElementById('chart').dataset.candles) > 100
    && document.querySelectorAll('#asks li:not([hidden])').length > 5
    && document.querySelectorAll('#bids li:not([hidden])').length > 5 && document.querySelector('#trades li')"""

_TURNS = 50
"""In a second, in each of which its share of the trades is published."""


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

    async def flood(self, rate: int) -> Flood:
        """An engine beside the demo's own, for `rate` trades a second."""
        server = (await self.daemon.expect(r"redis: connected to unix:(\S+)"))[1]
        engine: Redis = await connectProtocol(UNIXClientEndpoint(self.harness.reactor, server), Redis())
        self.harness.on_close(lambda: self.harness.hang_up(engine))  # type: ignore[arg-type]
        return Flood(self.harness, engine, rate)


class Flood:
    """An engine that publishes trades of TATA_INR by the clock: what it could not do in time it does later."""

    def __init__(self, harness: Harness, engine: Redis, rate: int) -> None:
        self.published = 0
        self._harness = harness
        self._engine = engine
        self._share = rate // _TURNS
        self._turns: LoopingCall | None = None
        harness.on_close(self._stop)

    def last(self, page: Page, seconds: float) -> None:
        """Publish for so long, and until the page shows the last one. To be called in a thread."""
        mark = blockingCallFromThread(self._harness.reactor, lambda: Deferred.fromCoroutine(self._publish_for(seconds)))
        page.wait_for_function(
            """mark => [...document.querySelectorAll('#trades li')].some(
                (row) => row.textContent.replaceAll(',', '').includes(mark))""",
            arg=mark,
        )

    async def _publish_for(self, seconds: float) -> str:
        """The quantity of the last trade, which no other one has."""
        self._turns = LoopingCall.withCount(self._turn)  # one that has been stopped would count what was in between
        self._turns.clock = self._harness.reactor
        self._turns.start(1 / _TURNS, now=False)
        await self._harness.pause(seconds)
        self._stop()
        mark = str(10**9 + self.published)
        self._publish([mark])
        return mark

    def _stop(self) -> None:
        if self._turns is not None:
            self._turns.stop()
            self._turns = None

    def _turn(self, count: int) -> None:
        self._publish([str(each % 90 + 1) for each in range(count * self._share)])

    def _publish(self, quantities: list[str]) -> None:
        first = 10**6 + self.published
        payloads = [
            trade("TATA_INR", first + at, p=f"{1000 + at % 40 / 20:.2f}", q=quantity, m=at % 3 == 0)
            for at, quantity in enumerate(quantities)
        ]
        self.published += len(payloads)
        self._engine.publish("trade@TATA_INR", *payloads)
