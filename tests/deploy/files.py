"""What lies in deploy/, and the programs that check it where they are installed."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs_runner import ROOT

__all__ = ["DEPLOY", "ROOT", "read_yaml", "run", "unit"]

DEPLOY = ROOT / "deploy"
_PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"])


def run(program: str, *arguments: str | Path, cwd: Path = DEPLOY, **environment: str) -> str:
    """What a program printed, of which status 0 is expected. Skips the test where it is not installed."""
    path = shutil.which(program, path=_PATH)
    if path is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        [path, *arguments],
        cwd=cwd,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{program} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def read_yaml(name: str) -> Any:
    """A file of deploy/ with one document."""
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def unit(name: str) -> configparser.ConfigParser:
    """A unit of systemd. Of a setting that stands there several times, the last one."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read(DEPLOY / "systemd" / name, encoding="utf-8")
    return parser
