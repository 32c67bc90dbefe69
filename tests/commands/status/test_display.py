"""The lines of `marketfeed status`: a daemon's own sentence first, and figures as the status page writes them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import marketfeed
from marketfeed.commands.status.asking import NoAnswer
from marketfeed.commands.status.display import Picture, _count, _delay, _rate, _share, _span, read_status
from marketfeed.model.numbers import size
from tests.docs_runner import blocks

NODE = shutil.which("node")

AT = 1_790_000_000_000

STATUS: dict[str, Any] = {
    "boot": "b00t",
    "at": AT,
    "version": "0.1.0",
    "healthy": False,
    "summary": "Redis is away since 14:02:10 UTC: Connection refused; 31 clients were told. "
    "One client is slow: 812 KiB of 1.0 MiB (--client-queue) wait for c-4f1-17 at 203.0.113.9:50112, user alice. "
    "12,431 clients.",
    "news": [
        {"level": "bad", "name": "source-down", "text": "Redis is away…"},
        {"level": "warn", "name": "slow-clients", "text": "One client is slow…"},
    ],
    "fields": ["seq", "at", "publications", "deliveries", "fanout_p99", "loop_delay", "backlog", "cpu", "unknown"],
    "workers": [
        {
            "worker": 0,
            "pid": 4711,
            "since": AT - 3_725_000,
            "ready": True,
            "reasons": [],
            "limits": {
                "clients": {"value": 12431, "peak": 12800, "limit": 20000, "option": "--max-connections"},
                "streams": {"value": 301, "peak": 301, "limit": 50000, "option": "--max-distinct-streams"},
                "memory": {"value": 850_000_000, "peak": 900_000_000, "limit": None, "option": "--memory-limit"},
                "history": {"value": 200_000_000, "peak": 1 << 28, "limit": 1 << 28, "option": "--history-bytes"},
            },
            "links": [
                {
                    "link": "redis",
                    "address": "redis.internal:6379",
                    "up": False,
                    "cause": "Connection refused",
                    "reconnects": 2,
                    "pinged": None,
                }
            ],
            "subscriptions": 37290,
            "samples": [
                [1, AT - 1000, 812, 1_204_000, 0.01, 0.0025, 0, 0.71, 1],
                [2, AT, 0, 0, None, 0.001, 9, 0.02, 1],
            ],
            "slowest": [
                {
                    "client": "c-4f1-17",
                    "peer": "203.0.113.9:50112",
                    "user": "alice",
                    "age": 754.2,
                    "waiting": 831_488,
                    "limit": 1 << 20,
                    "conflated": 10_412,
                    "rtt": 0.31,
                    "streams": 3,
                },
                {
                    "client": "c-4f1-3",
                    "peer": "198.51.100.20:41876",
                    "user": "",
                    "age": 3600.0,
                    "waiting": 0,
                    "limit": 1 << 20,
                    "conflated": 0,
                    "rtt": None,
                    "streams": 12,
                },
            ],
        }
    ],
}


def drawn(status: Any, picture: Picture | None = None) -> list[str]:
    return list((picture or Picture()).lines(read_status(json.dumps(status).encode())))


def changed(**worker: Any) -> dict[str, Any]:
    """The same status, with another worker."""
    return {**STATUS, "workers": [{**STATUS["workers"][0], **worker}]}


def test_the_picture_of_the_documentation() -> None:
    """It has all that is shown, and is what the documentation shows."""
    (block,) = blocks("status")
    assert drawn(STATUS) == block.text.splitlines()


def test_the_sentence_comes_first() -> None:
    """Names, by which the documentation knows what is wrong, come where there is more than one thing."""
    first, second, *_ = drawn(STATUS)
    assert (first, second) == (STATUS["summary"], "bad: source-down; warn: slow-clients")
    assert drawn({**STATUS, "news": [], "summary": "Healthy. 1 client."})[:2] == ["Healthy. 1 client.", ""]


def test_why_it_is_not_ready() -> None:
    (line,) = (line for line in drawn(changed(ready=False, reasons=["memory", "draining"])) if "process" in line)
    assert line == "marketfeed 0.1.0, process 4711, up for 1 h 2 min; 37,290 subscriptions; not ready: memory, draining"


def test_nobody_is_there() -> None:
    lines = drawn(changed(slowest=[], samples=[], subscriptions=1))
    assert "nobody is connected" in lines
    assert any(line.endswith("1 subscription; ready") for line in lines)


def test_each_worker_has_its_own_part() -> None:
    two = {**STATUS, "workers": [STATUS["workers"][0], {**STATUS["workers"][0], "worker": 1, "pid": 4712}]}
    lines = [line for line in drawn(two) if "process" in line]
    for line, process in zip(lines, (4711, 4712), strict=True):
        assert f" process {process}," in line
    assert "worker 1" in lines[1]


def test_samples_are_kept_from_answer_to_answer() -> None:
    """Each only once; until the daemon is another."""
    picture = Picture()
    drawn(STATUS, picture)
    assert picture.seq == 2
    later = [*STATUS["workers"][0]["samples"][1:], [3, AT, 7, 0, None, None, 0, 0.0, 1]]
    (line,) = (line for line in drawn(changed(samples=later), picture) if line.startswith("publications"))
    assert (line.split()[-2:], picture.seq) == (["7.0", "812"], 3)
    (line,) = (line for line in drawn(changed(samples=[]), picture) if line.startswith("publications"))
    assert (line.split()[-2:], picture.seq) == (["7.0", "812"], 3)
    drawn({**changed(samples=later[:1]), "boot": "another"}, picture)
    assert picture.seq == 2
    drawn({**changed(samples=[]), "boot": "a third"}, picture)
    assert picture.seq == 0


def test_nothing_moves_the_cursor() -> None:
    """Whatever a client is called, or has in its token, and whatever a daemon says."""

    def hostile(value: Any) -> Any:
        if isinstance(value, str):
            return f"{value}\x1b[2J\r\n\x9b\u202e" + "x" * 5000
        if isinstance(value, dict):
            return {name: hostile(each) for name, each in value.items()}
        return [hostile(each) for each in value] if isinstance(value, list) else value

    status = hostile(STATUS)
    status["workers"][0]["limits"] = {hostile(name): limit for name, limit in status["workers"][0]["limits"].items()}
    lines = drawn(status)
    assert len(lines) == len(drawn(STATUS))
    assert all(line.isprintable() and len(line) <= 2000 for line in lines)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b"\xff", b"[" * 5000, json.dumps({**STATUS, "workers": [1]}).encode()]
)
def test_what_is_no_status(body: bytes) -> None:
    with pytest.raises(NoAnswer, match="no status; expected the address of a daemon's --admin"):
        read_status(body)


def test_numbers_of_any_size() -> None:
    huge = {"value": 1 << 63, "peak": -(1 << 63), "limit": 0, "option": ""}
    status = changed(limits={"memory": huge}, since=-(1 << 63), samples=[[1e308] * 9])
    assert all(line.isprintable() for line in drawn(status))


@pytest.mark.skipif(NODE is None, reason="needs Node")
def test_figures_are_written_as_on_the_page() -> None:
    """By the page's own functions."""
    figures: dict[str, tuple[Callable[[Any], str], list[float]]] = {
        "count": (_count, [0, 12431, 1_204_000]),
        "rate": (_rate, [0, 0.4, 9.96, 12, 1234.6]),
        "size": (size, [0, 1023, 1536, 300_000, 5 << 30]),
        "delay": (_delay, [0.0001, 0.00025, 0.001, 0.0023, 0.012, 0.25, 1, 2.5]),
        "span": (_span, [0, 59.9, 60, 3725, 200_000]),
        "share": (_share, [0, 0.254, 1]),
    }
    module = (Path(marketfeed.__file__).parent / "web" / "format.js").read_text()
    values = {name: values for name, (_, values) in figures.items()}
    program = (
        f"const page = await import('data:text/javascript,' + encodeURIComponent({json.dumps(module)}));"
        f"for (const [name, values] of Object.entries({json.dumps(values)}))"
        "  console.log(JSON.stringify(values.map(page[name])));"
    )
    done = subprocess.run(
        [NODE or "", "--input-type=module", "-e", program], capture_output=True, text=True, check=True
    )
    written = [[write(value) for value in values] for write, values in figures.values()]
    assert [json.loads(line) for line in done.stdout.splitlines()] == written
