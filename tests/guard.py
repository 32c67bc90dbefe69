"""The one time-out of the tests. It ends what hangs; no verdict depends on how fast something is."""

from __future__ import annotations

__all__ = ["DEADLINE"]

DEADLINE = 300.0
"""Seconds after which waiting for something has failed: ten times what it takes on a machine that is very busy."""
