"""The book beside a plain one, whatever happens on the way to it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from marketfeed_client.book import Follower
from marketfeed_client.events import Event
from marketfeed_client.session import Envelope

from tests.client_python.script import Script

DEPTH = "depth@A"
Levels = dict[Decimal, tuple[str, str]]
Sides = tuple[list[tuple[str, str]], list[tuple[str, str]]]


class Watched(Script):
    """A feed that has one book, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.follower = Follower(DEPTH, self._refresh)

    def _refresh(self, stream: str) -> None:
        self.core.session.refresh(stream)
        self.core.session.flush()

    def emit(self, event: Event) -> None:
        super().emit(event)
        self.follower.tell(event)

    def take(self, envelope: Envelope, past: bool) -> None:
        self.follower.take(envelope, past)

    @property
    def sides(self) -> Sides:
        return self.follower.ladder.bids(), self.follower.ladder.asks()


class Engine:
    """A book, and each one that it ever was."""

    def __init__(self) -> None:
        self.bids: Levels = {}
        self.asks: Levels = {}
        self.books: list[Sides] = [([], [])]

    @property
    def number(self) -> int:
        return len(self.books) - 1

    def change(self, is_bid: bool, price: str, quantity: str) -> dict[str, Any]:
        side, key = self.bids if is_bid else self.asks, Decimal(price)
        side.pop(key, None)
        if Decimal(quantity):
            side[key] = (price, quantity)
        return self._next({"b": [[price, quantity]] if is_bid else [], "a": [] if is_bid else [[price, quantity]]})

    def whole(self) -> dict[str, Any]:
        return self._next({}) | self.state()

    def state(self) -> dict[str, Any]:
        """What comes first where the daemon knows the book."""
        bids, asks = self.books[-1]
        return {"e": "depth", "snapshot": True, "u": self.number, "b": bids, "a": asks}

    def _next(self, levels: dict[str, Any]) -> dict[str, Any]:
        self.books.append(
            ([self.bids[key] for key in sorted(self.bids, reverse=True)], [self.asks[key] for key in sorted(self.asks)])
        )
        return {"e": "depth", "U": self.number, "u": self.number, **levels}


class Daemon:
    """What has come to it of the engine, which it keeps until it is restarted, and what it sends to one client."""

    def __init__(self, script: Watched) -> None:
        self.script = script
        self.engine = Engine()
        self.kept: list[dict[str, Any]] = []
        self.missed: list[dict[str, Any]] = []
        self.epoch = 0
        self.is_subscribed = False
        self.is_cut_off = False
        self.is_known = True
        self.has_jumped = False
        self.script.start()
        self.script.want(DEPTH)
        self.answer_all()

    def publish(self, message: dict[str, Any]) -> None:
        if self.is_cut_off:
            self.missed.append(message)
            return
        self.is_known = self.is_known or "snapshot" in message
        if self.has_jumped:
            self.has_jumped = False
            self._tell_gap("sequence", 1)
        self.kept.append(message)
        self._send(message, len(self.kept))

    def _send(self, message: dict[str, Any], number: int) -> None:
        if self.is_subscribed:
            self.script.hear(DEPTH, message, f"{self.epoch}-{number}")

    def _tell_gap(self, reason: str, to: int | None) -> None:
        if self.is_subscribed:
            self.script.hear("!gap", {"e": "gap", "streams": [DEPTH], "reason": reason, "from": 0, "to": to})

    def lose(self, message: dict[str, Any]) -> None:
        """It does not get this one, and sees by the next one's ids that it has not."""
        if self.is_cut_off:
            self.missed.append(message)
        else:
            self.has_jumped, self.is_known = True, False

    def cut_off(self) -> None:
        if not self.is_cut_off:
            self.is_cut_off = True
            self._tell_gap("source-down", None)

    def heal(self, follows: bool) -> None:
        """`follows`: all that was missed comes, as it does of Redis streams."""
        if not self.is_cut_off:
            return
        self.is_cut_off = False
        missed, self.missed = self.missed, []
        if not follows:
            self._forget()
        self._tell_gap("source-down", 1)
        for message in missed if follows else ():
            self.publish(message)

    def _forget(self) -> None:
        self.epoch += 1
        self.kept.clear()
        self.is_known = self.has_jumped = False

    def answer(self) -> None:
        """The oldest request."""
        if not self.script.sent or self.script.is_closed:
            return
        request = self.script.sent.pop(0)
        if request["method"] == "UNSUBSCRIBE":
            self.is_subscribed = False
        if request["method"] != "SUBSCRIBE":
            self.script.reply(request)
            return
        since = request.get("since", {}).get(DEPTH)
        epoch, number = (-1, 0) if since is None else map(int, since.split("-"))
        is_recovered = epoch == self.epoch
        self.is_subscribed = True
        self.script.reply(request, **({} if since is None else {"recovered": {DEPTH: is_recovered}}))
        if is_recovered:
            for missed, message in enumerate(self.kept[number:], number + 1):
                self._send(message, missed)
        elif self.is_known and not self.is_cut_off and not self.has_jumped:
            self._send(self.engine.state(), len(self.kept))
        if self.is_cut_off:
            self._tell_gap("source-down", None)

    def answer_all(self) -> None:
        while self.script.sent:
            self.answer()

    def hang_up(self, forgets: bool) -> None:
        """The connection is lost, and another one made; it may be to a daemon that was restarted."""
        self.is_subscribed = False
        self.script.sent.clear()
        if not self.script.is_closed:
            self.script.close()
        if forgets:
            self._forget()
            self.is_known = not self.is_cut_off  # it reads the state that the engine keeps beside
        while self.script.core.state == "waiting":
            self.script.wait()
        self.script.open()


LEVELS = st.tuples(
    st.booleans(), st.sampled_from(["1", "1.0", "2.5", "10"]), st.sampled_from(["0", "0.00", "3", "4.50"])
)
STEPS = st.one_of(
    st.tuples(st.sampled_from(["change", "change", "lose"]), LEVELS),
    st.tuples(st.sampled_from(["whole", "answer", "answer_all", "cut_off", "break"]), st.just(())),
    st.tuples(st.sampled_from(["heal", "hang_up"]), st.tuples(st.booleans())),
)


@given(st.lists(STEPS, max_size=50))
def test_a_book_is_the_engines_or_says_that_it_is_not(steps: list[tuple[str, tuple[Any, ...]]]) -> None:
    """Live it is the engine's, stale one that this was, missing none; and it comes right again by itself."""
    script = Watched()
    daemon = Daemon(script)
    engine = daemon.engine

    def check() -> None:
        state, there = script.follower.state, script.sides
        if state == "missing":
            assert (there, script.follower.last_update_id) == (([], []), None)
            return
        assert there == engine.books[script.follower.last_update_id or 0]
        if state == "live":
            assert there == engine.books[-1] or daemon.has_jumped  # of which nobody knows yet

    for step, arguments in steps:
        match step:
            case "change":
                daemon.publish(engine.change(*arguments))
            case "lose":
                daemon.lose(engine.change(*arguments))
            case "whole":
                daemon.publish(engine.whole())
            case "break":
                daemon.publish({**engine.whole(), "b": [["x", "1"]], "a": [["5", "1"]]})
            case _:
                getattr(daemon, step)(*arguments)
        check()
    daemon.heal(False)
    daemon.answer_all()
    daemon.publish(engine.whole())
    check()
    assert script.follower.state == "live"
