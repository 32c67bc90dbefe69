"""The options as twistd reads them: what is given reaches the settings, what is wrong is one line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import MultiService
from twisted.internet import reactor as global_reactor

import marketfeed.daemon.build
from marketfeed import __version__
from marketfeed.config.options import OPTIONS
from marketfeed.config.settings import Settings
from marketfeed.daemon.redis_side import StartFault
from marketfeed.daemon.tap import Options, _shown, makeService

pytestmark = pytest.mark.usefixtures("no_variables")


def settings(*arguments: str) -> Settings:
    options = Options()
    options.parseOptions(arguments)
    return options.settings


def test_without_options_everything_is_as_by_default() -> None:
    """Nothing needs to be given."""
    assert settings() == Settings()


def test_options_reach_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those with a value, switches, the environment and the file, in their order."""
    config = tmp_path / "marketfeed.toml"
    config.write_text("max_streams = 5\nlinger = 1.5\nlog_level = 'warn'\n")
    monkeypatch.setenv("MARKETFEED_MAX_STREAMS", "6")
    monkeypatch.setenv("MARKETFEED_LOG_LEVEL", "error")
    read = settings("--demo", "--port", "tcp:0", "--log-level=debug", "--config", str(config))
    assert (read.demo, read.port, read.log_level, read.max_streams, read.linger) == (True, "tcp:0", "debug", 6, 1.5)


def test_an_option_may_be_given_several_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a value or several each time; one flag beats all that the environment has."""
    monkeypatch.setenv("MARKETFEED_ALLOWED_ORIGINS", "https://d.example")
    arguments = ("--allowed-origin", "https://a.example", "--allowed-origin=https://b.example,https://c.example")
    read = settings(*arguments, "--trusted-proxy", "10.0.0.1", "--trusted-proxy", "unix")
    assert [str(origin) for origin in read.allowed_origin] == [f"https://{host}.example" for host in "abc"]
    assert [str(network) for network in read.trusted_proxy] == ["10.0.0.1/32", "unix"]
    assert [str(origin) for origin in settings().allowed_origin] == ["https://d.example"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--nonsense"], "option --nonsense not recognized"),
        (["--nonsense=5"], "option --nonsense not recognized"),
        (["--max"], "option --max not a unique prefix"),
        (["--port"], "option --port requires argument"),
        (["--demo=yes"], "option --demo must not have an argument"),
        (["8080"], "Wrong number of arguments"),
        (["--port", "many"], "--port: 'many' cannot be used"),
        (["--port", ""], "--port: '' cannot be used"),
        (["--redis-url", "http://x"], "--redis-url: the scheme is another"),
        (["--allowed-origin"], "option --allowed-origin requires argument"),
        (["--allowed-origin", ""], "--allowed-origin: '' cannot be used"),
        (["--trusted-proxy", "::1", "--trusted-proxy", "::x"], "--trusted-proxy: '::x' cannot be used"),
        (["--auth", "required"], "--auth: expected together with --auth-key or --auth-jwks"),
        (["--config", "/nonexistent"], "--config: /nonexistent: No such file or directory"),
        (["--demo", "--redis-url", "redis://x"], "--demo: it brings its own server"),
    ],
    ids=repr,
)
def test_what_is_wrong_is_one_line(arguments: list[str], says: str) -> None:
    """The name of the daemon, the source, what would be accepted; twistd ends with status 1."""
    with pytest.raises(SystemExit) as caught:
        settings(*arguments)
    line = caught.value.code
    assert isinstance(line, str)  # Python prints it, and the status is 1
    assert line.startswith(f"marketfeed: {says}")
    assert "\n" not in line


def test_help_shows_every_option_with_its_variable_and_default() -> None:
    """In groups and in two columns; each default as it could be given, and none for a switch or for what has none."""
    text = Options().getUsage()
    found = {}
    for option in OPTIONS:
        first = re.search(rf"^(  --{option.flag}=? +){re.escape(option.help)}(?: \[(.*)\])?$", text, re.MULTILINE)
        assert first is not None, option.flag
        assert f"\n{' ' * len(first[1])}environment: {option.environment}\n" in text
        assert f"\n{option.group}:\n" in text
        found[option.flag] = first[2]
    defaults = {"port": "8080", "drain-seconds": "20", "compression": "on", "auth": "off", "connect-rate": "300"}
    defaults |= {"max-connections-per-address": "0", "memory-limit": "85%", "request-rate": "10"}
    assert {flag: found[flag] for flag in defaults} == defaults
    without = {"allowed-origin", "trusted-proxy", "auth-key", "auth-jwks", "auth-audience", "auth-issuer", "demo"}
    without |= {
        "redis-url",
        "redis-host",
        "redis-port",
        "redis-ca",
        "channel-prefix",
        "config",
        "warm",
        "candles",
        "candle-trades",
        "candle-keep",
    }
    without |= {"redis-certificate", "redis-key", "admin-host", "admin-token-file", "workers"}
    assert {flag for flag, default in found.items() if default is None} == without


@pytest.mark.parametrize(("default", "shown"), [(True, " [on]"), (False, " [off]"), (0, " [0]"), (0.5, " [0.5]")])
def test_a_default_is_shown_as_it_could_be_given(default: Any, shown: str) -> None:
    """Whatever its type."""
    assert _shown(default) == shown


def test_the_version_is_that_of_the_daemon(capsys: pytest.CaptureFixture[str]) -> None:
    """Not that of Twisted."""
    with pytest.raises(SystemExit) as caught:
        settings("--version")
    assert caught.value.code is None
    assert capsys.readouterr().out == f"marketfeed {__version__}\n"


def test_the_service_is_built_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """With twistd's own options, where there are any."""
    built: list[Any] = []

    def build(*arguments: Any) -> MultiService:
        built.append(arguments)
        return MultiService()

    monkeypatch.setattr(marketfeed.daemon.build, "build", build)
    options = Options()
    options.parseOptions(["--port", "0"])
    makeService(options)
    options.parent = {"nodaemon": 1}
    makeService(options)
    rest = options.load_again
    assert built == [(global_reactor, options.settings, twistd, rest, None) for twistd in ({}, {"nodaemon": 1})]


def test_time_is_not_that_of_day() -> None:
    """In a process that has no timers yet."""
    program = (
        "import marketfeed.daemon.build, time; from twisted.internet import reactor; "
        "from marketfeed.daemon.tap import *; options = Options(); "
        "marketfeed.daemon.build.build = lambda *_: print(reactor.seconds == time.monotonic); "
        "options.parseOptions([]); makeService(options); "
        "print(0 <= reactor.callLater(5, print).getTime() - time.monotonic() <= 5)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True\nTrue\n"


def test_a_daemon_that_cannot_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the fault is."""

    def build(*_: object) -> MultiService:
        raise StartFault("no server to embed")

    monkeypatch.setattr(marketfeed.daemon.build, "build", build)
    options = Options()
    options.parseOptions([])
    with pytest.raises(SystemExit) as caught:
        makeService(options)
    assert caught.value.code == "marketfeed: no server to embed"


def test_reading_the_options_installs_no_reactor() -> None:
    """Nor does it import what would: `--reactor` stands behind `marketfeed` on the command line of twistd."""
    program = (
        "import sys; from marketfeed.daemon.tap import Options; Options().parseOptions([]); "
        "print('twisted.internet.reactor' in sys.modules, 'txredisapi' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
