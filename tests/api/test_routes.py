"""The table of plain answers, and what load balancers ask."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from marketfeed.api.routes import alive, plain_answers, readiness
from marketfeed.http.head import Head
from marketfeed.http.response import Response
from marketfeed.http.router import LateResponse, Router
from marketfeed.model.streams import StreamKinds
from marketfeed.websocket.connections import UserManager
from tests.fakes import FakeBook, FakeBooks, make_admission

HEAD = Head("GET", "/", "", {})


def test_who_answers_lives() -> None:
    """Whatever else is the matter."""
    assert alive(HEAD, None) == Response(200, "ok")


@pytest.mark.parametrize(
    ("ready", "answer"),
    [(True, Response(200, "ready")), (False, Response(503, "not ready", (("Retry-After", "1"),), reason="not-ready"))],
)
def test_readiness(ready: bool, answer: Response) -> None:
    """As it is at this moment; 503 says when to ask again."""
    states = [not ready, ready]
    ask = readiness(lambda: states.pop(0))
    assert ask(HEAD, None) != answer
    assert ask(HEAD, None) == answer


@pytest.mark.parametrize(
    ("path", "text"), [("/healthz", "ok"), ("/readyz", "ready"), ("/api/v3/depth", "a book"), ("/api/v3/depth/", None)]
)
def test_every_line_of_it_is_found(path: str, text: str | None) -> None:
    """By its path as it stands there."""
    clock, kinds = Clock(), StreamKinds()
    admission = make_admission(clock, UserManager(clock, 100, 0.0, clock.seconds))
    router = Router(kinds, plain_answers(admission, FakeBooks(FakeBook()), kinds, lambda: True))
    asked = router.ask(Head("GET", path, "symbol=A", {}), None)
    answers: list[Response] = []
    if isinstance(asked, LateResponse):
        asked.found.addCallback(answers.append)
    else:
        assert isinstance(asked, Response)
        answers.append(asked)
    assert [(answer.status, answer.text) for answer in answers] == [(200, text)] if text else answers[0].status == 404
