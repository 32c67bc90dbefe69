"""The units: systemd has nothing to say against them, and the daemon is what they promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from marketfeed.config.settings import Settings
from tests.deploy.files import DEPLOY, run, unit

PORT = "systemd:domain=INET6:name=clients"


@pytest.mark.parametrize("name", ["marketfeed.service", "marketfeed.socket"])
def test_systemd_reads_every_line(name: str, tmp_path: Path) -> None:
    """None is unknown, and none has a value that cannot be."""
    for path in (DEPLOY / "systemd").iterdir():
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    told = run("systemd-analyze", "verify", "--man=no", tmp_path / name)
    assert [line for line in told.splitlines() if "marketfeed" in line] == []


def test_the_service_is_exposed_little() -> None:
    """At most 2.0 of 10, by systemd's own count."""
    run("systemd-analyze", "security", "--offline=true", "--threshold=20", DEPLOY / "systemd" / "marketfeed.service")


def test_the_service_is_waited_for() -> None:
    """A drain is shorter than its time-out, and the daemon tells systemd how it goes."""
    service = unit("marketfeed.service")["Service"]
    assert service["Type"] == "notify"
    assert float(service["WatchdogSec"]) >= 10
    assert float(service["TimeoutStopSec"]) > Settings().drain_seconds + 5
    assert service["ExecStart"] == "/opt/marketfeed/bin/twistd -n --pidfile= marketfeed"
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert service["EnvironmentFile"] == "/etc/marketfeed.env"


def test_the_socket_is_the_one_that_the_daemon_takes() -> None:
    """By its name."""
    socket = unit("marketfeed.socket")["Socket"]
    assert f"PORT={PORT}" in (DEPLOY / "systemd" / "marketfeed.socket").read_text(encoding="utf-8")
    assert socket["FileDescriptorName"] == PORT.partition("name=")[2]
