"""What the log says of conversations."""

from __future__ import annotations

import pytest
from msgspec import UNSET
from twisted.python.failure import Failure

from marketfeed.runtime.logs import Log
from marketfeed.session.session_log import log_change, log_failure, log_request
from marketfeed.wire.messages import Request
from tests.conftest import LogCapture


def lines(logged: LogCapture) -> list[str]:
    return [f"{event['log_level'].name} {event['log_format'].format_map(event)}" for event in logged.events]


def test_what_a_client_asks(logged: LogCapture) -> None:
    """Which client, the method, the params if there are any, cut short."""
    log_request("7", Request("PING", UNSET, 1), True)
    log_request("7", Request("SUBSCRIBE", "x" * 1000, 1), True)
    assert lines(logged) == [
        "debug client 7 asks PING",
        "debug client 7 asks SUBSCRIBE " + "x" * 200,
    ]


def test_what_may_be_a_token_is_not_logged(logged: LogCapture) -> None:
    """The params of AUTH, and all of a method that is none."""
    log_request("7", Request("AUTH", ["SECRET"], "SECRET"), True)
    log_request("7", Request("LOGIN", ["SECRET"], 1), False)
    assert lines(logged) == ["debug client 7 asks AUTH"]


def test_nothing_is_composed_that_nobody_reads(logged: LogCapture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the log is at debug."""
    monkeypatch.setattr(Log, "debugging", False)
    log_request("7", Request("PING", UNSET, 1), True)
    assert not logged.events


@pytest.mark.parametrize(("count", "shown"), [(1, "s0"), (5, "s0, s1, s2, s3, s4"), (6, "s0, s1, s2, s3, s4, …")])
def test_a_change_names_a_few_streams(count: int, shown: str, logged: LogCapture) -> None:
    """And how many there are."""
    log_change("7", "subscribed to", [f"s{number}" for number in range(count)])
    assert lines(logged) == [f"info client 7 subscribed to {count} streams: {shown}"]


def test_a_fault_of_ours_is_logged_with_its_cause(logged: LogCapture) -> None:
    """And the client that it has ended."""
    log_failure("7", Failure(ArithmeticError()))
    (event,) = logged.flush_failures(ArithmeticError)
    assert event["log_format"].format_map(event) == "client 7: internal error"
