"""The parent put together, and a worker's tree beside it: what is where, and in which order it stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import IService

from marketfeed.config.settings import Settings
from marketfeed.daemon.build import build
from marketfeed.daemon.redis_side import StartFault, demo_globs
from marketfeed.daemon.root import Daemon
from marketfeed.daemon.workers.messages import Role
from marketfeed.daemon.workers.parent import build_parent
from marketfeed.daemon.workers.worker import Place
from marketfeed.redis.address import EMBEDDED, RedisAddress
from marketfeed.runtime.memory import MemoryGuard, MemoryLimit
from marketfeed.websocket.connections import UserManager
from tests.daemon.fakes import FakeReactor
from tests.daemon.test_build import DEMO, IN_FRONT, _surroundings, described, names, part, tree

__all__ = ["_surroundings"]


def parent(settings: Settings, **twistd: Any) -> Daemon:
    return build_parent(FakeReactor(), settings, IN_FRONT | twistd, lambda: settings, ("--workers", "2"))


def worker(settings: Settings, role: Role | None = None) -> Daemon:
    sockets: Any = None
    observer: Any = None
    role = role or Role(2, 4, "8080", [], 17, None)
    return build(FakeReactor(), settings, IN_FRONT, None, Place(role, sockets, observer, -1, -1))


class TestParent:
    @pytest.mark.parametrize(
        ("settings", "conditions"),
        [
            (Settings(workers=2), set()),
            (Settings(workers=2, demo=True, redis=EMBEDDED), DEMO | {"--source pubsub"}),
            (Settings(workers=2, demo=True, redis=EMBEDDED, source="streams"), DEMO | {"--source streams"}),
            (Settings(workers=2, redis=EMBEDDED), {"--demo", "or --redis-url embedded:"} - {"--demo"}),
        ],
    )
    def test_it_is_the_one_that_is_described(self, settings: Settings, conditions: set[str]) -> None:
        """docs/architecture.md#workers shows it."""
        shown = described(conditions, of_workers=True)
        if settings.redis == EMBEDDED and not settings.demo:
            shown.insert(1, "  EmbeddedServer")
        assert tree(parent(settings)) == shown

    def test_the_crew_ends_first_and_systemd_hears_of_it_last(self) -> None:
        assert names(parent(Settings(workers=2)).stops) == ["Crew", "Listener", "AdminPort", "Report", "Systemd"]

    def test_without_an_admin_port(self) -> None:
        assert "AdminPort" not in names(list(parent(Settings(workers=2, admin="off"))))

    def test_what_cannot_be_used_ends_the_start_here(self, tmp_path: Path) -> None:
        """And not in each worker."""
        with pytest.raises(StartFault, match=r"--auth-key: .*"):
            parent(Settings(workers=2, auth="required", auth_key=str(tmp_path / "none")))
        with pytest.raises(StartFault, match=r"--port: expected a number or a Twisted endpoint description: .*"):
            parent(Settings(workers=2, port="nothing:1"))


class TestWorker:
    def test_it_has_no_admin_port_and_tells_systemd_nothing(self) -> None:
        services = names(list(worker(Settings(workers=4))))
        assert services[-2:] == ["Samples", "Control"]
        assert not {"AdminPort", "Systemd", "Report", "EmbeddedServer", "MarketSimulation"} & set(services)

    def test_every_part_is_stopped_and_the_parent_hears_of_it_to_the_last(self) -> None:
        daemon = worker(Settings(workers=4))
        assert set(daemon.stops) == set(daemon)
        assert names(daemon.stops)[-1] == "Control"

    def test_what_is_the_machines_is_divided(self) -> None:
        daemon = worker(Settings(workers=4, max_connections=101, memory_limit=MemoryLimit(size=1 << 30)))
        assert part(daemon, UserManager).max_connections == 26
        memory = part(daemon, MemoryGuard)
        memory.startService()
        assert memory.limit == 1 << 28
        memory.stopService()

    def test_a_market_is_its_parents(self) -> None:
        """So is the server in which it is; the worker keeps its streams ready, as the demo does."""
        place: Any = Place(Role(1, 2, "tcp:80", [], 0, "/run/redis.sock"), None, None, -1, -1)  # type: ignore[arg-type]
        settled = place.settle(Settings(workers=2, demo=True, redis=EMBEDDED, warm=("depth@A",)))
        assert (settled.redis, settled.demo, settled.drain_seconds) == (RedisAddress(path="/run/redis.sock"), False, 0)
        assert settled.warm == ("depth@A", *demo_globs())
        assert "TATA_INR" in [each.name for each in settled.markets]
        assert settled.port == "tcp:80"

    def test_it_heeds_no_signals(self) -> None:
        assert IService.providedBy(worker(Settings(workers=4)))
