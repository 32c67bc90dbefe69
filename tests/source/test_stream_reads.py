"""The command that reads many streams, against one that is put together anew each time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from marketfeed.source.resp import pack
from marketfeed.source.stream_reads import LEAST, MOST, TOTAL, Reading, Reads

STEPS = st.lists(st.tuples(st.sampled_from(["add", "drop", "move", "read", "clear"]), st.integers(0, 5)), max_size=40)


def expected(readings: list[Reading], most: int, block_ms: int) -> bytes:
    keys = [reading.key for reading in readings]
    ids = [reading.at for reading in readings]
    return pack("XREAD", "COUNT", str(most), "BLOCK", str(block_ms), "STREAMS", *keys, *ids)


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
            assert reads.command(number) == expected(list(model.values()), MOST, number)
        assert list(reads) == list(model.values())
        assert len(reads) == len(model)
        assert reads.get(key) is model.get(key)


def test_another_reading_of_the_same_stream_stays() -> None:
    """Only what is read can be dropped."""
    reads = Reads()
    one = Reading("a", b"a")
    reads.add(one)
    reads.drop(Reading("a", b"a"))
    assert list(reads) == [one]


def test_many_streams_share_what_a_read_may_bring() -> None:
    """But each may bring some."""
    for count in (1, TOTAL // MOST, 200, 10_000):
        reads = Reads()
        for number in range(count):
            reading = Reading("", b"%d" % number)
            reading.at = b"0-0"
            reads.add(reading)
        command = reads.command(0)
        assert b"COUNT\r\n$%d\r\n%d\r\n" % (len(str(reads.most)), reads.most) in command
        assert LEAST <= reads.most <= MOST
        assert reads.most * count <= max(TOTAL, LEAST * count)
