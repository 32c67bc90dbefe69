"""The state of a book against replay: what a new subscriber gets is what one has who was there from the beginning."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfeed.model.book import DepthMessage
from marketfeed.model.book_state import BookState
from tests.books import Book, decoded, depths, merged, replay, sequences, update
from tests.strategies import broken_publications, json_texts, property_test, publications

WHOLE = update(a=[["2", "5"]], b=[["1", "5"]], snapshot=True, U=1, u=5)


def recorded(*messages: bytes) -> BookState:
    state = BookState()
    for message in messages:
        state.record(message)
    return state


def book(state: BookState) -> Book | None:
    snapshot = state.snapshot()
    return None if snapshot is None else replay([snapshot])


@property_test
@given(sequences(), st.booleans(), st.lists(st.booleans(), min_size=6, max_size=6))
def test_a_book_equals_the_replay_of_all_messages(messages: list[bytes], is_seeded: bool, asked: list[bool]) -> None:
    """However often it is asked for in between; spelled as the engine spelled it, best first, without zeros."""
    state = BookState()
    before = update(a=[["1", "5"], ["2", "5"]], b=[[".5", "5"], ["-3", "5"]], snapshot=True)
    state.seed(before) if is_seeded else state.record(before)
    for message, is_asked in zip(messages, asked, strict=False):
        assert state.record(message) is False
        if is_asked:
            state.snapshot()
    snapshot = state.snapshot()
    assert snapshot is not None
    assert state.snapshot() is snapshot
    assert replay([snapshot]) == replay([before, *messages])
    written, last = decoded(snapshot), decoded(messages[-1])
    others = {name: field for name, field in last.items() if name not in ("a", "b", "U", "u", "pu", "snapshot")}
    assert {name: field for name, field in written.items() if name in others} == others
    assert written.keys() - others.keys() == {"a", "b", "snapshot"} | ({"U", "u"} if "u" in last else set())
    assert written["snapshot"] is True
    assert written.get("U") == written.get("u") == last.get("u")
    for side, is_descending in (("a", False), ("b", True)):
        prices = [Decimal(price) for price, _ in written[side]]
        assert prices == sorted(prices, reverse=is_descending)
        assert all(one != other for one, other in pairwise(prices))
        assert all(Decimal(quantity) for _, quantity in written[side])
    check_depth(state, written)


def _values(levels: list[list[str]]) -> list[list[float]]:
    return [[float(text) for text in level] for level in levels]


def check_depth(state: BookState, written: dict[str, Any]) -> None:
    for limit in (-1, 0, 1, 3, 100):
        depth = state.depth(limit)
        assert depth is not None
        answer = json.loads(depth)
        assert answer.pop("lastUpdateId") == int(written.get("u", "0"))
        for side, name in (("bids", "b"), ("asks", "a")):
            levels = answer.pop(side)
            assert all(type(text) is str for level in levels for text in level)
            assert _values(levels) == _values(written[name][: max(0, limit)])
        assert answer == {}
    assert state.last == (int(written["u"]) if "u" in written else None)


@property_test
@given(sequences(), st.data())
def test_a_book_is_the_same_after_merged_messages(messages: list[bytes], data: st.DataObject) -> None:
    """However they are grouped: merging is associative."""
    cut = data.draw(st.integers(0, len(messages)))
    parts = [merged(*group).to_bytes() for group in (messages[:cut], messages[cut:]) if group]
    before = update(a=[["1", "5"]], b=[["-3", "5"]], snapshot=True)
    one, other = recorded(before, *messages), recorded(before, *parts)
    assert book(one) == book(other)
    assert one.last == other.last


@st.composite
def engines(draw: st.DrawFn) -> list[tuple[int, int, bytes]]:
    """Updates of one engine with their ids; nothing is missing between them.

    One that begins before the end of the one before it has in it what that one has.
    """
    updates: list[tuple[int, int, bytes]] = []
    last = draw(st.integers(-3, 2**70))
    for _ in range(draw(st.integers(1, 8))):
        first = last + 1
        last += 1 + draw(st.integers(0, 3))
        data = draw(depths(is_snapshot=False, first=str(first), last=str(last)))
        if draw(st.booleans()) and updates:
            first = updates[-1][0]
            data = merged(updates[-1][2], data).to_bytes()
        updates.append((first, last, data))
    return updates


def seeds(updates: list[tuple[int, int, bytes]]) -> dict[int, bytes]:
    """The engine's book at each of its ids, as a key may hold it."""
    state = BookState()
    first = updates[0][0]
    begin = update(snapshot=True, u=first - 1)
    state.record(begin)
    found = {first - 1: begin}
    for _, last, data in updates:
        state.record(data)
        found[last] = state.snapshot() or b""
    return found


@property_test
@given(engines(), st.data())
def test_a_seed_and_live_updates_in_any_interleaving_equal_replay(
    updates: list[tuple[int, int, bytes]], data: st.DataObject
) -> None:
    """A seed of any age, at any moment, among updates that begin anywhere: the book, as soon as there is one."""
    books = seeds(updates)
    begin = data.draw(st.integers(0, len(updates)))
    moment = data.draw(st.integers(begin, len(updates)))
    seeded = data.draw(st.sampled_from(sorted(books)))
    state = BookState()
    for _, _, message in updates[begin:moment]:
        assert not state.record(message)
    heard = updates[begin:moment]
    covered = [last for _, last, _ in heard if last <= seeded]
    rest = [first for first, last, _ in heard if last > seeded]
    assert state.seed(books[seeded]) == (not rest or rest[0] <= seeded + 1)
    assert not (covered and rest) or state.is_complete
    is_missing = False
    for first, last, message in updates[moment:]:
        is_behind = state.last is not None and first > state.last + 1
        assert state.record(message) == is_behind
        is_missing = is_missing or is_behind
        if state.is_complete:
            assert book(state) == replay([books[last if last >= seeded else seeded]])
            assert not is_missing
        elif not is_missing and (not rest or rest[0] <= seeded + 1):
            assert last < seeded
    if state.is_complete:
        assert book(state) == replay([books[state.last or 0]])


@property_test
@given(
    engines(),
    st.lists(st.tuples(st.sampled_from(("get", "get", "miss", "lose", "seed")), st.integers(0, 8)), max_size=25),
)
def test_a_complete_book_is_the_engines_book(
    updates: list[tuple[int, int, bytes]], what: list[tuple[str, int]]
) -> None:
    """Whatever is missed, lost and seeded: complete with the right levels, or not complete. No gap is invented."""
    books = seeds(updates)
    state = BookState()
    rest = list(updates)
    previous: int | None = None
    is_missed = is_lost = False
    for action, number in what:
        if action == "seed":
            was_complete = state.is_complete
            assert not (state.seed(books[sorted(books)[number % len(books)]]) and was_complete)
        elif action == "lose":
            state.lose()
            is_lost = True
            assert not state.is_complete
        elif rest and action == "miss":
            rest.pop(0)
            is_missed = True
        elif rest:
            first, last, message = rest.pop(0)
            jumped = state.record(message)
            assert not jumped or is_missed
            assert jumped or is_lost or previous is None or first <= previous + 1
            previous, is_missed, is_lost = last, False, False
        if state.is_complete:
            assert book(state) == replay([books[state.last or 0]])
            assert previous is None or (state.last or 0) >= previous


@property_test
@given(st.lists(st.tuples(st.sampled_from(("get", "get", "lose", "seed")), depths(is_snapshot=False)), max_size=12))
def test_a_complete_book_without_ids_is_the_engines_book(what: list[tuple[str, bytes]]) -> None:
    """Nothing tells what is missing: a seed is taken before the first update only, and a loss ends it."""
    engine, state = recorded(update(snapshot=True)), BookState()
    is_complete = is_heard = False
    for action, message in what:
        if action == "seed":
            expected = not is_complete and not is_heard
            assert state.seed(engine.snapshot() or b"") == expected
            is_complete = is_complete or expected
        elif action == "lose":
            state.lose()
            is_complete = is_heard = False
        else:
            engine.record(message)
            assert state.record(message) is False
            is_heard = True
        assert state.is_complete == is_complete
        assert book(state) == (book(engine) if is_complete else None)


# Ids.


@pytest.mark.parametrize(
    ("ids", "jumps"),
    [
        ({"U": 6, "u": 9}, False),
        ({"U": 3, "u": 5}, False),
        ({"U": 5, "u": 6}, False),
        ({"U": 7, "u": 9}, True),
        ({"U": 1, "u": 4}, True),
        ({"U": 7}, False),
        ({"u": 99}, False),
        ({"U": "7", "u": "9"}, False),
        ({"U": 7.0, "u": 9}, False),
        ({"U": True, "u": False}, False),
        ({}, False),
    ],
)
def test_ids_that_jump_are_a_gap(ids: dict[str, object], jumps: bool) -> None:
    """`U` behind the last `u` + 1, or `u` before the last `u`; where one is no integer, nothing is checked."""
    state = recorded(WHOLE)
    assert state.record(update(**ids)) == jumps
    assert state.is_complete == (not jumps)
    assert (state.snapshot() is None) == (state.depth(5) is None) == jumps


def test_a_jump_is_told_once() -> None:
    """The updates behind it are compared with it; a snapshot ends it, and never jumps."""
    state = recorded(WHOLE)
    assert state.record(update(U=8, u=9))
    assert not state.record(update(U=10, u=11))
    assert not state.is_complete
    assert not state.record(update(a=[["7", "1"]], U=90, u=99, snapshot=True))
    assert state.snapshot() == b'{"e":"depth","snapshot":true,"U":99,"u":99,"b":[],"a":[["7","1"]]}'
    assert not state.record(update(a=[["7", "1"]], u=3, snapshot=True))
    assert (state.is_complete, state.last) == (True, 3)


def test_an_update_without_ids_continues_the_book() -> None:
    """The ids go on where they were; but then a loss cannot be told from nothing."""
    state = recorded(WHOLE, update(a=[["2", "0"]]))
    assert state.snapshot() == b'{"e":"depth","snapshot":true,"U":5,"u":5,"b":[["1","5"]],"a":[]}'
    assert not state.record(update(U=6, u=6))
    state.record(update())
    state.lose()
    assert state.last is None
    assert not state.record(update(U=7, u=7))
    assert not state.is_complete


def test_after_a_loss_the_next_update_tells() -> None:
    """It continues the book, or jumps; until then nobody gets the book."""
    state = recorded(WHOLE)
    state.lose()
    assert (state.is_complete, state.snapshot(), state.depth(5), state.last) == (False, None, None, 5)
    assert not state.record(update(U=6, u=6))
    assert state.is_complete
    state.lose()
    assert state.record(update(U=8, u=8))
    assert not state.is_complete
    state = recorded(WHOLE)
    state.lose()
    assert not state.record(update())
    assert not state.is_complete


def test_after_a_loss_a_seed_that_is_not_older_is_the_book() -> None:
    """What was missed is in it; the next update continues it without a jump."""
    state = recorded(WHOLE)
    state.lose()
    assert not state.seed(update(u=4))
    assert state.seed(update(a=[["3", "1"]], u=5))
    assert state.snapshot() == b'{"e":"depth","snapshot":true,"U":5,"u":5,"b":[],"a":[["3","1"]]}'
    state.lose()
    assert state.seed(update(a=[["4", "1"]], u=20))
    assert state.is_complete
    assert not state.record(update(U=21, u=22))
    assert (state.is_complete, state.last) == (True, 22)


# Seeds.


def test_a_seed_ahead_of_the_stream_waits_for_it() -> None:
    """A subscriber would apply old updates to a newer book."""
    state = BookState()
    assert state.seed(update(a=[["3", "1"]], u=5))
    assert (state.is_complete, state.last) == (True, 5)
    assert not state.record(update(a=[["3", "9"]], U=4, u=4))
    assert not state.is_complete
    assert not state.seed(update(u=4))
    assert not state.record(update(a=[["3", "9"]], U=5, u=5))  # the seed has it in it, whatever it says
    assert state.snapshot() == b'{"e":"depth","snapshot":true,"U":5,"u":5,"b":[],"a":[["3","1"]]}'


def test_a_seed_that_the_stream_does_not_continue_is_a_gap() -> None:
    """Its subscribers have got it."""
    state = BookState()
    assert state.seed(update(u=5))
    assert state.record(update(U=7, u=7))
    assert not state.is_complete
    assert state.seed(update(u=6))
    assert (state.is_complete, state.last) == (True, 7)


@pytest.mark.parametrize("seed", range(12))
def test_what_came_before_a_jump_is_merged_into_no_seed(seed: int) -> None:
    """For what is missing in between is not in it: the seed has to be as new as what came behind the jump."""
    state = recorded(update(U=1, u=1), update(U=2, u=2))
    assert state.record(update(U=9, u=9))
    assert state.seed(update(u=seed)) == (seed >= 8)


@pytest.mark.parametrize(
    ("seed", "live"),
    [
        (update(), [update(U=1, u=1)]),
        (update(), [update()]),
        (update(u=5), [update()]),
        (update(u=5), [update(U=5, u=5), update()]),
        (update(u="5"), [update(U=5, u=5)]),
        (update(u=5.0), [update(U=5, u=5)]),
        (update(u=5), [b"[]"]),
        (update(u=5), [WHOLE]),
        (b"", []),
        (b"{}", []),
        (update(a=[["x", "1"]], u=1), []),
        (b"[" * 100_000, []),
    ],
)
def test_a_seed_that_cannot_be_ordered_is_not_taken(seed: bytes, live: list[bytes]) -> None:
    """Without ids on one side, or not readable, or not needed."""
    state = recorded(*live)
    before = state.snapshot()
    assert not state.seed(seed)
    assert state.snapshot() == before


def test_an_update_without_ids_before_a_jump_may_be_lacking_in_a_seed() -> None:
    """It may belong to what was missed, and only what came behind it says that a seed is newer."""
    state = recorded(WHOLE, update())
    assert state.record(update(U=9, u=9))
    assert not state.seed(update(u=8))
    assert state.seed(update(u=9))


def test_an_update_without_ids_before_one_that_the_seed_has_is_in_it_too() -> None:
    """Order is the order of arrival."""
    state = recorded(update(), b"bad", update(U=4, u=5))
    assert not state.seed(update(u=4))
    assert state.seed(update(u=5))
    assert state.is_complete


# Whatever comes.


@property_test
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("record", "record", "seed", "lose", "ask")),
            st.binary(max_size=20)
            | json_texts.map(str.encode)
            | publications("depth").map(str.encode)
            | broken_publications("depth").map(lambda broken: broken[0].encode())
            | st.booleans().flatmap(lambda is_snapshot: depths(is_snapshot, "1", "2")),
        ),
        max_size=10,
    )
)
@example([("record", update(a=[["NaN", "1"], ["2", "1"]], snapshot=True)), ("ask", b"")])
@example([("record", update(a=[["sNaN", "1"]], snapshot=True)), ("ask", b"")])
@example([("record", b"[" * 100_000), ("seed", b'{"u":' + b"9" * 5000 + b"}")])
@example([("record", b'{"a":[],"b":[],"snapshot":true,"u":\xff}'), ("ask", b"")])
@example([("record", b'{"a":[],"b":[],"snapshot":true,"u":' + b"9" * 4300 + b"}"), ("ask", b"")])
@example([("record", b'{"a":[],"b":[],"U":1,"u":' + b"9" * 4300 + b"}"), ("record", update(U=9, u=9)), ("ask", b"")])
def test_nothing_raises(what: list[tuple[str, bytes]]) -> None:
    """`--validate warn` lets anything through, and a key may hold anything. What is given is JSON."""
    state = BookState()
    for action, data in what:
        if action == "record":
            state.record(data)
        elif action == "seed":
            state.seed(data)
        elif action == "lose":
            state.lose()
        else:
            snapshot, depth = state.snapshot(), state.depth(5)
            assert (snapshot is None) == (depth is None) == (not state.is_complete)
            if snapshot is not None and depth is not None:
                assert decoded(snapshot)["snapshot"] is True
                assert json.loads(depth).keys() == {"lastUpdateId", "bids", "asks"}


@pytest.mark.parametrize(
    "bad", [b"", b"{}", update(a=[["x", "1"]], U=6, u=6), update(a=None), update(a=[["NaN", "1"]])]
)
def test_after_what_cannot_be_read_a_book_is_incomplete(bad: bytes) -> None:
    """Until the next snapshot, or a seed that has it in it."""
    state = recorded(WHOLE, bad)
    assert (state.snapshot(), state.depth(1), state.is_complete) == (None, None, False)
    assert not state.record(update(U=6, u=7))
    assert not state.seed(update(u=4))
    assert state.seed(update(u=7))
    assert state.is_complete
    state = recorded(WHOLE, bad, WHOLE)
    assert state.is_complete


def test_what_cannot_be_read_without_ids_is_in_no_seed() -> None:
    """Nobody knows which is newer."""
    state = recorded(update(snapshot=True), update(a=[["x", "1"]]))
    assert not state.is_complete
    assert not state.seed(update())
    assert not state.seed(update(u=1))
    state.lose()
    assert state.seed(update())


@property_test
@given(sequences(), st.integers(0, 5))
def test_what_waits_may_be_merged_a_message_at_a_time(messages: list[bytes], most: int) -> None:
    """Each step says what it costs, by the size of its message; the book is the same."""
    state, other = recorded(WHOLE, *messages), recorded(WHOLE, *messages)
    waiting = [len(message) // 16 for message in state._pending]
    assert list(islice(state.settling(), most)) == waiting[:most]
    assert state.snapshot() == other.snapshot()
    assert state._size == other._size == 0


def test_what_writing_a_book_costs() -> None:
    """By its levels; nothing while it is as it was. It is the same book until there is another one."""
    state = recorded(update(b=[[str(level), "1"] for level in range(1, 101)], snapshot=True, U=1, u=1))
    assert state.cost == 0
    list(state.settling())
    beginning = state.beginning
    assert state.cost == 50
    state.snapshot()
    assert state.cost == 0
    state.record(update(b=[["7", "2"]], U=2, u=2))
    assert state.cost == 50
    assert state.beginning is beginning
    state.record(update(b=[["7", "3"]], U=9, u=9))
    assert (state.beginning, state.cost, list(state.settling())) == (None, 0, [])
    state.record(WHOLE)
    assert state.beginning is not beginning


def test_what_waits_without_end_is_not_merged_without_end() -> None:
    """What comes while it is merged waits for another time."""
    state = recorded(WHOLE)
    for count, _ in enumerate(state.settling()):
        assert count < 2
        state.record(update(b=[["7", "2"]], U=6, u=6))
    assert state.is_complete


def test_what_waits_to_be_merged_is_bounded() -> None:
    """In number and in bytes, though nobody asks for the book."""
    state = recorded(update(snapshot=True))
    for number in range(1000):
        state.record(update(a=[[str(number), "1"]]))
        assert len(state._pending) <= 64
    for number in range(100):
        state.record(update(a=[[str(number), "1"]], x="x" * 20_000))
        assert sum(map(len, state._pending)) == state._size <= 256 * 1024
    assert len(decoded(state.snapshot() or b"")["a"]) == 1000
    state.record(update(x="x" * 300_000))
    assert len(state._pending) <= 1
    state.record(update(x="x" * 300_000))
    assert len(state._pending) <= 1


# Large books.


def limited(most: int) -> tuple[BookState, list[bool]]:
    """A state of at most so many levels, and what it has said about larger ones."""
    state, said = BookState(), list[bool]()
    state.max_levels = most
    state.too_large = lambda: said.append(True)
    return state, said


def many(count: int, start: int = 0, **fields: Any) -> bytes:
    rows = [[str(start + number), "1"] for number in range(count)]
    return update(a=rows[::2], b=rows[1::2], **fields)


def test_a_book_that_is_lost_is_not_read_to_find_that_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a link comes back, all books are looked at in one turn."""
    state = recorded(WHOLE)
    for number in range(6, 40):
        state.record(update([["7", str(number)]], U=number, u=number))
    with monkeypatch.context() as patch:
        patch.setattr(DepthMessage, "parse", None)
        assert not state.is_wanting
        state.lose()
        assert state.is_wanting
        assert not state.is_complete
    state.record(update([["7", "1"]], U=40, u=40))
    assert not state.is_wanting
    assert book(state) == replay([WHOLE, update([["7", "1"]])])


def test_a_book_that_only_grows_is_incomplete_beyond_its_limit() -> None:
    """Until the next snapshot. Levels that are taken away make room."""
    state, said = limited(10)
    state.record(many(6, snapshot=True, U=1, u=1))
    for number in range(2, 100):
        state.record(many(1, number * 100, U=number, u=number))
        state.record(update(a=[[str(number * 100), "0"]], U=number, u=number))
        assert state.is_complete
    for number in range(100, 105):
        state.record(many(1, number * 100, U=number, u=number))
        assert state.is_complete == (number < 104)
    assert said == [True]
    state.record(many(1, 9, U=105, u=105))
    assert state.snapshot() is None
    assert said == [True]
    state.record(many(10, snapshot=True, U=1, u=1))
    assert state.is_complete


def test_a_message_or_a_seed_of_too_many_levels_is_no_book() -> None:
    """It is said, and what comes behind it changes nothing."""
    state, said = limited(10)
    assert not state.seed(many(11, u=3))
    assert state.seed(many(10, u=3))
    state.record(many(11, snapshot=True, U=5, u=5))
    assert not said[1:]
    state.record(many(1, U=6, u=6))
    assert not state.is_complete
    assert said == [True, True]
    assert state.seed(many(10, u=6))


def test_whole_books_that_nobody_asks_for_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """However large they are: the next one takes the place of the one before."""
    state, said = limited(10)
    read: list[bytes] = []
    parse = DepthMessage.parse
    monkeypatch.setattr(DepthMessage, "parse", lambda data: read.append(data) or parse(data))  # type: ignore[func-returns-value]
    for number in range(50):
        state.record(many(20_000, snapshot=True, U=number, u=number))
    state.record(many(5, snapshot=True, U=50, u=50))
    assert not read
    assert not said
    assert state.is_complete
    assert len(read) == 1


@property_test
@given(sequences(), st.integers(0, 12), st.booleans())
def test_a_complete_book_is_within_its_limit(messages: list[bytes], most: int, asks: bool) -> None:
    """And a book within it is never given up."""
    state, said = limited(most)
    state.record(update(snapshot=True))
    sizes = []
    for at, message in enumerate(messages):
        state.record(message)
        sizes.append(sum(map(len, replay([update(snapshot=True), *messages[: at + 1]]).values())))
        if asks:
            state.snapshot()
    assert state.is_complete == all(size <= most for size in sizes)
    assert state.is_complete or said == [True]


@pytest.mark.parametrize("message", [WHOLE, update(), update(U=1, u=1), b"bad"])
def test_a_state_is_blank_until_something_comes(message: bytes) -> None:
    """Whatever it is; and again after a loss behind which nothing tells where it is."""
    state = BookState()
    assert state.is_blank
    assert not state.record(message)  # nothing is missing before what is first
    assert not state.is_blank
    state.lose()
    assert state.is_blank == (b"U" not in message)
