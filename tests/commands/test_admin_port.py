"""The admin port of a command: what its options may say, and that the daemon's own do not count."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from marketfeed.api.probes import Probes
from marketfeed.commands.admin_port import add_admin_options, admin_settings, listen
from marketfeed.config.settings import BadSetting, Settings


def settings(*arguments: str) -> Settings | None:
    parser = argparse.ArgumentParser()
    add_admin_options(parser)
    return admin_settings(parser.parse_args(arguments))


def test_there_is_none_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever the daemon on the same host is told."""
    file = tmp_path / "marketfeed.toml"
    file.write_text('admin = "8081"\n', encoding="utf-8")
    monkeypatch.setenv("MARKETFEED_CONFIG", str(file))
    monkeypatch.setenv("MARKETFEED_ADMIN", "8081")
    monkeypatch.setenv("MARKETFEED_ADMIN_HOST", "daemon.internal")
    assert settings() is None
    assert settings("--admin", "off") is None
    found = settings("--admin", "8082", "--admin-host", "a.internal", "--admin-host", "::1,b")
    assert found is not None
    assert (found.admin, found.admin_host) == ("8082", ("a.internal", "::1", "b"))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--admin", "x"],
            "--admin: 'x' cannot be used; expected a port number from 0 to 65535, or a Twisted endpoint",
        ),
        (["--admin", "65536"], "--admin: '65536' cannot be used; expected a port number"),
        (["--admin", ""], "--admin: '' cannot be used; expected a port number"),
        (["--admin-host", "a.internal"], "--admin-host: expected together with --admin"),
        (["--admin", "0", "--admin-host", "a:1"], "--admin-host: 'a:1' cannot be used; expected the name or the addr"),
    ],
)
def test_what_cannot_be_used(arguments: list[str], line: str) -> None:
    with pytest.raises(BadSetting, match=f"^{line}"):
        settings(*arguments)


def test_an_endpoint_that_there_is_not() -> None:
    """It is a description, but of nothing that Twisted knows."""
    described = settings("--admin", "nonsense:1")
    assert described is not None
    with pytest.raises(BadSetting, match=r"^--admin: expected a number or a Twisted endpoint description: ValueError"):
        listen(None, described, Probes.__new__(Probes))
