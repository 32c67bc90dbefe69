"""What load balancers ask."""

from __future__ import annotations

import pytest

from marketfeed.api.health import alive, readiness
from marketfeed.http.head import Head
from marketfeed.http.response import Response

HEAD = Head("GET", "/", "", {})


def test_who_answers_lives() -> None:
    """Whatever else is the matter."""
    assert alive(HEAD, None) == Response(200, "ok")


@pytest.mark.parametrize(
    ("ready", "answer"),
    [(True, Response(200, "ready")), (False, Response(503, "not ready", (("Retry-After", "1"),)))],
)
def test_readiness(ready: bool, answer: Response) -> None:
    """As it is at this moment; 503 says when to ask again."""
    states = [not ready, ready]
    ask = readiness(lambda: states.pop(0))
    assert ask(HEAD, None) != answer
    assert ask(HEAD, None) == answer
