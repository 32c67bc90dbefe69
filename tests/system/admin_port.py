"""The admin port of a real process, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

from tests.system.harness import DaemonProcess, Harness

__all__ = ["ADMIN", "AdminPort"]

ADMIN = ("--admin", "tcp:0:interface=127.0.0.1")
"""The options of a daemon that has one, on a free port."""


class AdminPort(DaemonProcess):
    """The admin port of a daemon, as `Harness.http` asks it."""

    @classmethod
    async def of(cls, daemon: DaemonProcess) -> Self:
        admin = cls(daemon.process)
        admin.port = int((await daemon.expect(r"admin on port (\d+)"))[1])
        return admin

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def ask(self, harness: Harness, path: str, host: str = "localhost") -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body, as `Harness.http` has them. `host`: by which name it is asked."""
        return await harness.http(self, f"GET {path} HTTP/1.1\nHost: {host}\nConnection: close")

    async def samples(self, harness: Harness) -> Mapping[str, float]:
        """What a scrape has, by name and the values of the labels."""
        status, headers, body = await self.ask(harness, "/metrics")
        assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        return {
            " ".join(
                [sample.name.removeprefix("marketfeed_"), *[value for _, value in sorted(sample.labels.items())]]
            ): (sample.value)
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }
