"""The client libraries that are held to the scenarios, and the adapter of each."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.javascript.places import CLIENT, needs_node

__all__ = ["CLIENTS", "Client"]

_ADAPTERS = Path(__file__).parent / "adapters"


@dataclass(frozen=True)
class Client:
    """A client library. `command`: what runs its adapter; `missing`: why it cannot be run here, empty if it can."""

    name: str
    command: list[str]
    missing: str


def _javascript() -> Client:
    command = [shutil.which("node") or "node", str(_ADAPTERS / "javascript.mjs"), str(CLIENT / "src" / "book.js")]
    missing = needs_node.kwargs["reason"] if needs_node.args[0] else ""
    return Client("javascript", command, missing)


def _python() -> Client:
    return Client("python", [sys.executable, str(_ADAPTERS / "python.py")], "")


CLIENTS = {client.name: client for client in (_javascript(), _python())}
