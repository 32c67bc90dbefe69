"""What is to be done with workers, as `supervision` says it and `crew` does it."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["Action", "Assign", "End", "Kill", "Listening", "Over", "Retire", "Say", "Spawn"]


class Spawn(msgspec.Struct, frozen=True):
    """Start a process for the worker `number`, and call it `process` from then on."""

    number: int
    process: int


class Kill(msgspec.Struct, frozen=True):
    process: int


class Retire(msgspec.Struct, frozen=True):
    """Let it accept nobody else, send its clients away, and end."""

    process: int


class End(msgspec.Struct, frozen=True):
    """Let it send its clients away, and end."""

    process: int
    at_once: bool


class Assign(msgspec.Struct, frozen=True):
    """Let it accept from these queues, and from no others."""

    process: int
    queues: tuple[int, ...]


class Say(msgspec.Struct, frozen=True):
    """A line for the log."""

    level: str
    text: str
    facts: dict[str, Any]


class Listening(msgspec.Struct, frozen=True):
    """All workers are ready, for the first time."""


class Over(msgspec.Struct, frozen=True):
    """The last process has ended, and none is to be started."""


Action = Spawn | Kill | Retire | End | Assign | Say | Listening | Over
