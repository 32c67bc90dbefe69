"""What the tests of `marketfeed status` have in common."""

from __future__ import annotations

import pytest

from marketfeed.commands.status import asking
from tests.guard import DEADLINE


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch, no_variables: None) -> None:
    """No verdict depends on how fast the machine is, or on where the tests run."""
    monkeypatch.setattr(asking, "SECONDS", DEADLINE)
