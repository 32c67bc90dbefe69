"""The lines of a recording: any bytes come back, whatever is cut off, and what is wrong is said."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.commands.recording.format import (
    BadLine,
    Begin,
    End,
    Gap,
    Publication,
    Record,
    read_line,
    read_records,
    write_record,
)
from marketfeed.commands.recording.gzip_members import CutOff, Damaged
from tests.strategies import canonical_names, property_test

moments = st.integers(0, (1 << 62) - 1)
any_bytes = st.binary(max_size=60) | st.text(max_size=30).map(str.encode)
publications = st.builds(Publication, moments, canonical_names.map(str.encode) | any_bytes, any_bytes)
records: st.SearchStrategy[Record] = st.one_of(
    publications,
    st.builds(Begin, moments, st.integers(0, 99), st.lists(st.text(max_size=9), max_size=3).map(tuple)),
    st.builds(Gap, moments, moments, moments),
    st.builds(End, moments, st.integers(0, 99)),
)


def in_chunks(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@property_test
@given(records)
def test_what_was_written_is_read(record: Record) -> None:
    """Any bytes, any name; in one line of JSON that begins with the time."""
    line = write_record(record)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert next(iter(json.loads(line).items())) == ("time", record.time)
    assert read_line(line[:-1]) == record


@property_test
@given(st.lists(records, max_size=6), st.integers(1, 99), st.booleans())
def test_a_file_is_its_lines(written: list[Record], size: int, is_packed: bool) -> None:
    """In chunks of any size, compressed or not, each with its number."""
    file = b"".join(map(write_record, written))
    chunks = in_chunks(gzip.compress(file) if is_packed else file, size)
    assert list(read_records(chunks)) == list(enumerate(written, 1))


@property_test
@given(st.lists(records, min_size=1, max_size=5), st.booleans(), st.data())
def test_any_beginning_of_a_file_is_read(written: list[Record], is_packed: bool, data: st.DataObject) -> None:
    """It is the beginning of what was written, with all that was whole, and it is said where the cut is in a line."""
    plain = b"".join(map(write_record, written))
    file = gzip.compress(plain) if is_packed else plain
    cut = data.draw(st.integers(0, len(file)))
    read: list[Record] = []
    is_cut_off = False
    try:
        for number, record in read_records([file[:cut]]):
            assert number == len(read) + 1
            read.append(record)
    except CutOff:
        is_cut_off = True
    assert read == written[: len(read)]
    if is_packed:
        assert is_cut_off == (0 < cut < len(file))
    else:
        assert len(read) in (file[:cut].count(b"\n"), file[:cut].count(b"\n") + 1)
        assert is_cut_off == (
            file[:cut] != b"" and b"".join(map(write_record, read)) not in (file[:cut] + b"\n", file[:cut])
        )


@property_test
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Nothing but the three ways in which a file can be wrong."""
    try:
        for _ in read_records([data]):
            pass
    except (BadLine, CutOff, Damaged):
        pass


def test_the_spelling() -> None:
    """Text is text, other bytes are base64 under another key."""
    assert write_record(Publication(7, b"trade@A", b'{"p":"1.50"}')) == (
        b'{"time":7,"stream":"trade@A","data":"{\\"p\\":\\"1.50\\"}"}\n'
    )
    assert write_record(Publication(7, b"\xff", b"\x00\xff")) == b'{"time":7,"stream64":"/w==","data64":"AP8="}\n'
    assert write_record(Begin(7, 1, ("depth@*", "*"))) == (
        b'{"time":7,"event":"begin","version":1,"number":1,"patterns":["depth@*","*"]}\n'
    )
    assert write_record(Gap(9, 7, 8)) == b'{"time":9,"event":"gap","from":7,"to":8}\n'
    assert write_record(End(9, 3)) == b'{"time":9,"event":"end","publications":3}\n'


def test_members_that_are_not_known_are_passed_over() -> None:
    """A later version may add some."""
    line = b'{"more":[{}],"data":"","time":1,"stream":"a","x":null}'
    assert read_line(line) == Publication(1, b"a", b"")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"", "expected a line that marketfeed record has written"),
        (b"[]", "expected a line that marketfeed record has written"),
        (b"\xff", "expected a line that marketfeed record has written"),
        (b"[" * 100_000, "expected a line that marketfeed record has written: nested deeper than 32 levels"),
        (
            b'{"time":1,"stream":"a","data":"","x":' + b"[" * 32 + b"]" * 32 + b"}",
            "expected a line that marketfeed record has written: nested deeper than 32 levels",
        ),
        (b'{"stream":"a","data":""}', "missing required field `time`"),
        (b'{"time":-1,"stream":"a","data":""}', "time"),
        (b'{"time":1.5,"stream":"a","data":""}', "time"),
        (b'{"time":1,"stream":"a","data":{}}', "data"),
        (b'{"time":1,"stream":"a","data64":"?"}', "data64"),
        (b'{"time":1,"stream":"a"}', "expected one of stream and stream64, and one of data and data64"),
        (b'{"time":1,"data":"a"}', "expected one of stream and stream64, and one of data and data64"),
        (b'{"time":1,"stream":"a","data":"","data64":""}', "one of data and data64"),
        (b'{"time":1,"event":"begin","version":2}', "version 2 of the format; expected 1"),
        (b'{"time":1,"event":"gap","from":1}', "expected from and to"),
        (b'{"time":1,"event":"pause"}', "expected begin, gap or end"),
    ],
)
def test_a_bad_line_says_what_would_be_accepted(line: bytes, complaint: str) -> None:
    """And the file's reader says which line it is."""
    good = write_record(End(1, 0))
    with pytest.raises(ValueError, match=complaint):
        read_line(line)
    with pytest.raises(BadLine, match=complaint) as caught:
        list(read_records([good, good, line, b"\n", good]))
    assert caught.value.number == 3


def test_a_last_line_without_its_end() -> None:
    """It is read if it is whole, cut off if it began as a line does, and wrong otherwise."""
    good = write_record(End(1, 0))
    assert list(read_records([good[:-1]])) == [(1, End(1, 0))]
    with pytest.raises(CutOff):
        list(read_records([good[:-2]]))
    with pytest.raises(BadLine):
        list(read_records([b"hello"]))


def test_a_line_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without line breaks does not fill the memory."""
    monkeypatch.setattr("marketfeed.commands.recording.format._MAX_LINE", 100)
    with pytest.raises(Damaged, match="longer than 100 bytes"):
        list(read_records(b"{" * 30 for _ in range(10)))
