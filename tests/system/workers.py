"""A daemon with workers, and what its admin port says of them."""

from __future__ import annotations

import json
from typing import Any

from tests.system.admin_port import ADMIN, AdminPort
from tests.system.harness import DEADLINE, DaemonProcess, Harness, RedisServer, with_constants

__all__ = ["PATIENT", "Crew", "make_crew"]

PATIENT = with_constants(daemon__workers__supervision__ROLL_SECONDS=DEADLINE)
"""A daemon whose new workers may take long to be ready."""


class Crew:
    """The daemon, and its admin port."""

    def __init__(self, harness: Harness, daemon: DaemonProcess, admin: AdminPort) -> None:
        self.harness = harness
        self.daemon = daemon
        self.admin = admin

    async def ask(self, path: str) -> Any:
        """What the admin port answers, as JSON."""
        status, _, body = await self.admin.ask(self.harness, path)
        assert status in (200, 503), (status, body)
        return json.loads(body)

    async def rows(self) -> dict[int, dict[str, Any]]:
        """What the status has of each worker, by its number."""
        return {row["worker"]: row for row in (await self.ask("/status.json"))["workers"]}

    async def pids(self) -> dict[int, int]:
        """The processes of the workers that answer."""
        return {number: row["pid"] for number, row in (await self.rows()).items()}

    async def until_all(self, count: int, without: tuple[int, ...] = ()) -> dict[int, int]:
        """Wait until so many workers serve clients, none of them by the processes `without`; the processes."""
        found: dict[int, int] = {}

        async def are_there() -> bool:
            found.clear()
            found.update(await self.pids())
            return len(found) == count and not set(found.values()) & set(without)

        await self.harness.eventually(are_there)
        return found

    async def where(self) -> dict[str, int]:
        """The worker of each client, by the client's name."""
        return {row["client"]: row["worker"] for row in await self.ask("/clients.json?limit=1000")}


async def make_crew(
    harness: Harness,
    *options: str,
    workers: int = 2,
    redis: RedisServer | None = None,
    program: tuple[str, ...] = PATIENT,
) -> Crew:
    """A daemon of which all workers are there; with `redis` also connected to it."""
    where = () if redis is None else ("--redis-url", redis.url)
    daemon = await harness.daemon("--workers", str(workers), *ADMIN, *where, *options, wait=False, program=program)
    daemon.port = int((await daemon.expect(r"info  listening on port (\d+)"))[1])
    made = Crew(harness, daemon, await AdminPort.of(daemon))
    await made.until_all(workers)
    if redis is not None:
        for number in range(1, workers + 1):
            await daemon.expect(rf"worker {number}: redis: connected")
    return made
