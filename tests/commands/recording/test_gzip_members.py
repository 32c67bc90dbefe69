"""Members of gzip: any gzip reads them, and a file that ends anywhere is read up to there."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.commands.recording.gzip_members import CutOff, Damaged, GzipMember, unpacked
from tests.strategies import property_test

contents = st.lists(st.lists(st.binary(max_size=40), max_size=4), min_size=1, max_size=4)


def member(parts: Iterable[bytes]) -> bytes:
    written = GzipMember()
    for part in parts:
        written.write(part)
    return written.finish()


def in_chunks(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def until_the_end(chunks: Iterable[bytes]) -> tuple[bytes, bool]:
    """What is read, and whether the file was whole."""
    read = b""
    try:
        for chunk in unpacked(chunks):
            read += chunk
    except CutOff:
        return read, False
    return read, True


@property_test
@given(contents, st.integers(1, 50))
def test_what_was_written_is_read(members: list[list[bytes]], size: int) -> None:
    """By Python's gzip, and by ours in chunks of any size."""
    file = b"".join(map(member, members))
    expected = b"".join(part for parts in members for part in parts)
    assert gzip.decompress(file) == expected
    assert until_the_end(in_chunks(file, size)) == (expected, True)


@property_test
@given(contents, st.integers(1, 50), st.data())
def test_any_beginning_of_a_file_is_read(members: list[list[bytes]], size: int, data: st.DataObject) -> None:
    """All of the members that are whole, perhaps more; and it is said, unless the end of a member is the end."""
    packed = list(map(member, members))
    file = b"".join(packed)
    cut = data.draw(st.integers(0, len(file)))
    ends = [len(b"".join(packed[:count])) for count in range(len(packed) + 1)]
    whole = sum(end <= cut for end in ends[1:])
    read, is_whole = until_the_end(in_chunks(file[:cut], size))
    expected = b"".join(part for parts in members for part in parts)
    assert expected.startswith(read)
    assert read.startswith(b"".join(part for parts in members[:whole] for part in parts))
    assert is_whole == (cut in ends)


@property_test
@given(st.binary(max_size=40).filter(lambda data: not data.startswith((b"\x1f\x8b", b"\x1f")) or not data))
def test_what_is_not_gzip_is_left_alone(data: bytes) -> None:
    """An empty file included."""
    assert until_the_end(in_chunks(data, 3)) == (data, True)


def test_zeros_behind_a_member_mean_nothing() -> None:
    """Nor do they between two."""
    file = member([b"one"]) + bytes(5) + member([b"two"]) + bytes(1000)
    assert until_the_end(in_chunks(file, 7)) == (b"onetwo", True)


@pytest.mark.parametrize("end", [b"not gzip", b"\x1f\x8b\x08\x04"])
def test_anything_else_behind_a_member_does(end: bytes) -> None:
    """What was read before it stays read."""
    read = b""
    with pytest.raises((Damaged, CutOff)):  # noqa: PT012
        for chunk in unpacked([member([b"one"]), end]):
            read += chunk
    assert read == b"one"


def test_damage_is_found() -> None:
    """By gzip's own check sum."""
    file = bytearray(member([b"some text that is not short", b"more of it"]))
    file[-6] ^= 1
    with pytest.raises(Damaged, match="incorrect data check"):
        list(unpacked([bytes(file)]))


def test_damage_that_shows_at_the_very_end_is_found() -> None:
    """Also where the last bytes come out only when there is room for them."""
    size = (1 << 18) * 3 + 17
    file = bytearray(gzip.compress(bytes(size)))
    assert len(b"".join(unpacked([bytes(file)]))) == size
    file[-1] ^= 1
    with pytest.raises(Damaged):
        list(unpacked([bytes(file)]))


def test_chunks_are_small_however_far_they_expand() -> None:
    """A megabyte may come out of a kilobyte, but not at once."""
    sizes = [len(chunk) for chunk in unpacked([zlib.compress(bytes(1 << 22), wbits=31)])]
    assert sum(sizes) == 1 << 22
    assert max(sizes) <= 1 << 18


def test_what_could_be_read_before_a_cut_is_read() -> None:
    """Also where few bytes are many, and some of them are still on their way when the file ends."""
    file = gzip.compress(bytes((1 << 19) + 99))
    for cut in range(10, len(file)):
        read, is_whole = until_the_end([file[:cut]])
        assert read == zlib.decompressobj(31).decompress(file[:cut])
        assert not is_whole


def test_the_size_of_a_member_is_what_it_holds() -> None:
    """Before compression."""
    written = GzipMember()
    written.write(bytes(1000))
    assert written.size == 1000
    assert len(written.finish()) < 100
