"""What the suite is run in does not change its verdict."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_sigint_may_be_ignored() -> None:
    """As it is in a background job of a shell: those whom a test starts notice a Ctrl-C all the same."""
    program = (
        "import signal, sys, pytest; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.exit(pytest.main(sys.argv[1:]))"
    )
    tests = "tests/commands/test_simulate.py::test_a_signal_ends_the_process_well[2]"
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-c", program, "-n", "0", "-p", "no:cacheprovider", tests],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
