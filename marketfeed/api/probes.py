"""What every admin port answers: whether the process lives, whether it is of use and why not, and its metrics.

What is for one part of the process alone has a path of its own: a daemon serves clients well while its candle service
does not work.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

from marketfeed.api.page import NOTHING, Answer, Page, as_json, later

__all__ = ["CANDLES", "LOGIN", "Numbers", "Probes", "Readiness"]

CANDLES, LOGIN = "/readyz/candles", "/login"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Readiness(Protocol):
    """Who knows it."""

    @property
    def reasons(self) -> list[str]:
        """Why the process is of no use at this moment; empty: it is."""


class Numbers(Protocol):
    """Who has all that is counted."""

    def text(self) -> bytes | Deferred[bytes]:
        """As Prometheus reads it."""


class Probes:
    """These three, which anybody may ask for who reaches the port.

    `login`: the form for the token, as it is answered to who has shown none; `login_again`: a wrong one. Here nothing
    needs a token. `candles`: a candle service beside what the process is for.
    """

    def __init__(self, health: Readiness, metrics: Numbers, candles: Readiness | None = None) -> None:
        self._answers: dict[str, Answer] = {
            "/healthz": lambda query: Page(b"ok\n"),
            "/readyz": lambda query: _readiness(health.reasons),
            "/metrics": lambda query: later(metrics.text(), lambda text: Page(text, _PROMETHEUS)),
        }
        if candles is not None:
            self._answers[CANDLES] = lambda query: _readiness(candles.reasons)
        self.login = self.login_again = NOTHING

    def is_open(self, path: str) -> bool:
        """Whether anybody may ask for it who reaches the port: it says nothing of any client."""
        return True

    def is_for_people(self, path: str) -> bool:
        """Whether a form is better there than a line of text."""
        return False

    def find(self, path: str) -> Answer | None:
        """What answers this path; None: nothing does."""
        return self._answers.get(path)


def _readiness(reasons: list[str]) -> Page:
    return as_json({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)
