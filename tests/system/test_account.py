"""The witness of lost publications: it believes what is true, and finds every kind of lie."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from tests.system.account import Account, Book, EngineBooks
from tests.system.losses import LossWatcher

A, B = "trade@M0", "depth@M1"
_STEP = 2  # even numbers are trades, odd ones of the book


class Engine:
    """What was published: all numbers below `sent` but `lost`, each at ten times its number."""

    def __init__(self, sent: int, lost: tuple[int, ...] = ()) -> None:
        self.sent = sent
        kept = [number for number in range(sent) if number not in lost]
        self.acknowledged = {
            A: {number: (10 * number, 10 * number) for number in kept if not number % _STEP},
            B: {number: (10 * number, 10 * number) for number in kept if number % _STEP},
        }


def account(
    engine: Engine, *, is_timed: bool = False, is_late: bool = False, books: EngineBooks | None = None
) -> Account:
    """Of a client that has joined before the first publication."""
    result = Account(engine, books.digests if books else {}, [A, B], _STEP, is_timed=is_timed, is_late=is_late)
    sent, engine.sent = engine.sent, 0
    result.replied(A, None, 0)
    result.replied(B, None, 0)
    engine.sent = sent
    return result


def see(told: Account, *numbers: int) -> None:
    """These trades come."""
    for number in numbers:
        told.publication(A, number, {}, str(number), 10 * number)


def test_all_that_was_published() -> None:
    told = account(Engine(8))
    see(told, 0, 2, 4, 6)
    assert told.is_whole
    assert told.verdict() == []


def test_a_silent_hole() -> None:
    told = account(Engine(8))
    see(told, 0, 6)
    assert not told.is_whole
    assert told.verdict() == [f"{A}: 2 between 0 and 6: silent"]


def test_a_hole_of_what_was_not_acknowledged() -> None:
    told = account(Engine(8, lost=(2, 4)))
    see(told, 0, 6)
    assert told.is_whole
    assert told.verdict() == []


def test_the_first_publication_after_the_reply_is_missing() -> None:
    told = account(Engine(8))
    see(told, 2)
    assert told.verdict() == [f"{A}: 1 between -1 and 2: silent"]


def test_a_hole_behind_a_gap() -> None:
    told = account(Engine(8))
    see(told, 0)
    told.gap([A], "source-down", 0, None)
    told.gap([A], "source-down", 0, 50)
    see(told, 6)
    assert told.verdict() == []


def test_a_gap_that_is_told_of_another_hole_only() -> None:
    told = account(Engine(20))
    see(told, 0)
    told.gap([A], "sequence", 0, 30)
    see(told, 4, 8)
    assert told.verdict() == [f"{A}: 1 between 4 and 8: silent"]


def test_a_word_that_comes_behind_the_publication() -> None:
    told = account(Engine(20))
    see(told, 0, 4, 8)
    assert not told.is_whole
    told.gap([A], "sequence", 0, 85)
    assert told.is_whole
    see(told, 10)
    assert told.verdict() == []


@pytest.mark.parametrize("since", [50, 90])
def test_a_later_gap_is_no_word_about_an_earlier_hole(since: int) -> None:
    told = account(Engine(20))
    see(told, 0, 4, 6)
    told.gap([A], "sequence", since, 95)
    assert told.verdict() == [f"{A}: 1 between 0 and 4: silent"]


def test_a_word_on_another_connection_comes_too_late() -> None:
    told = account(Engine(20))
    see(told, 0, 4)
    told.away()
    told.replied(A, True, 50)
    told.gap([A], "sequence", 0, 85)
    assert told.verdict() == [f"{A}: 1 between 0 and 4: silent"]


def test_recovered_and_whole() -> None:
    told = account(Engine(12))
    see(told, 0)
    told.away()
    told.replied(A, True, 50)
    see(told, 2, 4)
    assert told.verdict() == []


def test_recovered_and_not_whole() -> None:
    told = account(Engine(12))
    see(told, 0)
    told.away()
    told.replied(A, True, 50)
    see(told, 4)
    assert told.verdict() == [f"{A}: 1 between 0 and 4: was said to be recovered"]


def test_recovered_takes_the_gap_before_it_back() -> None:
    told = account(Engine(12))
    see(told, 0)
    told.gap([A], "source-down", 0, None)
    told.gap([A], "source-down", 0, 50)
    told.replied(A, True, 50)
    see(told, 6)
    assert told.verdict() == [f"{A}: 2 between 0 and 6: was said to be recovered"]


def test_not_recovered_is_a_word_for_what_was_before_it() -> None:
    engine = Engine(5)
    told = account(engine)
    see(told, 0)
    told.away()
    told.replied(A, False, 50)
    engine.sent = 20
    engine.acknowledged = Engine(20).acknowledged
    see(told, 6)
    assert told.verdict() == []
    told.replied(A, False, 70)
    engine.acknowledged = Engine(30).acknowledged
    see(told, 24)
    assert told.verdict() == [f"{A}: 2 between 19 and 24: silent"]


def test_a_publication_that_comes_twice() -> None:
    told = account(Engine(12))
    see(told, 0, 2, 2)
    assert told.verdict() == [f"{A}: 2 after 2"]


def test_a_publication_inside_of_a_gap() -> None:
    told = account(Engine(12))
    told.gap([A], "source-down", 0, None)
    see(told, 0)
    assert told.verdict() == [f"{A}: 0 inside of a gap"]


def test_gaps_that_do_not_fit_together() -> None:
    told = account(Engine(0))
    told.gap([A], "source-down", 5, None)
    told.gap([A], "source-down", 6, None)
    told.gap([A], "source-down", 4, 3)
    assert told.verdict() == [
        f"{A}: a second gap begins in a gap, source-down from 6",
        f"{A}: a gap ends that began at 4, not at 6",
        f"{A}: a gap ends before it began: 4 to 3",
    ]


def test_a_gap_holds_what_is_missing_in_it() -> None:
    told = account(Engine(12), is_timed=True)
    see(told, 0)
    told.gap([A], "source-down", 30, None)
    told.gap([A], "source-down", 30, 70)
    see(told, 8)
    assert told.verdict() == [f"{A}: 1 between 0 and 8: told of [(30, 70)]"]  # the trade 2, at 20


# Books.


class Feed:
    """An engine's book and what it publishes of it. After `failed`, the number of its last batch, it begins anew."""

    def __init__(self, lost: tuple[int, ...] = (), failed: int = 40, *, is_late: bool = False) -> None:
        self.engine = Engine(40, lost)
        self.books = EngineBooks(random.Random(1))
        numbers = range(1, 40, _STEP)
        published = {number: self.books.next(B, number, int(number > failed)) for number in numbers}
        self.published = {number: msgspec.json.decode(payload) for number, payload in published.items()}
        self.told = account(self.engine, books=self.books, is_late=is_late)

    def keep(self, *numbers: int) -> None:
        """These publications come."""
        for number in numbers:
            self.told.publication(B, number, self.published[number], str(number), 10 * number)

    def state(self, number: int, *without: int) -> dict[str, Any]:
        """The book at a number, as a daemon gives it to whoever comes."""
        book = Book()
        for each in range(1, number + 1, _STEP):
            for side in ("a", "b") if each not in without else ():
                book.apply(side, self.published[each][side])
        sides = {side: list(levels.items()) for side, levels in book.sides.items()}
        return {**self.published[number], **sides, "snapshot": True}

    @property
    def telling(self) -> int:
        """A publication without which the book is another one, and that is not a whole one."""
        digests = self.books.digests[B]
        return next(
            number
            for number in range(9, 30, _STEP)
            if digests[number][0] != digests[number - _STEP][0]
            and not {number, number + _STEP} & {each[1] for each in digests.values()}
            and self.digest_without(number) != digests[number + _STEP][0]
        )

    def digest_without(self, number: int) -> int:
        book = Book()
        state = self.state(number + _STEP, number)
        for side in ("a", "b"):
            book.apply(side, state[side])
        return book.digest


def test_a_book_from_its_beginning() -> None:
    feed = Feed()
    feed.keep(*range(1, 40, _STEP))
    assert feed.told.verdict() == []


def test_a_book_from_a_state() -> None:
    feed = Feed()
    feed.told.publication(B, 9, feed.state(9), "9", 90)
    feed.keep(*range(11, 40, _STEP))
    assert feed.told.verdict() == []


def test_a_state_without_a_publication() -> None:
    feed = Feed()
    number = feed.telling + _STEP
    feed.told.publication(B, number, feed.state(number, feed.telling), str(number), 10 * number)
    assert feed.told.verdict() == [f"{B}: the book at {number} is not the engine's; it was at -1"]


@pytest.mark.parametrize("late", ["in time", "too late", "never", "elsewhere"])
def test_a_word_about_a_book_that_may_be_late(late: str) -> None:
    feed = Feed(is_late=True)
    number = feed.telling + _STEP
    feed.keep(*range(1, feed.telling, _STEP), number)
    assert not feed.told.is_whole
    if late == "elsewhere":
        feed.told.away()
        feed.told.replied(B, True, 1000)
    if late != "never":
        feed.told.gap([B], "sequence", 10 * number + (late == "too late"), 1000)
    is_told = late == "in time"
    assert feed.told.is_whole == (late in ("in time", "elsewhere"))
    told = f"{B}: the book at {number} is not the engine's; it was at {number - 2 * _STEP}"
    assert feed.told.verdict() == ([] if is_told else [told])


@pytest.mark.parametrize("recovered", [None, True])
def test_a_book_without_a_publication(recovered: bool | None) -> None:
    feed = Feed()
    number = feed.telling
    feed.keep(*range(1, number, _STEP))
    if recovered:
        feed.told.gap([B], "source-down", 0, None)
        feed.told.gap([B], "source-down", 0, 1000)
        feed.told.replied(B, True, 1000)
    feed.keep(number + _STEP)
    assert feed.told.verdict() == [f"{B}: the book at {number + _STEP} is not the engine's; it was at {number - _STEP}"]


def test_a_book_that_a_gap_has_ended() -> None:
    feed = Feed()
    number = feed.telling
    feed.keep(*range(1, number, _STEP))
    feed.told.gap([B], "sequence", 0, 1000)
    feed.keep(number + _STEP)
    assert feed.told.verdict() == []


def test_a_book_that_is_not_recovered() -> None:
    feed = Feed()
    number = feed.telling
    feed.keep(*range(1, number, _STEP))
    feed.told.away()
    feed.told.replied(B, False, 1000)
    feed.keep(number + _STEP)
    assert feed.told.verdict() == []


def test_a_book_whose_engine_does_not_know_either() -> None:
    number = Feed().telling
    feed = Feed(lost=(number,), failed=number + _STEP)
    feed.keep(*range(1, number, _STEP))
    feed.keep(*range(number + _STEP, 40, _STEP))
    assert feed.published[number + 2 * _STEP]["snapshot"] is True
    assert feed.told.verdict() == []


# What a client makes of its connection.


class Transport:
    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


class Connection:
    connected = 1

    def __init__(self) -> None:
        self.transport = Transport()


def watcher(engine: Engine, asks_again: bool) -> tuple[LossWatcher, Connection]:
    """One that has sent its first requests."""

    class Publisher:
        def account(self, streams: list[str]) -> Account:
            return Account(engine, {}, streams, _STEP)

    connection: Any = Connection()
    result = LossWatcher(None, random.Random(1), Publisher(), [A])  # type: ignore[arg-type]
    result.asks_again = asks_again
    result._connection = connection
    engine.sent = 0
    result._requests()
    return result, connection


def tell(client: LossWatcher, connection: Any, *messages: object) -> None:
    for message in messages:
        client.heard(connection, msgspec.json.encode(message))


def gap(since: int, until: int | None) -> dict[str, Any]:
    return {"stream": "!gap", "data": {"e": "gap", "streams": [A], "reason": "source-down", "from": since, "to": until}}


def published(number: int) -> dict[str, Any]:
    return {"stream": A, "data": {"e": "trade", "t": number}, "offset": str(number)}


def test_a_client_asks_whether_anything_was_missed() -> None:
    """What comes before the answer is left aside; what was said to be recovered has to be there."""
    engine = Engine(20)
    client, connection = watcher(engine, asks_again=True)
    tell(client, connection, {"result": None, "id": 11}, published(0), gap(5, None))
    assert client.has_been_told
    tell(client, connection, gap(5, 50), published(6))
    assert b'"since":{"trade@M0":"0"}' in connection.transport.written
    assert not client.is_there
    tell(client, connection, {"result": None, "id": 12, "recovered": {A: True}}, published(4))
    assert client.is_there
    assert client.account.verdict() == [f"{A}: 1 between 0 and 4: was said to be recovered"]


def test_a_client_that_takes_a_gap_as_it_is() -> None:
    engine = Engine(20)
    client, connection = watcher(engine, asks_again=False)
    tell(client, connection, {"result": None, "id": 11}, published(0), gap(5, None), gap(5, 50), published(6))
    assert connection.transport.written == b""
    assert client.account.verdict() == []


def test_what_a_client_cannot_read_is_not_passed_over() -> None:
    client, connection = watcher(Engine(20), asks_again=False)
    tell(client, connection, {"result": None, "id": 11}, {"error": {"code": 2}, "id": 12}, {"stream": A, "data": {}})
    assert len(client.account.verdict()) == 2
