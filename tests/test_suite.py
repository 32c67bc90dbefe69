"""What the suite is run in, and which of its tests are first, does not change its verdict."""

from __future__ import annotations

import os
import signal
import sys

from tests.docs_runner import ROOT
from tests.programs import printed


def run_apart(count: int, *tests: str, before: str = "pass") -> None:
    """These tests pass in a Python of their own, in which `before` was run."""
    program = f"import signal, sys, pytest; {before}; sys.exit(pytest.main(sys.argv[1:]))"
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-c", program, "-n", "0", "-p", "no:cacheprovider", *tests]
    assert f"{count} passed" in printed(command, ROOT, environment)


def test_sigint_may_be_ignored() -> None:
    """As it is in a background job of a shell: those whom a test starts notice a Ctrl-C all the same."""
    ignored = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    run_apart(1, "tests/commands/test_simulate.py::test_a_signal_ends_the_process_well[2]", before=ignored)


def test_the_first_test_may_replace_signals() -> None:
    """Which is a worker's first depends on how many there are; the reactor hears of ended processes all the same."""
    replaces_signals = "tests/commands/recording/test_record.py::test_a_recording"
    run_apart(2, replaces_signals, f"tests/test_suite.py::{test_the_reactor_hears_of_ended_processes.__name__}")


def test_the_reactor_hears_of_ended_processes() -> None:
    """It has a handler for SIGCHLD; without one, waiting for a process depends on when it closes its output."""
    assert signal.getsignal(signal.SIGCHLD) is not signal.SIG_DFL
