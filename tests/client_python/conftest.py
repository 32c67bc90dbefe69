"""What the tests of the Python client share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_twisted

from tests.client_python.loops import Loop
from tests.system.harness import Harness


@pytest_twisted.async_yield_fixture
async def loop(harness: Harness) -> AsyncIterator[Loop]:
    loop = Loop(harness.reactor)
    try:
        yield loop
    finally:
        loop.close()
