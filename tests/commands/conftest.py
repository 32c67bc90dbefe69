"""What the tests of commands that run until they are told to end have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.logger import globalLogBeginner

from marketfeed.redis.address import Address, RedisAddress
from marketfeed.redis.tls import RedisTls


def _fake_endpoints(reactor: Any, address: Address, tls: RedisTls) -> Callable[[RedisAddress], str | None]:
    """The file is all that the tests look at."""
    if tls.ca == "broken.pem":
        raise ValueError("--redis-ca: broken.pem: expected certificates in PEM format")
    return lambda server: tls.ca


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, no_variables: None) -> None:
    """No variables, no server, no log."""
    monkeypatch.setattr("marketfeed.redis.where.redis_endpoints", _fake_endpoints)
    monkeypatch.setattr(globalLogBeginner, "beginLoggingTo", lambda observers, redirectStandardIO: None)
