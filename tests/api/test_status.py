"""What the page and the terminal are shown, as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from marketfeed.api.status import Status
from marketfeed.http.response import Response
from marketfeed.websocket.closing import Ending, Parting
from tests.api.world import World
from tests.docs_runner import ROOT
from tests.rooms import EPOCH, member, trade


class Shown(World):
    """The world, and its status."""

    def __init__(self) -> None:
        super().__init__()
        self.status = Status(self.parts, self.samples, self.lists, "b00t", lambda: {"--history": "0"})

    def read(self, since: int = 0) -> dict[str, Any]:  # type: ignore[override]
        read: dict[str, Any] = json.loads(self.status.json(since))
        return read


@pytest.fixture
def world() -> Iterator[Shown]:
    yield (world := Shown())
    world.stop()


def test_one_row_for_each_worker(world: Shown) -> None:
    read = world.read()
    assert (read["boot"], read["at"], len(read["workers"])) == ("b00t", EPOCH * 1000, 1)
    worker = read["workers"][0]
    assert (worker["worker"], worker["ready"], worker["reasons"]) == (0, False, ["source-never-reached"])
    assert [(link["link"], link["up"]) for link in worker["links"]] == [("redis", False), ("redis commands", False)]
    assert worker["options"] == {"--history": "0"}
    assert worker["since"] == (EPOCH - 60) * 1000


def test_what_is_wrong_comes_first(world: Shown) -> None:
    read = world.read()
    assert (read["healthy"], read["news"][0]["name"]) == (False, "source-never-reached")
    assert read["summary"] == f"{read['news'][0]['text']} 0 clients."
    world.links[0].link = object()
    world.room.source.sink.reached("redis")
    read = world.read()
    assert (read["healthy"], read["news"], read["summary"]) == (True, [], "Healthy. 0 clients.")


def test_outages_have_those_who_were_told(world: Shown) -> None:
    world.room.source.sink.reached("redis")
    member(world.room, "trade@A")
    world.room.source.lose(EPOCH * 1000)
    assert world.read()["workers"][0]["outages"] == [{"link": "redis", "since": EPOCH * 1000, "until": None, "told": 1}]


def test_numbers_stand_beside_their_limits(world: Shown) -> None:
    member(world.room, "trade@A")
    world.samples.peaks["streams"] = 7
    limits = world.read()["workers"][0]["limits"]
    assert limits["streams"] == {"value": 1, "peak": 7, "limit": 50000, "option": "--max-distinct-streams"}
    assert limits["clients"]["limit"] == 20
    assert limits["memory"]["limit"] is None


def test_what_was_counted(world: Shown) -> None:
    member(world.room, "trade@A")
    world.room.source.publish("trade@A", trade())
    world.room.hub.flush()
    worker = world.read()["workers"][0]
    assert worker["kinds"]["trade"]["deliveries"] == 1
    assert worker["kinds"]["trade"]["last"] == EPOCH * 1000
    assert worker["kinds"]["ticker"]["last"] is None
    assert (worker["closes"], worker["refusals"]) == ([], []), "only those that there are"


def test_who_has_gone_and_who_was_refused(world: Shown) -> None:
    world.users.has_left("c-1", "10.0.0.1:5", 2.5, Ending("slow", 4008, "server"), Parting("alice", 3, 999))
    world.refusals.of_request("10.0.0.2:7", Response(403, "no", reason="origin"))
    worker = world.read()["workers"][0]
    (gone,) = worker["recent"]["closed"]
    assert {name: gone[name] for name in ("client", "user", "code", "by", "streams", "waiting")} == {
        "client": "c-1",
        "user": "alice",
        "code": 4008,
        "by": "server",
        "streams": 3,
        "waiting": 999,
    }
    assert [(each["peer"], each["reason"]) for each in worker["recent"]["refused"]] == [("10.0.0.2:7", "origin")]
    assert worker["closes"] == [{"code": "4008", "by": "server", "count": 1}]
    assert worker["refusals"] == [{"status": 403, "reason": "origin", "count": 1}]


def test_samples_are_named(world: Shown) -> None:
    world.samples.startService()
    world.room.clock.advance(1)
    world.room.clock.advance(1)
    read = world.read(since=1)
    (sample,) = read["workers"][0]["samples"]
    named = dict(zip(read["fields"], sample, strict=True))
    assert (named["seq"], named["memory"]) == (2, 1 << 20)
    world.samples.stopService()


def _described(section: str) -> set[str]:
    """The names in the first column of the tables below a heading."""
    text = (ROOT / "docs" / "operations" / "status.md").read_text(encoding="utf-8")
    part = re.split(r"^#+ ", text.split(f"# {section}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| ([^|]+) \|", part, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_all_of_it_is_described(world: Shown) -> None:
    read = world.read()
    assert _described("The status as JSON") == set(read) | set(read["workers"][0])


def test_what_may_be_the_matter_is_described() -> None:
    sources = [ROOT / "marketfeed" / name for name in ("api/news.py", "daemon/workers/pages.py")]
    source = "".join(each.read_text(encoding="utf-8") for each in sources)
    names = set(re.findall(r'News\(\s*(?:level|"\w+"|"\w+" if .+? else "\w+"), f?"([^"]+)"', source))
    named = {name.replace("{name}", limit) for name in names for limit in ("clients", "streams", "memory", "files")}
    assert _described("What it says is the matter") == named
