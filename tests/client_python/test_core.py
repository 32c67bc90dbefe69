"""The core, with a clock, chance and a server of the test's own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client_python.script import Script

TRADE = "trade@A"


def started() -> Script:
    script = Script()
    script.start()
    script.want(TRADE)
    script.answer_all()
    return script


def test_a_connection_begins_with_properties_and_all_that_is_wanted() -> None:
    script = Script()
    script.want(TRADE)
    script.core.start()
    script.work()
    script.open()
    assert [(each["method"], each["params"]) for each in script.sent] == [
        ("SET_PROPERTY", ["offsets", True]),
        ("SET_PROPERTY", ["snapshot", True]),
        ("SUBSCRIBE", [TRADE]),
    ]
    script.answer_all()
    assert script.log == [{"e": "state", "state": "open", "previous": "connecting"}]


def test_what_was_missed_is_asked_for_and_counted() -> None:
    script = started()
    script.trade(1)
    script.close()
    assert script.wait() == 250  # half of 500
    script.open()
    resume, ping = script.sent[2:]
    assert resume["since"] == {TRADE: "0-1"}
    script.trade(9)  # of an earlier question
    script.reply(resume, recovered={TRADE: True})
    script.trade(1)  # has come already
    script.trade(2)
    script.reply(ping)
    script.trade(3)
    expected = [1, 2, {"e": "recovered", "stream": TRADE, "recovered": True, "count": 1}, 3]
    assert script.events("recovered") == expected


def test_what_is_not_recovered_is_a_gap_before_the_next_message() -> None:
    script = started()
    script.trade(1)
    heard = script.time
    script.close()
    script.wait()
    script.open()
    script.reply(script.sent[2], recovered={TRADE: False})
    assert script.events("gap") == [1]
    script.trade(5, epoch=1)
    gap = {"e": "gap", "streams": [TRADE], "reason": "not-recovered", "from": heard, "to": script.time}
    assert script.events("gap") == [1, {**gap, "streams": (TRADE,)}, 5] or script.events("gap") == [1, gap, 5]


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1009, 4401])
def test_a_final_close_ends_it(code: int) -> None:
    script = started()
    script.close(code)
    assert (script.core.state, script.core.deadline, script.is_closed) == ("closed", None, True)
    assert script.core.error is not None
    assert script.core.error.code == code


def test_another_token_may_help() -> None:
    script = Script(can_renew=True)
    script.start()
    script.close(4401)
    assert script.core.state == "waiting"


def test_the_servers_hint_is_taken_as_it_is() -> None:
    script = started()
    script.hear("!serverShutdown", {"e": "serverShutdown", "E": 1, "reconnectAfter": 4321})
    script.close(1012)
    assert script.log[-1] == {"e": "reconnecting", "delay": 4321, "attempt": 1, "hinted": True}


def test_pauses_double_up_to_their_bound() -> None:
    script = Script()
    script.core.start()
    script.work()
    pauses = []
    for _ in range(8):
        script.close()
        pauses.append(script.wait())
    assert pauses == [250, 500, 1000, 2000, 4000, 8000, 15000, 15000]


def test_a_dead_link_is_noticed() -> None:
    script = started()
    while not script.sent:
        script.wait()
    assert script.sent[0]["method"] == "PING"
    script.wait()
    script.wait()
    assert script.core.state == "waiting"
    assert [each["kind"] for each in script.events("error")] == ["dead"]


def test_close_while_waiting_leaves_nothing() -> None:
    script = started()
    script.close()
    script.core.close()
    assert (script.core.state, script.core.deadline) == ("closed", None)


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"stream":1}', b"\xff", b'{"stream":"!gap","data":{"e":"gap"}}'])
def test_what_is_no_message_ends_the_connection(text: bytes) -> None:
    script = started()
    script.core.received(script.attempt, [text])
    assert script.core.state == "waiting"
    assert [each["kind"] for each in script.events("error")] == ["protocol"]


class Server:
    """Trades 1, 2, …, of which it keeps some, and what it would send to one client."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.number = 0
        self.first = 1  # the oldest that is kept
        self.epoch = 0
        self.is_subscribed = False

    def publish(self) -> None:
        self.number += 1
        if self.is_subscribed:
            self.script.trade(self.number, self.epoch)

    def answer(self) -> None:
        if not self.script.sent or self.script.is_closed:
            return
        request = self.script.sent.pop(0)
        if request["method"] != "SUBSCRIBE":
            self.script.reply(request)
            return
        self.is_subscribed = True
        since = request.get("since", {}).get(TRADE)
        if since is None:
            self.script.reply(request)
            return
        epoch, number = map(int, since.split("-"))
        is_kept = epoch == self.epoch and number + 1 >= self.first
        self.script.reply(request, recovered={TRADE: is_kept})
        for missed in range(number + 1, self.number + 1) if is_kept else ():
            self.script.trade(missed, self.epoch)

    def die(self, forgets: bool) -> None:
        self.is_subscribed = False
        self.script.sent.clear()
        if not self.script.is_closed:
            self.script.close()
        if forgets:
            self.epoch += 1
        while self.script.core.state == "waiting":
            self.script.wait()
        self.script.open()


@given(st.lists(st.sampled_from(["publish", "answer", "die", "restart"]), max_size=60))
def test_nothing_comes_twice_and_nothing_is_missing_without_a_gap(steps: list[str]) -> None:
    """Whatever the order of publications, answers, deaths and losses of the server's memory."""
    script = started()
    server = Server(script)
    server.is_subscribed = True
    for step in steps:
        match step:
            case "publish":
                server.publish()
            case "answer":
                server.answer()
            case "die":
                server.die(False)
            case "restart":
                server.die(True)
    while script.sent:
        server.answer()
    server.publish()
    last: Any = None
    is_excused = True  # from nothing, anything may come first
    for each in script.events("gap"):
        if not isinstance(each, int):
            is_excused = True
        else:
            assert last is None or each > last
            assert is_excused or each == last + 1
            last, is_excused = each, False
    assert last == server.number
