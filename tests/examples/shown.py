"""What examples/README.md shows, run as it stands there but for the address."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from tests.docs_runner import ROOT
from tests.system.forwarder import Forwarder
from tests.system.harness import DaemonProcess, Harness, Process

__all__ = ["ADDRESS", "EXAMPLES", "behind_a_door", "commands", "demo", "run", "way_to"]

EXAMPLES = ROOT / "examples"
ADDRESS = "localhost:8080"
"""Where the market is that everybody looks at, in all that is shown."""


def commands(heading: str) -> list[str]:
    """The commands below a heading."""
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]


def run(harness: Harness, daemon: DaemonProcess | None, command: str) -> Process:
    """A command that is shown, with what is installed here, and with this daemon where it has one."""
    words = [_meant(word, daemon) for word in shlex.split(command)]
    return harness.spawn(["env", *words], {"no_proxy": "*", "PYTHONUNBUFFERED": "1"})


def _meant(word: str, daemon: DaemonProcess | None) -> str:
    if daemon is not None:
        word = word.replace(ADDRESS, f"{daemon.host}:{daemon.port}")
    if word.startswith("env/bin/"):
        return str(Path(sys.executable).parent / word.removeprefix("env/bin/"))
    return str(ROOT / word) if word.startswith("examples/") else word


async def demo(harness: Harness, *options: str, before: DaemonProcess | None = None) -> DaemonProcess:
    """The market of `make run`, on the port of the one `before`, if there was one."""
    port = ("--port", f"tcp:{before.port}:interface={before.host}") if before is not None else ()
    daemon = await harness.daemon("--demo", *port, *options)
    await _has_a_past(harness, daemon)
    return daemon


async def behind_a_door(harness: Harness, *options: str) -> tuple[DaemonProcess, Forwarder]:
    """The same, and the way to it, which can be cut."""
    path = str(harness.directory / "daemon")
    daemon = await harness.daemon("--demo", "--port", f"unix:{path}", *options, wait=False)
    return daemon, await way_to(harness, daemon, path)


async def way_to(harness: Harness, daemon: DaemonProcess, path: str) -> Forwarder:
    """The way to a market that listens on a Unix socket, once its past is there; its port is the way's."""
    await daemon.expect("redis: connected")
    door = Forwarder(harness, path)
    daemon.port = door.port
    await _has_a_past(harness, daemon)
    return door


async def _has_a_past(harness: Harness, daemon: DaemonProcess) -> None:
    """Until the hours before it began are there, which takes some seconds."""
    question = b"GET /api/v3/klines?symbol=TATA_INR&interval=1m HTTP/1.1\r\nHost: localhost\r\n\r\n"

    async def has_candles() -> bool:
        asked = await harness.raw(daemon)
        asked.send(question)
        answer = await asked.until(lambda data: re.search(rb"\r\n\r\n..", data) is not None)
        await harness.hang_up(asked)
        return b"\r\n\r\n[[" in answer

    await harness.eventually(has_candles)
