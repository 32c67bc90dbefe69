"""Other programs: where they are, and what they print."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["find", "printed"]

_PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"])


def find(program: str) -> str | None:
    """Where it is installed, beside this Python, on the path or among those of the administrator; None: nowhere."""
    return shutil.which(program, path=_PATH)


def printed(command: Sequence[str | Path], cwd: Path, environment: Mapping[str, str]) -> str:
    """What a command printed, of which status 0 is expected; otherwise the failure has all that it said."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout
