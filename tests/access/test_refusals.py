"""What the log says of those who are refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock
from twisted.logger import formatEvent

from marketfeed.access.refusals import Refusals
from marketfeed.http.response import Response
from marketfeed.wire.messages import ErrorCode, RequestError
from tests.conftest import LogCapture


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def refusals(clock: Clock) -> Iterator[Refusals]:
    yield (refusals := Refusals(clock))
    refusals.stopService()
    assert not clock.getDelayedCalls()


def lines(logged: LogCapture) -> list[str]:
    events, logged.events = logged.events, []
    return [f"{event['log_level'].name} {formatEvent(event)}" for event in events]


@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
def test_a_refused_request_is_seen(status: int, refusals: Refusals, logged: LogCapture) -> None:
    """Who it came from and why, with the status as a field; never what only the answer may have."""
    refusals.of_request("192.0.2.7:5", Response(status, "no"))
    refusals.of_request("192.0.2.8:5", Response(status, "/secret is no path", logged="the path is unknown"))
    assert [(event["status"], event["peer"], event["count"]) for event in logged.events] == [
        (status, "192.0.2.7:5", 1),
        (status, "192.0.2.8:5", 1),
    ]
    assert lines(logged) == [
        f"info refused 192.0.2.7:5: {status} no",
        f"info refused 192.0.2.8:5: {status} the path is unknown",
    ]


@pytest.mark.parametrize("status", [200, 204, 400, 405, 408, 500])
def test_what_is_nobody_s_refusal_is_for_debugging(status: int, refusals: Refusals, logged: LogCapture) -> None:
    """Answers, and requests that are none."""
    refusals.of_request("192.0.2.7:5", Response(status, "x"))
    assert lines(logged) == [f"debug refused 192.0.2.7:5: {status} x"]


@pytest.mark.parametrize("code", [ErrorCode.NOT_PERMITTED, ErrorCode.AUTHENTICATION_FAILED])
def test_what_a_token_does_not_permit_is_seen(code: ErrorCode, refusals: Refusals, logged: LogCapture) -> None:
    """Bounded, whatever was asked for; the code is a number."""
    refusals.of_client("7-1", RequestError(code, "not permitted: " + "x" * 1000))
    (event,) = logged.events
    assert (type(event["code"]), event["code"], event["client"]) == (int, int(code), "7-1")
    assert lines(logged) == ["info client 7-1 is refused: " + ("not permitted: " + "x" * 1000)[:200]]


def test_what_a_client_does_wrong_is_for_debugging(refusals: Refusals, logged: LogCapture) -> None:
    """Its author sees the reply."""
    refusals.of_client("7-1", RequestError(ErrorCode.INVALID_REQUEST, "invalid request: id"))
    assert lines(logged) == ["debug client 7-1 is refused: invalid request: id"]


def test_a_flood_is_a_few_lines_and_a_count(refusals: Refusals, clock: Clock, logged: LogCapture) -> None:
    """Of each status and each code by itself."""
    for number in range(1000):
        refusals.of_request(f"192.0.2.7:{number}", Response(429, "too many"))
    refusals.of_request("192.0.2.7:1", Response(401, "a token is needed"))
    for _ in range(30):
        refusals.of_client("7-1", RequestError(ErrorCode.NOT_PERMITTED, "no"))
    assert len(lines(logged)) == 10 + 1 + 10
    clock.advance(1)
    assert lines(logged) == [
        "info refused 192.0.2.7:999: 429 too many (the last of 990 within 1 s)",
        "info client 7-1 is refused: no (the last of 20 within 1 s)",
    ]
