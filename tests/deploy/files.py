"""What lies in deploy/, and the programs that check it where they are installed."""

from __future__ import annotations

import configparser
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs_runner import ROOT
from tests.programs import find, printed

__all__ = ["DEPLOY", "ROOT", "read_yaml", "run", "unit"]

DEPLOY = ROOT / "deploy"


def run(program: str, *arguments: str | Path, cwd: Path = DEPLOY, **environment: str) -> str:
    """What a program printed, of which status 0 is expected. Skips the test where it is not installed."""
    path = find(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return printed([path, *arguments], cwd, os.environ | environment)


def read_yaml(name: str) -> Any:
    """A file of deploy/ with one document."""
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def unit(name: str) -> configparser.ConfigParser:
    """A unit of systemd. Of a setting that stands there several times, the last one."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read(DEPLOY / "systemd" / name, encoding="utf-8")
    return parser
