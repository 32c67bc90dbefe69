"""What every admin port answers, of a process that has nothing else."""

from __future__ import annotations

import json

import pytest

from marketfeed.api.page import Page
from marketfeed.api.probes import Probes


class Something:
    """A process: why it is of no use, and what it counts."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def text(self) -> bytes:
        return b"a_total 1\n"


def ask(probes: Probes, path: str) -> Page:
    answer = probes.find(path)
    assert answer is not None
    page = answer({})
    assert isinstance(page, Page)
    return page


def test_health_and_metrics() -> None:
    process = Something()
    probes = Probes(process, process)
    assert ask(probes, "/healthz") == Page(b"ok\n")
    page = ask(probes, "/readyz")
    assert (page.status, page.media, json.loads(page.body)) == (200, "application/json", {"ready": True, "reasons": []})
    process.reasons.append("source-down")
    page = ask(probes, "/readyz")
    assert (page.status, json.loads(page.body)) == (503, {"ready": False, "reasons": ["source-down"]})
    assert ask(probes, "/metrics") == Page(b"a_total 1\n", "text/plain; version=0.0.4; charset=utf-8")


@pytest.mark.parametrize("path", ["/", "/status.json", "/login", "/metrics/", ""])
def test_there_is_nothing_else_and_nothing_needs_a_token(path: str) -> None:
    process = Something()
    probes = Probes(process, process)
    assert (probes.find(path), probes.is_open(path), probes.is_for_people(path)) == (None, True, False)
