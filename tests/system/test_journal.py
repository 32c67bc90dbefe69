"""What systemd's journal makes of the log: a real journald, in a mount namespace of the test's own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from tests.system.harness import Harness, Process

_JOURNALD = "/lib/systemd/systemd-journald"
_UNSHARE = ("unshare", "--map-root-user", "--mount")
_EMPTY = "mount -t tmpfs none /run && mount -t tmpfs none /var/log"
"""The places where it listens, and where it keeps what it gets."""
_INSTANCE = "test"
"""One with a name leaves the kernel's log and its audit alone."""
_PROGRAM = """
import os
out = os.fstat(1)
os.environ["JOURNAL_STREAM"] = f"{out.st_dev}:{out.st_ino}"  # as systemd does for its services
from twisted.scripts.twistd import run
run()
"""
_PRIORITIES = {"error": "3", "warn": "4", "info": "6", "debug": "7"}


def _has_journald() -> bool:
    if not all(map(shutil.which, (_JOURNALD, "unshare", "nsenter", "systemd-cat", "journalctl"))):
        return False
    machine = Path("/etc/machine-id")
    trial = subprocess.run([*_UNSHARE, "sh", "-c", _EMPTY], capture_output=True, check=False)
    return trial.returncode == 0 and machine.exists() and bool(machine.read_text().strip())


pytestmark = pytest.mark.skipif(not _has_journald(), reason="there is no journald, or no namespace may be made here")


class Journal:
    """A journald that nobody else writes to."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._journald: Process

    async def start(self) -> None:
        directory = f"/run/systemd/journal.{_INSTANCE}"
        script = f"{_EMPTY} && mkdir -p {directory} /run/log/journal && ln -s {directory} /run/systemd/journal"
        command = [*_UNSHARE, "sh", "-c", f"{script} && exec {_JOURNALD} {_INSTANCE}"]
        self._journald = self._harness.spawn(command)
        inside = Path(f"/proc/{self._journald.pid}/root{directory}/stdout")
        await self._harness.eventually(inside.is_socket)

    def spawn(self, *command: str, **environment: str) -> Process:
        """A process that finds this journal where others find the system's."""
        enter = ["nsenter", "--target", str(self._journald.pid), "--user", "--mount", "--preserve-credentials", "--"]
        return self._harness.spawn([*enter, *command], environment)

    async def entries(self, *options: str) -> list[dict[str, Any]]:
        """What it holds of the daemon."""
        select = ("--namespace", _INSTANCE, "--identifier", "marketfeed", *options)
        process = self.spawn("journalctl", "--quiet", "--output", "json", *select)
        await process.wait()
        return [json.loads(line) for line in process.lines.all if line.startswith("{")]


@pytest_twisted.ensureDeferred
async def test_each_line_has_its_priority(harness: Harness) -> None:
    """The journal takes it off the line, and finds by it."""
    journal = Journal(harness)
    await journal.start()
    options = ("--port", "tcp:0:interface=127.0.0.1", "--redis-url", "redis://127.0.0.1:1", "--log-level", "debug")
    twistd = (sys.executable, "-c", _PROGRAM, "-n", "--pidfile=", "marketfeed", *options)
    daemon = journal.spawn("systemd-cat", "--identifier", "marketfeed", *twistd, MARKETFEED_CLIENT_QUEU="8192")

    async def is_told(text: str) -> bool:
        return any(text in entry["MESSAGE"] for entry in await journal.entries())

    await harness.eventually(lambda: is_told("redis: no connection to"))
    daemon.signal("TERM")
    assert await daemon.wait() == 0
    await harness.eventually(lambda: is_told("stopped"))
    entries = await journal.entries()
    levels = {re.match(r"\S+Z (\w+) ", entry["MESSAGE"])[1]: entry["PRIORITY"] for entry in entries}  # type: ignore[index]
    assert levels == _PRIORITIES
    for entry in entries:
        assert entry["PRIORITY"] == _PRIORITIES[entry["MESSAGE"].split()[1]]
    worth_a_look = await journal.entries("--priority", "warning")
    assert {entry["MESSAGE"].split()[1] for entry in worth_a_look} == {"warn", "error"}
