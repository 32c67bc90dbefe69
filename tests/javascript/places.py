"""Where the JavaScript client is, and what runs it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.docs_runner import ROOT

__all__ = ["CLIENT", "needs_node"]

CLIENT = ROOT / "clients" / "js"


def _missing() -> str:
    """What is not there that the client's tests need; empty: nothing."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return "needs Node 20 or later, and npm"
    test = [node, "-e", "process.exit(Number(process.versions.node.split('.')[0]) < 20 ? 1 : 0)"]
    if subprocess.run(test, check=False).returncode != 0:
        return "needs Node 20 or later"
    if not (CLIENT / "node_modules" / ".finished").exists():
        return "needs clients/js/node_modules, which make env-clients sets up"
    return ""


_why = _missing()
needs_node = pytest.mark.skipif(bool(_why), reason=_why)
