"""The scenes that each client is shown."""

from __future__ import annotations

import pytest

from tests.clients.scenes import Demo, Platform, Scene


@pytest.fixture(params=[Demo, Platform], ids=["demo", "platform"])
def scene(request: pytest.FixtureRequest) -> Scene:
    """Not begun yet."""
    return request.param()  # type: ignore[no-any-return]
