"""The command that reads many streams, against one that is put together anew each time."""

from __future__ import annotations

from hiredis import pack_command
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.redis.stream_reads import BYTES, FIRST, LEAST, MOST, TOTAL, Reading, Reads, Volume
from tests.strategies import property_test

STEPS = st.lists(st.tuples(st.sampled_from(["add", "drop", "move", "read", "clear"]), st.integers(0, 5)), max_size=40)


def expected(readings: list[Reading], most: int, block_ms: int | None) -> bytes:
    keys = [reading.key for reading in readings]
    ids = [reading.at for reading in readings]
    block = () if block_ms is None else ("BLOCK", str(block_ms))
    return pack_command(("XREAD", "COUNT", str(most), *block, "STREAMS", *keys, *ids))


@given(STEPS)
def test_it_is_what_would_be_made_anew(steps: list[tuple[str, int]]) -> None:
    """After any steps, whatever was kept of the one before."""
    reads, model = Reads(), dict[bytes, Reading]()
    for number, (step, which) in enumerate(steps):
        key = b"trade@%d" % which
        reading = model.get(key)
        if step == "add" and reading is None:
            model[key] = Reading(key.decode(), key)
            model[key].at = b"0-0"
            reads.add(model[key])
        elif step == "drop":
            reads.drop(model.pop(key, None) or Reading("", key))
        elif step == "move" and reading is not None:
            reads.move(reading, b"%d-1" % number)
        elif step == "clear":
            reads.clear()
            model.clear()
        elif model:
            for block_ms in (None, number):
                (group,) = reads.groups
                assert group.command(which, block_ms) == expected(list(model.values()), which, block_ms)
        assert list(reads) == list(model.values())
        assert len(reads) == len(model)
        assert reads.get(key) is model.get(key)


@given(STEPS)
def test_each_slot_has_a_command(steps: list[tuple[str, int]]) -> None:
    """Of a slot that is read apart, each stream; whatever is wanted, moved and dropped meanwhile."""
    reads, model, apart = Reads(), dict[bytes, Reading](), set[int]()
    for number, (step, which) in enumerate(steps):
        key = b"trade@%d" % which
        reading = model.get(key)
        if step == "add" and reading is None:
            model[key] = Reading(key.decode(), key, which % 3)
            model[key].at = b"0-0"
            reads.add(model[key])
        elif step == "drop" and reading is not None:
            reads.drop(model.pop(key))
        elif step == "move" and reading is not None:
            reads.move(reading, b"%d-1" % number)
        elif step == "read":
            apart.add(which % 3)
            reads.part(which % 3)
        elif step == "clear":
            apart.clear()
            reads.unite()
        slots: dict[object, list[Reading]] = {}
        for each in model.values():
            slots.setdefault(each.key if each.slot in apart else each.slot, []).append(each)
        assert {group.name for group in reads.groups} == set(slots)
        for group in reads.groups:
            assert {*group.readings.values()} == {*slots[group.name]}
            assert group.command(7, None) == expected([*group.readings.values()], 7, None)


def test_another_reading_of_the_same_stream_stays() -> None:
    """Only what is read can be dropped."""
    reads = Reads()
    one = Reading("a", b"a")
    reads.add(one)
    reads.drop(Reading("a", b"a"))
    assert list(reads) == [one]


def test_many_streams_share_what_a_read_may_bring() -> None:
    """But each may bring some, if there is room for some at all."""
    reads = Reads()
    assert reads.most(5000) == MOST
    for number in range(10_000):
        reads.add(Reading("", b"%d" % number))
        if number in (0, 7, 199, 9_999):
            for room in (1, 3, 80, 1000, TOTAL):
                most = reads.most(room)
                assert min(LEAST, room) <= most <= min(MOST, room)
                assert most * len(reads) <= max(room, LEAST * len(reads))
                assert most in (LEAST, room, MOST, room // len(reads))


@property_test
@given(st.lists(st.tuples(st.integers(1, TOTAL), st.integers(1, 1 << 20)), max_size=20))
def test_a_read_is_bounded_by_what_was_read_before(reads: list[tuple[int, int]]) -> None:
    """In bytes as far as they can be foreseen, in entries always: they do not grow faster than eightfold."""
    volume = Volume()
    largest = most = FIRST
    for entries, size in reads:
        entries = min(entries, volume.entries)
        volume.took(entries, entries * size)
        assert 1 <= volume.entries <= TOTAL
        assert volume.entries * size <= max(BYTES, size)
        largest = max(largest, entries)
        most = max(FIRST, 8 * largest)
        assert volume.entries <= most


def test_small_entries_are_soon_read_by_the_thousand_again() -> None:
    """And a small read between two large ones does not make the next one small."""
    volume = Volume()
    volume.took(80, 80 * 50_000)
    assert volume.entries == BYTES // 50_000
    for _ in range(60):
        volume.took(volume.entries, volume.entries * 200)
    assert volume.entries > 10_000
    volume.took(1, 200)
    assert volume.entries > 10_000
