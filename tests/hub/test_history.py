"""Histories against plain lists: whatever is added, dropped and closed, in whatever order."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfeed.hub.counted_history import CountedHistory
from marketfeed.hub.entry_history import EntryHistory
from marketfeed.hub.histories import Histories
from marketfeed.hub.history import KEEPING, History
from tests.strategies import property_test

SECONDS = 10.0
Kept = tuple[float, str, bytes]

offset_texts = (
    st.text(max_size=30)
    | st.from_regex(r"\A(e\d-)?\d{1,25}(-\d{1,25})?\Z")
    | st.sampled_from(
        ("", "-", "--", "0-0-0", "e0-", "-1", "1-", "e0--1", "e0-+1", "e0-٣", "٣-٣", "1-²", "\ud800", "0-1_0")
    )
    | st.just("9" * 5000)
    | st.just("e0-" + "9" * 5000)
    | st.just("9" * 5000 + "-" + "9" * 5000)
)


def expire(histories: Histories, now: float) -> None:
    """Drop what is older than it may be."""
    assert all(cost > 0 for cost in histories.expiring(now))


class Stream:
    """A history, and what it ought to keep."""

    def __init__(self, histories: Histories, *, is_counted: bool) -> None:
        self.histories = histories
        self.epoch = "e0"
        self.number = 0
        self.history: History = CountedHistory(histories, "e0") if is_counted else EntryHistory(histories)
        self.kept: list[Kept] = []
        self.floor = self.end = "e0-0" if is_counted else "7-0"
        self.offsets = [self.floor]  # each one that there was
        if isinstance(self.history, EntryHistory):
            self.history.confirm(self.floor)

    def add(self, data: bytes, now: float, *, is_good: bool) -> None:
        """A publication, or an entry that was none."""
        if isinstance(self.history, CountedHistory):
            if not is_good:
                self.history.pass_over("1-1")
                return
            self.number += 1
            self.end = f"{self.epoch}-{self.number}"
            self.history.add(data, now)
            assert self.history.latest == self.end
        else:
            self.number += 1
            self.end = f"{7 + self.number // 15}-{self.number}"  # as texts these are not in order
            if is_good:
                self.history.add(data, now, self.end)
                assert self.history.latest == self.end
            else:
                self.history.pass_over(self.end)
        self.offsets.append(self.end)
        if is_good:
            self.kept.append((now, self.end, data))
            if len(self.kept) > self.histories.limit:
                self.drop()
        elif not self.histories.limit:
            self.floor = self.end

    def drop(self) -> None:
        self.floor = self.kept.pop(0)[1]

    def restart(self) -> None:
        """Something may have been missed."""
        self.kept.clear()
        if isinstance(self.history, CountedHistory):
            self.number = 0
            assert self.history.confirm(None)
            self.epoch = self.history.latest.removesuffix("-0")
            self.floor = self.end = f"{self.epoch}-0"
        else:
            self.number += 3
            self.floor = self.end = f"{7 + self.number // 15}-{self.number}"
            assert self.history.confirm(self.end)
        self.offsets = [*self.offsets, self.floor]

    def check(self) -> None:
        """See that it answers from what it ought to keep, for every offset that there ever was."""
        rows = [(offset, data) for _, offset, data in self.kept]
        assert self.history.latest == self.end
        assert self.history.kept == len(rows)
        reaches = self.offsets[self.at(self.floor) :]
        for offset in set(self.offsets):
            expected = [row for row in rows if self.at(row[0]) > self.at(offset)] if offset in reaches else None
            assert self.history.since(offset) == expected
            if isinstance(self.history, EntryHistory):
                assert not self.history.is_behind(offset)
            skipped = self.history.count_from(offset)
            if isinstance(self.history, CountedHistory) and not offset.startswith(f"{self.epoch}-"):
                assert skipped is None
            else:
                assert skipped is not None
                before = [row for row in rows if self.at(row[0]) < self.at(offset)]
                assert self.history.newest(3, 1 << 20, skipped) == before[-3:]
                assert len(self.history.notes_of_newest(3, skipped)) == len(before[-3:])
        for limit in (-1, 0, 1, 2, 9):
            assert self.history.newest(limit, 1 << 20) == rows[len(rows) - min(max(limit, 0), len(rows)) :]
            sizes = [len(data) for _, data in self.history.newest(9, limit * 5)]
            assert sum(sizes) <= max(0, limit * 5)
        for room in range(0, 100, 7):
            newest = self.history.newest(9, room)
            assert newest == rows[len(rows) - len(newest) :]
            rest = rows[: len(rows) - len(newest)]
            assert len(newest) == 9 or not rest or sum(len(data) for _, data in newest) + len(rest[-1][1]) > room

    def at(self, offset: str) -> int:
        return len(self.offsets) - 1 - self.offsets[::-1].index(offset)


@st.composite
def actions(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """What happens: the action, to which of three streams, and a number."""
    names = ("add", "add", "add", "add", "add", "add", "pass", "restart", "close", "expire")
    action = st.tuples(st.sampled_from(names), st.integers(0, 2), st.integers(0, 30))
    return draw(st.lists(action, max_size=40))


@property_test
@given(
    st.lists(st.booleans(), min_size=3, max_size=3), st.integers(0, 5), st.sampled_from((0, 100, 300, 800)), actions()
)
def test_histories_answer_as_plain_lists_do(
    kinds: list[bool], limit: int, room: int, what: list[tuple[str, int, int]]
) -> None:
    """Both kinds, whatever the bounds: resumed from every offset there was, and the budget holds at every moment."""
    histories = Histories(limit, SECONDS, room)
    streams = [Stream(histories, is_counted=is_counted) for is_counted in kinds]
    now = 0.0
    for action, at, number in what:
        stream = streams[at]
        now += 0.5
        if action in ("add", "pass"):
            stream.add(b"x" * number, now, is_good=action == "add")
        elif action == "restart":
            stream.restart()
        elif action == "close":
            stream.history.close()
            streams[at] = Stream(histories, is_counted=kinds[at])
        else:
            now += number / 4  # whole µs, as histories have them
            expire(histories, now)
            for each in streams:
                while each.kept and each.kept[0][0] < now - SECONDS:
                    each.drop()
        while sum(len(data) + KEEPING for each in streams for _, _, data in each.kept) > room:
            min((each for each in streams if each.kept), key=lambda each: each.kept[0][0]).drop()
        assert histories.size == sum(len(data) + KEEPING for each in streams for _, _, data in each.kept) <= room
        for each in streams:
            each.check()
    for each in streams:
        each.history.close()
    assert histories.size == 0


@property_test
@given(offset_texts)
@example("0-5")
@example("e0-05")
def test_any_text_may_be_asked_for(text: str) -> None:
    """A client sends what it likes: it gets everything behind an offset, or nothing; never an error."""
    histories = Histories(10, SECONDS, 1 << 20)
    counted, entries, unbegun = CountedHistory(histories, "e0"), EntryHistory(histories), EntryHistory(histories)
    entries.confirm("0-5")
    for number in range(6, 10):
        counted.add(b"c", 0.0)
        entries.add(b"e", 0.0, f"0-{number}")
    for history, floor in ((counted, "e0-0"), (entries, "0-5")):
        found = history.since(text)
        assert found is None or found == history.since(floor)[4 - len(found) :]  # type: ignore[index]
        skipped = history.count_from(text)
        if skipped is not None:
            earlier = history.newest(9, 1 << 20, skipped)
            assert earlier == history.since(floor)[: len(earlier)]  # type: ignore[index]
    assert unbegun.since(text) is None


# Bounds.


def test_a_closed_history_keeps_nothing_any_more() -> None:
    """It may be added to and closed again, and takes nothing of what all may have."""
    histories = Histories(10, SECONDS, 1 << 20)
    counted, entries = CountedHistory(histories, "e"), EntryHistory(histories)
    entries.confirm("0-0")
    for history in (counted, entries):
        history.add(b"x", 0.0, "1-0")
        history.close()
        history.close()
        history.add(b"x", 0.0, "2-0")
        assert (histories.size, history.kept, history.since(history.latest or "")) == (0, 0, [])
    expire(histories, 99.0)
    assert histories._oldest == []


def test_what_is_too_old_in_many_streams_goes_a_few_streams_at_a_time() -> None:
    """What is published, dropped or closed between two steps is as if there was but one."""
    histories = Histories(10, SECONDS, 1 << 20)
    kept = [CountedHistory(histories, "e") for _ in range(200)]
    for now in (0.0, 1.0, SECONDS):
        for history in kept:
            history.add(b"x", now)
    steps = histories.expiring(SECONDS + 2)
    assert next(steps) <= 250
    assert all(history.kept == 3 for history in kept)
    next(steps)
    assert 0 < sum(history.kept == 1 for history in kept) < 100
    for number, history in enumerate(kept):
        if number % 3 == 0:
            history.close()
        elif number % 3 == 1:
            history.add(b"x", SECONDS)
        elif number % 2:
            history.confirm(None)
    assert len(list(steps)) < 4
    assert {history.kept for history in kept} == {0, 1, 2}
    assert all(history.kept == 2 for history in kept[1::3])
    for history in kept:
        history.close()
    assert histories.size == 0


def test_a_clock_that_is_set_back_does_no_harm() -> None:
    """Nothing hangs, and what is too old goes when what came before it goes."""
    histories = Histories(10, SECONDS, 1 << 20)
    history = CountedHistory(histories, "e")
    for now in (50.0, 20.0, 60.0):
        history.add(b"x", now)
    expire(histories, 55.0)
    assert history.kept == 3
    expire(histories, 65.0)
    assert history.kept == 1


def test_streams_that_come_and_go_leave_nothing() -> None:
    """Closed ones are not remembered until their publications would have been too old, nor dropped ones in a list."""
    histories = Histories(3, 1e9, 1 << 20)
    left = [CountedHistory(histories, "e") for _ in range(10)]
    for history in left:
        history.add(b"x", 0.0)
    for number in range(10_000):
        history = CountedHistory(histories, "e")
        history.add(b"x", float(number))
        history.close()
    assert len(histories._oldest) < 200
    for number in range(10_000):
        left[0].add(b"x", float(number))
    assert len(left[0]._data) == len(left[0]._times) < 200
    assert histories.size == 12 * (KEEPING + 1)
    entries = EntryHistory(histories)
    entries.confirm("0-0")
    for number in range(1, 10_000):
        entries.add(b"x", 1e5, f"{number}-0")
        entries.pass_over(f"{number}-1")
    assert len(entries._offsets) == len(entries._data) < 200


def test_quiet_streams_are_not_looked_at() -> None:
    """The timer sees the one that has the oldest publication, and no other."""
    histories = Histories(10, SECONDS, 1 << 30)
    streams = [CountedHistory(histories, "e") for _ in range(1000)]
    for number, history in enumerate(streams):
        history.add(b"x", float(number))
    before = list(histories._oldest)
    expire(histories, SECONDS)
    assert histories._oldest == before
    expire(histories, SECONDS + 2.5)
    assert [history.kept for history in streams[:5]] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("is_counted", [True, False])
def test_what_is_kept_takes_no_more_than_is_counted(is_counted: bool) -> None:
    """The bound is one of memory: small publications take more than their bytes."""
    histories = Histories(1000, SECONDS, 1 << 30)
    gc.collect()
    tracemalloc.start()
    streams = [Stream(histories, is_counted=is_counted).history for _ in range(5)]
    for number in range(5000):
        offset = None if is_counted else f"1700000000000-{number}"
        streams[number % 5].add(b"%d" % (number + 1000), number / 7, offset)
        del offset
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert histories.size == 5000 * (4 + KEEPING)
    assert taken < 1.5 * histories.size, taken / histories.size
