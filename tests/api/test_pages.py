"""What the admin port answers, path by path."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from marketfeed.api.page import Page
from marketfeed.api.pages import Pages
from marketfeed.api.status import Status
from marketfeed.web.files import FILES
from tests.api.world import World
from tests.rooms import member


class Answering(World):
    """All that counts, and the pages of it."""

    def __init__(self) -> None:
        super().__init__()
        status = Status(self.parts, self.samples, self.lists, "b", dict)
        self.pages = Pages(self.parts.health, self.metrics, status, self.lists)

    def ask(self, path: str, **query: str) -> Page:
        answer = self.pages.find(path)
        assert answer is not None
        found: list[Page] = []
        page = answer(query)
        (page if isinstance(page, Deferred) else succeed(page)).addCallback(found.append)
        return found[0]


@pytest.fixture
def world() -> Iterator[Answering]:
    yield (world := Answering())
    world.stop()


def test_health(world: Answering) -> None:
    assert world.ask("/healthz") == Page(b"ok\n")
    page = world.ask("/readyz")
    assert (page.status, json.loads(page.body)) == (503, {"ready": False, "reasons": ["source-never-reached"]})
    world.room.source.sink.reached("redis")
    page = world.ask("/readyz")
    assert (page.status, json.loads(page.body)) == (200, {"ready": True, "reasons": []})


def test_what_there_is_for_programs(world: Answering) -> None:
    assert b"marketfeed_clients 0.0" in world.ask("/metrics").body
    for path in ("/status.json", "/clients.json", "/streams.json"):
        page = world.ask(path)
        assert (page.status, page.media) == (200, "application/json")
        json.loads(page.body)


@pytest.mark.parametrize(
    ("path", "query", "accepted"),
    [
        ("/status.json", {"since": "x"}, "since: expected a whole number, 0 or more"),
        ("/status.json", {"since": "-1"}, "since: expected a whole number, 0 or more"),
        ("/clients.json", {"limit": "0"}, "limit: expected a whole number, 1 to 1000"),
        ("/streams.json", {"limit": "1001"}, "limit: expected a whole number, 1 to 1000"),
        ("/clients.json", {"sort": "name"}, "sort: expected one of queue, conflated, rtt, streams, age"),
        ("/streams.json", {"sort": ""}, "sort: expected one of rate, clients, kept, quiet"),
    ],
)
def test_a_bad_query_is_told_what_would_be_accepted(
    world: Answering, path: str, query: dict[str, str], accepted: str
) -> None:
    assert world.ask(path, **query) == Page(f"{accepted}\n".encode(), status=400)


def test_one_stream_and_one_client(world: Answering) -> None:
    """Names come as a browser writes them."""
    member(world.room, "trade@A")
    stream: dict[str, Any] = json.loads(world.ask("/streams/trade%40A.json").body)
    assert (stream["stream"], stream["clients"]) == ("trade@A", 1)
    assert json.loads(world.ask("/streams/trade@A.json").body) == stream
    for path in ("/streams/trade@B.json", "/streams/nonsense.json", "/clients/x-1.json"):
        assert world.ask(path).status == 404


def test_the_page(world: Answering) -> None:
    for path, (_, media) in FILES.items():
        assert (world.ask(path).media, bool(world.ask(path).body)) == (media, True)
    assert world.ask("/login").status == 401
    assert (b"hidden" in world.pages.login.body, b"hidden" in world.pages.login_again.body) == (True, False)


@pytest.mark.parametrize(
    "path", ["", "/x", "/clients", "/clients/", "/clients/.json", "/streams/a", "/status.json/", "//"]
)
def test_there_is_nothing_else(world: Answering, path: str) -> None:
    assert world.pages.find(path) is None


def test_what_anybody_may_have(world: Answering) -> None:
    """Of the page that is what shows no figure."""
    everything = [*FILES, "/healthz", "/readyz", "/metrics", "/login", "/status.json", "/clients.json", "/streams.json"]
    closed = [path for path in everything if not world.pages.is_open(path)]
    assert closed == ["/", "/status.json", "/clients.json", "/streams.json"]
    assert [path for path in everything if world.pages.is_for_people(path)] == ["/"]
