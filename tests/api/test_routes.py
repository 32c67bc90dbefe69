"""The table of plain answers."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from marketfeed.api.routes import plain_answers
from marketfeed.http.head import Head
from marketfeed.http.response import Response
from marketfeed.http.router import LateResponse, Router
from marketfeed.model.streams import StreamKinds
from marketfeed.websocket.connections import UserManager
from tests.fakes import FakeBook, FakeBooks, make_admission


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
