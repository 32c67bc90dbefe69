"""The command `marketfeed`: its commands, its help, and how little it takes to start it."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

import marketfeed
from marketfeed.commands import main
from marketfeed.commands.watch import command

ROOT = Path(marketfeed.__file__).parent.parent


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command there is help, on stderr, and status 2."""
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "watch" in err
    assert "simulate" in err
    assert "twistd -n marketfeed" in err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version tells the version."""
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"marketfeed {marketfeed.__version__}\n"


@pytest.mark.parametrize("command", ["watch", "check", "simulate", "record", "replay", "bench", "token", "status"])
def test_help_of_a_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command has help of its own."""
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"marketfeed {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["watch"], ["record"], ["replay"], ["watch", "ws://localhost:8080"], ["--nonsense"]]
)
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A command line that makes no sense is status 2, with a word on stderr."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "marketfeed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "is_json", "no_color"),
    [
        (["watch", "ws://h", "trade@A", "depth@A"], False, False),
        (["watch", "--json", "ws://h", "trade@A", "depth@A"], True, False),
        (["watch", "ws://h", "trade@A", "depth@A", "--no-color"], False, True),
    ],
)
def test_watch(arguments: list[str], is_json: bool, no_color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`watch` gets its URL, its streams and its flags, and its status is that of the process."""
    got: list[argparse.Namespace] = []
    monkeypatch.setattr(command, "run", lambda arguments: got.append(arguments) or 7)
    assert main(arguments) == 7
    (namespace,) = got
    assert (namespace.url, namespace.streams) == ("ws://h", ["trade@A", "depth@A"])
    assert (namespace.json, namespace.no_color) == (is_json, no_color)


def test_as_a_module() -> None:
    """`python -m marketfeed` is the same command."""
    done = python("-m", "marketfeed", "watch", "nonsense", "trade@A")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("marketfeed watch: 'nonsense' cannot be used")


def test_light() -> None:
    """To parse a command line takes no reactor, and none of the libraries that a command itself needs."""
    heavy = "'twisted.internet.reactor', 'autobahn', 'txredisapi', 'hiredis', 'OpenSSL', 'cryptography', 'jwt'"
    done = python("-c", f"import sys, marketfeed.commands; print(sorted({{{heavy}}} & set(sys.modules)))")
    assert (done.stderr, done.stdout) == ("", "[]\n")
