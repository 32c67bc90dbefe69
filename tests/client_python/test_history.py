"""The last publications of a stream, page by page, of a server that has them in a list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marketfeed_client import FeedError
from marketfeed_client import history as client

from tests.client_python.script import Script

TRADE = "trade@A"
Server = Callable[[dict[str, Any]], list[dict[str, Any]]]


def entry(number: int) -> dict[str, Any]:
    return {"offset": f"0-{number}", "data": {"t": number}}


def drive(pages: client.Pasts, answer: Server) -> list[int]:
    try:
        fields = next(pages)
        for _ in range(1000):  # many more than there are
            fields = pages.send(answer(fields))
    except StopIteration as over:
        found: list[client.Past] = over.value
        return [each.data["t"] for each in found]
    raise AssertionError("it asks for ever")


@given(
    st.integers(0, 40),
    st.none() | st.integers(1, 50),
    st.none() | st.integers(1, 41),
    st.integers(1, 7),
    st.lists(st.integers(1, 7), min_size=1),
)
def test_pages_make_the_whole(kept: int, limit: int | None, before: int | None, page: int, rooms: list[int]) -> None:
    """However little of a page the server has room for, and whatever is published meanwhile."""
    rows = [entry(number) for number in range(1, kept + 1)]
    expected = [number for number in range(1, kept + 1) if before is None or number < before]
    asked = 0

    def answer(fields: dict[str, Any]) -> list[dict[str, Any]]:
        nonlocal asked
        assert 1 <= fields["limit"] <= page
        end = int(fields["before"].removeprefix("0-")) - 1 if "before" in fields else len(rows)
        there = rows[:end][-min(fields["limit"], rooms[asked % len(rooms)]) :]
        asked += 1
        rows.append(entry(len(rows) + 1))
        return there

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "MOST_OF_A_PAGE", page)
        found = drive(client.past(limit, None if before is None else f"0-{before}"), answer)
    assert found == (expected if limit is None else expected[-limit:])


def test_a_server_without_pages_is_an_error() -> None:
    """It would answer the newest again and again."""
    with pytest.raises(FeedError, match="has no pages") as raised:
        drive(client.past(3, None), lambda fields: [entry(1), entry(2)][-fields["limit"] :])
    assert (raised.value.kind, raised.value.final) == ("protocol", True)


@pytest.mark.parametrize("answer", [None, {}, [1], [{"offset": 1, "data": 1}], [{"data": 1}]])
def test_what_is_no_answer_is_said(answer: Any) -> None:
    with pytest.raises(FeedError, match="HISTORY") as raised:
        drive(client.past(1, None), lambda _: answer)
    assert raised.value.kind == "protocol"


class Asked:
    """A HISTORY that is asked for patiently, and what was answered."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.script = Script()
        self.script.start()
        session = self.script.core.session
        session.history(TRADE, {"limit": 5}, lambda *answer: self.answers.append(answer), is_patient=True)
        self.script.work()

    def refuse(self) -> None:
        (request,) = [each for each in self.script.sent if each["method"] == "HISTORY"]
        self.script.sent.clear()
        self.script.hear("!error", {"e": "error", "id": request["id"], "code": 7, "msg": "too many requests"})

    def until_asked(self) -> None:
        while not any(each["method"] == "HISTORY" for each in self.script.sent):
            self.script.sent.clear()
            self.script.wait()


def test_who_asks_patiently_asks_again_after_a_pause() -> None:
    asked = Asked()
    asked.refuse()
    assert asked.answers == []
    began = asked.script.time
    asked.until_asked()
    assert 0 < asked.script.time - began <= 2000
    asked.script.reply(asked.script.sent.pop())
    assert asked.answers == [(None, None)]


def test_patience_has_an_end() -> None:
    asked = Asked()
    for _ in range(6):
        asked.refuse()
        asked.until_asked()
    assert asked.answers == []
    asked.refuse()
    ((result, error),) = asked.answers
    assert (result, error.kind, error.code) == (None, "refused", 7)


def test_who_waits_to_ask_again_hears_of_a_lost_connection() -> None:
    asked = Asked()
    asked.refuse()
    asked.script.close()
    ((result, error),) = asked.answers
    assert (result, error.kind) == (None, "not-open")
