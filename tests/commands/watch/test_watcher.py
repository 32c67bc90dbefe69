"""The watcher: attempts, the waits between them, the SUBSCRIBE, and every way to its end."""

from __future__ import annotations

import errno
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock

from marketfeed.commands.messages import Message
from marketfeed.commands.watch.watcher import (
    FIRST_WAIT,
    GOODBYE_SECONDS,
    HANDSHAKE_SECONDS,
    LONGEST_HINT,
    LONGEST_WAIT,
    SILENCE_SECONDS,
    Backoff,
    Link,
    Loss,
    Watcher,
)
from tests.strategies import property_test

URL = "ws://localhost:8080/"
CONFIRMED = b'{"stream":"!reply","data":{"e":"reply","id":1,"result":null}}'
REFUSED = b'{"error":{"code":2,"msg":"bad stream name"},"id":1}'
PUBLICATION = b'{"e":"trade"}'
SHUTDOWN = b'{"e":"serverShutdown","reconnectAfter":3000}'
GONE = Loss("the connection was cut")


class FakeLink:
    """A connection that does only what the test says; aborted, it is lost at once, as a transport's would be."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.calls: list[str] = []
        self.sent: list[bytes] = []

    def send(self, text: bytes) -> None:
        self.sent.append(text)

    def ping(self) -> None:
        self.calls.append("ping")

    def leave(self) -> None:
        self.calls.append("leave")

    def abort(self) -> None:
        self.calls.append("abort")
        self.watcher.lost(GONE)


class FakeScreen:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.shown: list[bytes] = []
        self.error: OSError | None = None

    def message(self, payload: bytes, message: Message) -> None:
        if self.error is not None:
            raise self.error
        self.shown.append(payload)

    def note(self, line: str) -> None:
        self.notes.append(line)


class Watching:
    """A watcher among fakes. Without jitter each wait is the longest of its step."""

    def __init__(self, *, asks_for_events: bool = False) -> None:
        self.clock = Clock()
        self.screen = FakeScreen()
        self.attempts: list[Deferred[Link]] = []
        self.links: list[FakeLink] = []
        self.statuses: list[int] = []
        streams = ["trade@A", "depth@A"]
        self.watcher = Watcher(
            self.clock, self.dial, self.screen, URL, streams, Backoff(lambda: 1.0), asks_for_events=asks_for_events
        )
        self.watcher.start().addCallback(self.statuses.append)

    def dial(self, watcher: Watcher) -> Deferred[Link]:
        self.attempts.append(Deferred())
        return self.attempts[-1]

    @property
    def link(self) -> FakeLink:
        return self.links[-1]

    def reach(self) -> FakeLink:
        """The transport of the latest attempt is there."""
        self.links.append(FakeLink(self.watcher))
        self.attempts[-1].callback(self.link)
        return self.link

    def open(self) -> FakeLink:
        """And so is the WebSocket."""
        self.reach()
        self.watcher.opened()
        return self.link

    def refuse(self) -> None:
        self.attempts[-1].errback(ConnectionRefusedError())

    def wait(self) -> float:
        """Let the time pass until the next attempt; how long that took."""
        count, began = len(self.attempts), self.clock.seconds()
        (call,) = self.clock.getDelayedCalls()
        self.clock.advance(call.getTime() - began)
        assert len(self.attempts) == count + 1
        return self.clock.seconds() - began

    def assert_over(self, status: int) -> None:
        assert self.statuses == [status]
        assert self.clock.getDelayedCalls() == []


def test_subscribes_once() -> None:
    """An open connection is noted, and gets one SUBSCRIBE with all streams and an id."""
    watching = Watching()
    link = watching.reach()
    assert (link.sent, watching.screen.notes) == ([], [])
    watching.watcher.opened()
    assert [json.loads(text) for text in link.sent] == [
        {"method": "SUBSCRIBE", "params": ["trade@A", "depth@A"], "id": 1}
    ]
    assert watching.screen.notes == [f"connected to {URL}"]


def test_shows_publications_and_events_but_no_replies() -> None:
    """What is shown is what is watched; the reply to our own request is not."""
    watching = Watching()
    watching.open()
    for payload in (CONFIRMED, PUBLICATION, b"no json", SHUTDOWN):
        watching.watcher.received(payload)
    assert watching.screen.shown == [PUBLICATION, b"no json", SHUTDOWN]
    assert watching.screen.notes == [f"connected to {URL}"]


def test_refused_subscribe() -> None:
    """A refused SUBSCRIBE is told, and ends with status 1 once the connection is closed; nothing is shown after it."""
    watching = Watching()
    link = watching.open()
    watching.watcher.received(REFUSED)
    watching.watcher.received(PUBLICATION)
    assert watching.screen.notes[1:] == ["error 2: bad stream name"]
    assert watching.screen.shown == []
    assert (link.calls, watching.statuses) == (["leave"], [])
    watching.watcher.lost(GONE)
    watching.assert_over(1)


def test_later_error_does_not_end() -> None:
    """After the SUBSCRIBE was confirmed, an error is only told."""
    watching = Watching()
    link = watching.open()
    watching.watcher.received(CONFIRMED)
    watching.watcher.received(REFUSED)
    assert watching.screen.notes[1:] == ["error 2: bad stream name"]
    assert link.calls == []


def test_refused_on_the_next_connection() -> None:
    """A confirmation holds for its connection only."""
    watching = Watching()
    watching.open()
    watching.watcher.received(CONFIRMED)
    watching.watcher.lost(GONE)
    watching.wait()
    watching.open()
    watching.watcher.received(REFUSED)
    assert watching.link.calls == ["leave"]


# From one connection to the next.


def test_lost_and_returned() -> None:
    """One line tells of a loss, whatever the number of attempts that fail, and one of the return."""
    watching = Watching()
    watching.open()
    watching.watcher.received(CONFIRMED)
    watching.watcher.lost(Loss("closed with 1011, internal error"))
    for _ in range(5):
        watching.wait()
        watching.refuse()
    watching.wait()
    watching.open()
    assert watching.screen.notes == [
        f"connected to {URL}",
        f"lost {URL}: closed with 1011, internal error; trying again, first in 0.5 s",
        f"connected to {URL}",
    ]
    assert len(watching.link.sent) == 1


def test_waits_grow() -> None:
    """Between attempts that fail the waits double, up to a longest."""
    watching = Watching()
    waits = []
    for _ in range(7):
        watching.refuse()
        waits.append(watching.wait())
    assert waits == [FIRST_WAIT, 1.0, 2.0, 4.0, 8.0, LONGEST_WAIT, LONGEST_WAIT]
    assert watching.screen.notes == [
        f"cannot reach {URL}: Connection was refused by other side; trying again, first in 0.5 s"
    ]


def test_waits_grow_until_the_subscribe_is_confirmed() -> None:
    """A server that opens connections and drops them is not asked again at once; a confirmation begins anew."""
    watching = Watching()
    for expected in (0.5, 1.0, 2.0):
        watching.open()
        watching.watcher.lost(GONE)
        assert watching.wait() == expected
    watching.open()
    watching.watcher.received(CONFIRMED)
    watching.watcher.lost(GONE)
    assert watching.wait() == FIRST_WAIT


@property_test
@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=12))
def test_jitter(chances: list[float]) -> None:
    """Each wait lies between half of its step and all of it."""
    left = iter(chances)
    backoff = Backoff(lambda: next(left))
    for number in range(len(chances)):
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2**number)
        assert longest / 2 <= backoff.next() <= longest


def test_hint_of_a_shutdown() -> None:
    """A server that shuts down says how long to stay away: that is the first wait, the next one is ours."""
    watching = Watching()
    watching.open()
    watching.watcher.received(CONFIRMED)
    watching.watcher.received(SHUTDOWN)
    watching.watcher.lost(Loss("closed with 1012"))
    assert watching.screen.notes[-1].endswith("first in 3.0 s")
    assert watching.wait() == 3.0
    watching.refuse()
    assert watching.wait() == FIRST_WAIT


@pytest.mark.parametrize(
    ("hint", "wait"), [("86400000", LONGEST_HINT), ("1E+999999999", LONGEST_HINT), ("-5", 0.0), ('"soon"', FIRST_WAIT)]
)
def test_hint_that_is_not_sensible(hint: str, wait: float) -> None:
    """No hint keeps the watcher away for long, or makes it fail."""
    watching = Watching()
    watching.open()
    watching.watcher.received(SHUTDOWN.replace(b"3000", hint.encode()))
    watching.watcher.lost(GONE)
    assert watching.wait() == wait


def test_hint_of_a_refusal() -> None:
    """A refusal may say it too."""
    watching = Watching()
    watching.reach()
    watching.watcher.lost(Loss("the server answers 503", is_refusal=True, after=7.0))
    assert watching.screen.notes == [f"cannot watch {URL}: the server answers 503; trying again, first in 7.0 s"]
    assert watching.wait() == 7.0


def test_refusal_after_a_loss_is_told() -> None:
    """A refused handshake is told with its status, once, though the loss was told before."""
    watching = Watching()
    watching.open()
    watching.watcher.lost(GONE)
    for why in ("answers 503", "answers 503", "answers 429"):
        watching.wait()
        watching.reach()
        watching.watcher.lost(Loss(why, is_refusal=True))
    assert [note.partition(";")[0] for note in watching.screen.notes[2:]] == [
        f"cannot watch {URL}: answers 503",
        f"cannot watch {URL}: answers 429",
    ]


def test_final_loss() -> None:
    """Where another attempt would end the same, there is none: status 1."""
    watching = Watching()
    watching.reach()
    watching.watcher.lost(Loss("the server answers 404 Not Found", is_refusal=True, is_final=True))
    assert watching.screen.notes == [f"cannot watch {URL}: the server answers 404 Not Found"]
    watching.assert_over(1)


def test_name_that_cannot_be() -> None:
    """A host name that cannot be one, as the endpoint finds, is final as well."""
    watching = Watching()
    watching.attempts[-1].errback(ValueError("invalid hostname: my_host"))
    assert watching.screen.notes == [f"cannot reach {URL}: invalid hostname: my_host"]
    watching.assert_over(1)


def test_attempts_that_end_at_once() -> None:
    """An attempt may succeed or fail before `dial` returns."""
    clock, screen = Clock(), FakeScreen()
    outcomes: list[Deferred[Link]] = [fail(ConnectionRefusedError())]
    watcher = Watcher(clock, lambda watcher: outcomes.pop(), screen, URL, ["trade@A"], Backoff(lambda: 1.0))
    watcher.start()
    link = FakeLink(watcher)
    outcomes.append(succeed(link))
    clock.advance(FIRST_WAIT)
    watcher.opened()
    assert len(link.sent) == 1


# A server that says nothing.


def test_handshake_that_is_not_completed() -> None:
    """A server that does not complete the handshake in time is lost, and tried again."""
    watching = Watching()
    link = watching.reach()
    watching.clock.advance(HANDSHAKE_SECONDS)
    assert link.calls == ["abort"]
    assert watching.screen.notes == [
        f"cannot watch {URL}: no WebSocket within 10 s; trying again, first in 0.5 s",
    ]
    watching.wait()


def test_silent_server() -> None:
    """A silent server is pinged, then given up."""
    watching = Watching()
    link = watching.open()
    watching.clock.advance(SILENCE_SECONDS)
    assert link.calls == []
    watching.clock.advance(SILENCE_SECONDS)
    assert link.calls == ["ping"]
    watching.clock.advance(SILENCE_SECONDS)
    assert link.calls == ["ping", "abort"]
    assert watching.screen.notes[-1] == f"lost {URL}: no sign of life for 40 s; trying again, first in 0.5 s"


def test_server_that_answers_pings() -> None:
    """A server that has nothing to publish, but answers, is kept."""
    watching = Watching()
    link = watching.open()
    for _ in range(10):
        watching.clock.pump([SILENCE_SECONDS] * 2)
        watching.watcher.heard()
    assert link.calls == ["ping"] * 10


# The end.


def test_stop_while_open() -> None:
    """Stopped while it watches, it closes, and is over when the connection is gone; nothing is shown meanwhile."""
    watching = Watching()
    link = watching.open()
    watching.watcher.stop()
    watching.watcher.received(PUBLICATION)
    assert (link.calls, watching.statuses, watching.screen.shown) == (["leave"], [], [])
    watching.watcher.lost(Loss("closed with 1000"))
    watching.assert_over(0)
    assert watching.screen.notes == [f"connected to {URL}"]


def test_stop_of_a_server_that_does_not_answer() -> None:
    """The server has a moment to answer the close."""
    watching = Watching()
    link = watching.open()
    watching.watcher.stop()
    watching.clock.advance(GOODBYE_SECONDS)
    assert link.calls == ["leave", "abort"]
    watching.assert_over(0)


def test_stop_twice() -> None:
    """Asked twice, it does not wait; asked once more, it is over already."""
    watching = Watching()
    link = watching.open()
    watching.watcher.stop()
    watching.watcher.stop()
    watching.watcher.stop()
    assert link.calls == ["leave", "abort"]
    watching.assert_over(0)


def test_stop_during_the_handshake() -> None:
    """Stopped before the WebSocket is there, it leaves as well."""
    watching = Watching()
    link = watching.reach()
    watching.watcher.stop()
    assert link.calls == ["leave"]
    watching.watcher.lost(GONE)
    watching.assert_over(0)


def test_stop_during_an_attempt() -> None:
    """Stopped during an attempt, it cancels that; no note tells of it."""
    watching = Watching()
    watching.watcher.stop()
    watching.assert_over(0)
    assert watching.screen.notes == []


def test_stop_during_an_attempt_that_succeeds_all_the_same() -> None:
    """A transport that comes in spite of the cancelling is dropped."""
    clock, statuses = Clock(), list[int]()
    attempt: Deferred[Link] = Deferred(lambda cancelled: cancelled.callback(link))
    watcher = Watcher(clock, lambda watcher: attempt, FakeScreen(), URL, ["trade@A"], Backoff())
    link = FakeLink(watcher)
    watcher.start().addCallback(statuses.append)
    watcher.stop()
    assert (link.calls, statuses, clock.getDelayedCalls()) == (["abort"], [0], [])


def test_stop_between_attempts() -> None:
    """Stopped while it waits, it is over at once."""
    watching = Watching()
    watching.refuse()
    watching.watcher.stop()
    watching.assert_over(0)


def test_nobody_reads() -> None:
    """When nobody reads what is shown, the watching is over, without a note: status 0."""
    watching = Watching()
    link = watching.open()
    watching.screen.error = BrokenPipeError(errno.EPIPE, "Broken pipe")
    watching.watcher.received(PUBLICATION)
    assert link.calls == ["leave"]
    watching.watcher.lost(GONE)
    watching.assert_over(0)
    assert watching.screen.notes == [f"connected to {URL}"]


def test_full_disk() -> None:
    """When it cannot be written, the reason is told: status 1."""
    watching = Watching()
    watching.open()
    watching.screen.error = OSError(errno.ENOSPC, "No space left on device")
    watching.watcher.received(PUBLICATION)
    watching.watcher.lost(GONE)
    watching.assert_over(1)
    assert watching.screen.notes[-1] == "cannot write: No space left on device"


def test_cancelled_attempt_is_an_ordinary_failure() -> None:
    """An attempt that something else cancels, such as its own time-out, is made again."""
    watching = Watching()
    watching.attempts[-1].errback(CancelledError())
    assert watching.wait() == FIRST_WAIT


@pytest.mark.parametrize("knows_events", [True, False])
def test_where_events_are_told_to_who_asks(knows_events: bool) -> None:
    """Behind the SUBSCRIBE, once in each connection; a server that knows none is watched all the same."""
    watching = Watching(asks_for_events=True)
    for _ in range(2):
        link = watching.open()
        assert len(link.sent) == 1
        watching.watcher.received(CONFIRMED)
        assert json.loads(link.sent[1]) == {"method": "SET_PROPERTY", "params": ["events", True], "id": 2}
        notes = list(watching.screen.notes)
        watching.watcher.received(CONFIRMED if knows_events else REFUSED)
        watching.watcher.received(PUBLICATION)
        assert watching.screen.notes == notes
        assert not watching.statuses
        assert len(link.sent) == 2
        watching.watcher.received(REFUSED)
        assert len(watching.screen.notes) == len(notes) + 1
        watching.watcher.lost(GONE)
        watching.clock.advance(LONGEST_WAIT)
    assert watching.screen.shown == [PUBLICATION] * 2
