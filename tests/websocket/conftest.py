"""What every test of this room has: each server sets Autobahn's clock, which is one for all."""

from __future__ import annotations

import pytest
import txaio.tx


@pytest.fixture(autouse=True)
def _own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards it is what it was."""
    monkeypatch.setattr(txaio.tx.config, "loop", txaio.tx.config.loop)
