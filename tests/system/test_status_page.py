"""The status page in a real browser: it names the cause, and its figures are those of the metrics."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from playwright.sync_api import Page
from twisted.internet.threads import deferToThread

from tests.system.admin_port import ADMIN, AdminPort
from tests.system.browser import CHROMIUM
from tests.system.harness import DaemonProcess, Harness, Redis, RedisServer, trade
from tests.system.page import Seen, page_at, problems_of, shoot, until

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

A = "trade@TATA_INR"
_PICTURES = os.environ.get("PICTURES")
"""Where to put pictures of the five; none are taken without."""
TILES = """() => Object.fromEntries([...document.querySelectorAll('.tiles li')].map(
    (tile) => [tile.querySelector('.name').textContent, tile.querySelector('.value').textContent]))"""


class Watched:
    """A daemon with its admin port, an engine, and what the page says of them."""

    def __init__(self, harness: Harness, daemon: DaemonProcess, admin: AdminPort, redis: RedisServer) -> None:
        self.harness = harness
        self.daemon = daemon
        self.admin = admin
        self.redis = redis
        self.engine: Redis

    @classmethod
    async def start(cls, harness: Harness, *options: str) -> Watched:
        redis = await harness.redis()
        daemon = await harness.daemon(*ADMIN, *options, redis=redis)
        watched = cls(harness, daemon, await AdminPort.of(daemon), redis)
        watched.engine = await redis.connect()
        return watched

    @property
    def url(self) -> str:
        return f"{self.admin.url}/"

    async def look(
        self, pattern: str, name: str, level: str | None, further: Callable[[Page], Any] | None = None
    ) -> Any:
        """Wait until the page says so; what `further` finds there. Nothing may be wrong with the page itself."""
        return await deferToThread(self._look, pattern, name, level, further)

    def _look(self, pattern: str, name: str, level: str | None, further: Callable[[Page], Any] | None) -> Any:
        with page_at(self.url) as (page, seen):
            until(page, pattern)
            assert level in (None, page.locator("#news").get_attribute("data-level"))
            found = None if further is None else further(page)
            assert problems_of(page) == []
            self._assert_quiet(seen)
            if _PICTURES and name != "healthy":
                shoot(page, Path(_PICTURES) / f"status-{name}.png")
            return found

    def _assert_quiet(self, seen: Seen) -> None:
        assert seen.errors == []
        assert [url for url in seen.requests if not url.startswith(self.url)] == []


def figures(page: Page) -> dict[str, str]:
    """The tiles, by name."""
    tiles: dict[str, str] = page.evaluate(TILES)
    return tiles


def table(page: Page, name: str) -> list[list[str]]:
    """The rows of a table."""
    rows: list[list[str]] = page.evaluate(
        """name => [...document.getElementById(name).rows].slice(1).map(
            (row) => [...row.cells].map((cell) => cell.textContent))""",
        name,
    )
    return rows


@pytest_twisted.ensureDeferred
async def test_all_is_well(harness: Harness) -> None:
    """The figures of the page are those of the metrics; a stream and a client can be opened, by keyboard as well."""
    watched = await Watched.start(harness)
    clients = [await harness.client(watched.daemon) for _ in range(3)]
    for client in clients:
        await client.subscribe(A, "ticker@TATA_INR")
    for number in range(7):
        await watched.engine.publish(A, trade("TATA_INR", number))
    for client in clients:
        for number in range(7):
            assert (await client.next())["data"]["t"] == number

    def further(page: Page) -> tuple[dict[str, str], list[list[str]], str, str]:
        tiles, kinds = figures(page), table(page, "kinds")
        page.get_by_role("button", name=A).focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog[open]")
        stream = page.locator("#detail").inner_text()
        page.keyboard.press("Escape")
        page.get_by_label("Name, address or user").fill("127.0.0.1")
        page.locator("#slowest button").first.click()
        page.wait_for_selector("dialog[open]")
        client = page.locator("#detail").inner_text()
        page.keyboard.press("Escape")
        return tiles, kinds, stream, client

    tiles, kinds, stream, client = await watched.look(r"\b3 clients\.", "healthy", None, further)
    metrics = await watched.admin.samples(harness)
    assert (tiles["clients"], tiles["streams"], tiles["subscriptions"]) == ("3", "2", "6")
    assert (metrics["clients"], metrics["streams"], metrics["subscriptions"]) == (3, 2, 6)
    assert kinds[0][:3] == ["trade", "7", "21"]
    assert (metrics["publications_total trade"], metrics["deliveries_total trade"]) == (7, 21)
    assert '"t":6' in stream
    assert f"marketfeed watch {A}" in stream
    assert "ticker@TATA_INR" in client
    assert await watched.daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_a_live_market(harness: Harness) -> None:
    """As a newcomer sees it: the page of the demo is full of figures that move."""
    daemon = await harness.daemon("--demo", *ADMIN)
    admin = await AdminPort.of(daemon)
    for number in range(12):
        client = await harness.client(daemon)
        await client.subscribe("trade@TATA_INR", "depth@TATA_INR", *["ticker@BTC_INR"] * (number % 2))

    def look() -> tuple[dict[str, str], list[list[str]]]:
        with page_at(f"{admin.url}/") as (page, seen):
            until(page, r"\b12 clients\.")
            page.wait_for_function(
                """() => [...document.querySelectorAll('#busiest tr')].filter(
                    (row) => Number(row.cells[1].textContent) > 0).length > 5"""
            )
            if _PICTURES:
                page.wait_for_timeout(100_000)
                shoot(page, Path(_PICTURES) / "status.png", height=1180)
            assert seen.errors == []
            return figures(page), table(page, "busiest")

    tiles, streams = await deferToThread(look)
    assert (tiles["clients"], tiles["subscriptions"]) == ("12", "30")
    assert int(tiles["streams"]) == 18
    assert "depth@TATA_INR" in [row[0] for row in streams] or len(streams) == 10
    assert await daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_redis_is_away(harness: Harness) -> None:
    watched = await Watched.start(harness)
    for _ in range(2):
        await (await harness.client(watched.daemon)).subscribe(A)
    await watched.redis.kill()
    links, outages = await watched.look(
        r"^Redis is away since \d\d:\d\d:\d\d UTC: .+; 2 clients were told\.",
        "redis-away",
        "bad",
        lambda page: (table(page, "links"), table(page, "outages")),
    )
    assert links[0][:2] == ["redis", "down"]
    assert (outages[0][0], outages[0][2], outages[0][4]) == ("redis", "still", "2")
    metrics = await watched.admin.samples(harness)
    assert (metrics["source_up redis"], metrics["gaps_total source-down"]) == (0, 1)
    await watched.daemon.stop()


@pytest_twisted.ensureDeferred
async def test_the_engine_is_silent(harness: Harness) -> None:
    config = harness.directory / "marketfeed.toml"
    config.write_text("[streams.trade]\nsilence = 1\n", encoding="utf-8")
    watched = await Watched.start(harness, "--config", str(config))
    await (await harness.client(watched.daemon)).subscribe(A)
    await watched.engine.publish(A, trade())
    streams = await watched.look(
        r"^The engine is silent: nothing of trade has come since \d\d:\d\d:\d\d UTC \(\[streams\.trade\] silence\)\.",
        "engine-silent",
        "bad",
        lambda page: table(page, "busiest"),
    )
    assert streams[0][5].startswith("engine-silent since ")
    assert (await watched.admin.samples(harness))["gaps_total engine-silent"] == 1
    assert await watched.daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_one_client_is_slow(harness: Harness) -> None:
    """It is the first in the list, with what waits for it beside the limit; the others are well."""
    watched = await Watched.start(harness, "--client-queue", "4194304", "--ping-interval", "0")
    healthy, slow = await harness.client(watched.daemon), await harness.client(watched.daemon)
    for client in (healthy, slow):
        await client.subscribe("ticker@TATA_INR", A)
    slow.transport.pauseProducing()
    heard = 0

    async def is_behind() -> bool:
        nonlocal heard
        payloads = [trade("TATA_INR", number, pad="x" * 8000) for number in range(100)]
        await watched.engine.publish(A, *payloads)
        for _ in payloads:
            await healthy.next_bytes()
        heard += len(payloads)
        return (await watched.admin.samples(harness))["backlog_bytes"] > 2_200_000

    await harness.eventually(is_behind)
    rows = await watched.look(
        r"^One client is slow: [\d.]+ [KM]iB of 4\.0 MiB \(--client-queue\) wait for \w+-2 at 127\.0\.0\.1:\d+\.",
        "slow-client",
        "warn",
        lambda page: table(page, "slowest"),
    )
    waiting = (await watched.admin.samples(harness))["backlog_bytes"]
    assert rows[0][0].endswith("-2")
    assert rows[0][1] == f"{waiting / 2**20:.1f} MiB"
    assert rows[1][1] == "0 bytes"
    slow.transport.resumeProducing()
    for _ in range(heard):
        await slow.next_bytes()
    assert await watched.daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_the_engine_writes_rubbish(harness: Harness) -> None:
    watched = await Watched.start(harness)
    await (await harness.client(watched.daemon)).subscribe(A)
    await watched.engine.publish(A, trade(), *[b'{"e":"trade","p":'] * 5, b'{"e":"trade"}')
    kinds = await watched.look(
        r"^The engine writes what is not right: 6 publications in the last minute, dropped; last on trade@TATA_INR: ",
        "rubbish",
        "warn",
        lambda page: table(page, "kinds"),
    )
    metrics = await watched.admin.samples(harness)
    dropped = dict(re.findall(r"([\w-]+) (\d+)", kinds[0][4]))
    assert sum(map(int, dropped.values())) == 6
    for reason, count in dropped.items():
        assert metrics[f"dropped_publications_total trade {reason}"] == int(count)
    assert await watched.daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_memory_is_short(harness: Harness) -> None:
    watched = await Watched.start(harness, "--memory-limit", "1MiB")
    refused = await watched.look(
        r"^Memory is short \([\d.]+ MiB of 1\.0 MiB, --memory-limit\): nobody is let in\.",
        "memory",
        "bad",
        figures,
    )
    assert refused["memory"].endswith("MiB")
    assert (await watched.admin.samples(harness))["memory_limit_bytes"] == 1 << 20
    assert await watched.daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_the_daemon_has_gone(harness: Harness) -> None:
    """The page says that its figures are old, and goes on when there is a daemon again."""
    watched = await Watched.start(harness)

    def look() -> None:
        with page_at(watched.url) as (page, _):
            until(page, r"\b0 clients\.")
            watched.daemon.process.signal("INT")
            until(page, r"^The daemon does not answer this page for \d+ s; the figures below are of then\.$")
            assert page.locator("#news").get_attribute("data-level") == "bad"

    await deferToThread(look)
    assert await watched.daemon.process.wait() == 0


@pytest_twisted.ensureDeferred
async def test_the_token_is_shown_once(harness: Harness) -> None:
    """Through a proxy that says so, which is elsewhere: the form, a wrong token, the right one, and then the page."""
    token = harness.directory / "token"
    token.write_text("0123456789abcdef\n", encoding="utf-8")
    watched = await Watched.start(harness, "--admin-token-file", str(token))

    def look() -> None:
        with page_at(watched.url, extra_http_headers={"X-Forwarded-For": "192.0.2.1"}) as (page, seen):
            assert problems_of(page) == []
            page.get_by_label("token").fill("a wrong one, surely")
            page.keyboard.press("Enter")
            page.get_by_role("alert").wait_for()
            page.get_by_label("token").fill("0123456789abcdef")
            page.get_by_role("button").click()
            until(page, r"\b0 clients\.")
            assert [url for url in seen.requests if not url.startswith(watched.url)] == []

    await deferToThread(look)
    assert await watched.daemon.stop() == 0
