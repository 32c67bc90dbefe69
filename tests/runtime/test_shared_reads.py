"""What takes a while to read is read once for all who ask, whoever of them gives up."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import CancelledError, Deferred, succeed

from marketfeed.runtime.shared_reads import SharedReads
from tests.strategies import machine_test

KEYS = st.sampled_from("abc")
SECONDS, ROOM = 1.0, 10


class Asking(RuleBasedStateMachine):
    """Any order of questions, answers, failures and changes of mind. An answer is its number and its size."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.reads = SharedReads[tuple[int, int]](lambda: self.now, SECONDS, ROOM, lambda value: value[1])
        self.under_way: dict[str, tuple[float, Deferred[tuple[int, int] | None]]] = {}
        self.waiting: dict[str, list[tuple[Deferred[Any], list[Any]]]] = {}
        self.kept: dict[str, tuple[float, tuple[int, int]]] = {}
        self.begun = 0
        self.gone: list[list[Any]] = []

    @rule(key=KEYS)
    def ask(self, key: str) -> None:
        """What is fresh is there at once; otherwise one reading is under way for all."""
        before = self.begun

        async def read() -> tuple[int, int] | None:
            self.begun += 1
            answer = Deferred[tuple[int, int] | None]()
            self.under_way[key] = self.now, answer
            return await answer

        fresh = key in self.kept and 0 <= self.now - self.kept[key][0] < SECONDS
        was_under_way = key in self.under_way
        assert self.reads.is_due(key) == (not fresh and not was_under_way)
        told: list[Any] = []
        asked = self.reads.get(key, read)
        assert isinstance(asked, Deferred)
        asked.addBoth(told.append)
        if fresh:
            assert told == [self.kept[key][1]]
            assert self.begun == before
        else:
            assert not told
            assert self.begun == before + (not was_under_way)
            self.waiting.setdefault(key, []).append((asked, told))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), size=st.integers(1, 12))
    def answer(self, data: st.DataObject, size: int) -> None:
        """All who wait hear the same."""
        key = data.draw(st.sampled_from(sorted(self.under_way)))
        began, reading = self.under_way.pop(key)
        value = self.begun, size
        self.kept.pop(key, None)
        self.kept[key] = began, value
        while sum(size for _, (_, size) in self.kept.values()) > ROOM:
            del self.kept[next(iter(self.kept))]
        reading.callback(value)
        assert all(told == [value] for _, told in self.waiting.pop(key))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def find_nothing(self, data: st.DataObject) -> None:
        """All who wait hear that, and whoever asks then begins anew."""
        key = data.draw(st.sampled_from(sorted(self.under_way)))
        self.under_way.pop(key)[1].callback(None)
        assert all(told == [None] for _, told in self.waiting.pop(key))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        """All who wait hear of it, and whoever asks then begins anew."""
        key = data.draw(st.sampled_from(sorted(self.under_way)))
        self.under_way.pop(key)[1].errback(ValueError("no"))
        for _, told in self.waiting.pop(key):
            assert told.pop().check(ValueError)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        """The others wait on; with the last one the reading ends."""
        key = data.draw(st.sampled_from(sorted(self.waiting)))
        asked, told = self.waiting[key].pop(data.draw(st.integers(0, len(self.waiting[key]) - 1)))
        asked.cancel()
        assert told.pop().check(CancelledError)
        if not self.waiting[key]:
            del self.waiting[key]
            assert self.under_way.pop(key)[1].called
        else:
            assert not self.under_way[key][1].called

    @rule(key=KEYS)
    def forget(self, key: str) -> None:
        """Whoever asks then begins anew, or joins what is under way."""
        self.reads.forget(key)
        self.kept.pop(key, None)

    @rule(seconds=st.sampled_from((0.0, 0.4, 0.9, 1.0, 5.0, -3.0)))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def it_keeps_what_was_read_last(self) -> None:
        assert {key: self.reads.newest(key) for key in "abc"} == {
            key: self.kept[key][1] if key in self.kept else None for key in "abc"
        }

    def teardown(self) -> None:
        for asked in [asked for each in self.waiting.values() for asked, _ in each]:
            asked.cancel()


TestAsking = Asking.TestCase
TestAsking.settings = machine_test(0.5, 30)


def test_who_makes_another_one_give_up() -> None:
    """As an answer that ends a connection, on which another answer is waited for."""
    reads = SharedReads[int](lambda: 0.0, 1.0, 10)
    answer = Deferred[int]()

    async def read() -> int:
        return await answer

    told: list[Any] = []
    first, second = reads.get("a", read), reads.get("a", read)
    assert isinstance(first, Deferred)
    assert isinstance(second, Deferred)
    first.addCallback(lambda _: second.cancel())
    second.addErrback(told.append)
    answer.callback(1)
    assert told[0].check(CancelledError)


def test_what_is_there_at_once() -> None:
    """It is not waited for, and read once."""
    reads, begun = SharedReads[int](lambda: 0.0, 1.0, 10), []

    async def read() -> int:
        begun.append(1)
        return await succeed(7)

    async def ask() -> int:
        return (await reads.get("a", read) or 0) + (await reads.get("a", read) or 0)

    told: list[int] = []
    Deferred.fromCoroutine(ask()).addCallback(told.append)
    assert (told, begun) == ([14], [1])


def read_now(reads: SharedReads[tuple[int, int]], key: str, value: tuple[int, int]) -> Any:
    async def read() -> tuple[int, int]:
        return value

    found = reads.get(key, read)
    assert isinstance(found, Deferred)
    return found.result


def test_a_clock_that_is_set_back() -> None:
    """What was read in its future is not good until then."""
    now = [100.0]
    reads = SharedReads[tuple[int, int]](lambda: now[0], SECONDS, ROOM, lambda value: value[1])
    assert read_now(reads, "a", (1, 1)) == (1, 1)
    now[0] = 50.0
    assert read_now(reads, "a", (2, 1)) == (2, 1)


def test_how_much_is_kept() -> None:
    """As much as there is room for, the newest; of what is too large, nothing."""
    reads = SharedReads[tuple[int, int]](lambda: 0.0, SECONDS, ROOM, lambda value: value[1])
    for key in "abcd":
        read_now(reads, key, (1, 3))
    assert [reads.newest(key) for key in "abcd"] == [None, (1, 3), (1, 3), (1, 3)]
    read_now(reads, "e", (1, 9))
    assert [reads.newest(key) for key in "bcde"] == [None, None, None, (1, 9)]
    assert read_now(reads, "f", (1, 11)) == (1, 11)
    assert [reads.newest(key) for key in "ef"] == [None, None]
