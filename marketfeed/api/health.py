"""Whether clients should come here at this moment, and why not (docs/operations/health.md#health).

A daemon that is full is ready: who is refused is told so, and those who are in must not be cut off. One that has lost
Redis later is, too: clients are better off connected, where they are told of the gap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Drained", "Health", "Limited"]


class Drained(Protocol):
    """Who knows whether clients are being sent away."""

    draining: bool


class Limited(Protocol):
    """Who knows whether there is too little memory to let anybody in."""

    is_full: bool


class Health:
    """Of this process. `with_memory`: being short of memory counts, see `--ready-memory`."""

    def __init__(
        self, is_source_reached: Callable[[], bool], clients: Drained, memory: Limited, *, with_memory: bool
    ) -> None:
        self._is_source_reached = is_source_reached
        self._clients = clients
        self._memory = memory
        self._with_memory = with_memory

    @property
    def is_ready(self) -> bool:
        """Whether clients should come here."""
        return not self.reasons

    @property
    def reasons(self) -> list[str]:
        """Why they should not."""
        reasons = {
            "source-never-reached": not self._is_source_reached(),
            "draining": self._clients.draining,
            "memory": self._with_memory and self._memory.is_full,
        }
        return [reason for reason, holds in reasons.items() if holds]
