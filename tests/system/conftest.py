"""The fixture that system tests start from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_twisted
from twisted.internet import reactor

from tests.system.harness import Harness


@pytest_twisted.async_yield_fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    """Real parts, all ended with the test."""
    parts = Harness(reactor, tmp_path)
    try:
        yield parts
    finally:
        await parts.close()
