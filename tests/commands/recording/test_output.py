"""Files of a recording: their names, what is in them when, and what happens when they cannot be written."""

from __future__ import annotations

import errno
import gzip
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from marketfeed.commands.recording.output import BadOutput, FileNames, OutputFile

MOMENT = 1790000000_123456  # 2026-09-21 14:13:20 UTC


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What a full disk looks like."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestNames:
    @pytest.mark.parametrize(
        ("pattern", "name", "is_packed"),
        [
            ("%Y-%m-%d/%H%M%S.jsonl.gz", "2026-09-21/141320.jsonl.gz", True),
            ("%j/100%%-%f.jsonl", "264/100%-123456.jsonl", False),
            ("plain.gz", "plain.gz", True),
            ("new/", "new/marketfeed-20260921T141320Z.jsonl.gz", True),
            (".", "marketfeed-20260921T141320Z.jsonl.gz", True),
        ],
    )
    def test_names_have_the_time_in_utc(self, tmp_path: Path, pattern: str, name: str, is_packed: bool) -> None:
        """Directories are made; a directory's files have a name of their own."""
        names = FileNames(str(tmp_path / pattern) if pattern != "new/" else f"{tmp_path}/new/")
        file = names.open(MOMENT)
        file.write(b"\n")
        file.close()
        assert file.shown == str(tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(b"\x1f\x8b") == names.is_packed == is_packed
        assert names.is_many == ("plain" not in pattern)

    @pytest.mark.parametrize(
        ("pattern", "second", "third"),
        [
            ("a.%Y.jsonl.gz", "a.2026-2.jsonl.gz", "a.2026-3.jsonl.gz"),
            ("%Y", "2026-2", "2026-3"),
            (".%Y.d/%Y.x", ".2026.d/2026-2.x", ".2026.d/2026-3.x"),
        ],
    )
    def test_a_name_that_exists_is_not_used_again(self, tmp_path: Path, pattern: str, second: str, third: str) -> None:
        """Another one is, which says so by a number."""
        names = FileNames(str(tmp_path / pattern))
        files = [names.open(MOMENT) for _ in range(3)]
        assert [file.shown for file in files[1:]] == [str(tmp_path / second), str(tmp_path / third)]
        for file in files:
            file.close()

    def test_a_single_file_that_exists_is_left_alone(self, tmp_path: Path) -> None:
        """There is no other name for it."""
        path = tmp_path / "file"
        path.write_bytes(b"precious")
        with pytest.raises(FileExistsError):
            FileNames(str(path)).open(MOMENT)
        assert path.read_bytes() == b"precious"

    @pytest.mark.parametrize("pattern", ["%", "a%q.gz", "%-d", "%c"])
    def test_other_fields_are_refused(self, pattern: str) -> None:
        """What would be accepted is said."""
        with pytest.raises(BadOutput, match="expected %Y %m %d %j %H %M %S %f, or %% for a percent sign"):
            FileNames(pattern)


class TestFiles:
    def test_what_is_flushed_is_there(self, tmp_path: Path) -> None:
        """As whole members of gzip, and nothing else is."""
        path = tmp_path / "file.gz"
        file = FileNames(str(path)).open(MOMENT)
        file.flush()
        file.write(b"one\n")
        assert path.read_bytes() == b""
        assert not file.is_full
        file.flush()
        assert gzip.decompress(path.read_bytes()) == b"one\n"
        file.write(b"two\n")
        file.write(b"three\n")
        assert gzip.decompress(path.read_bytes()) == b"one\n"
        file.close()
        assert gzip.decompress(path.read_bytes()) == b"one\ntwo\nthree\n"
        assert file.size == path.stat().st_size

    def test_a_member_does_not_grow_without_end(self, tmp_path: Path) -> None:
        """Enough is enough at a megabyte."""
        file = FileNames(str(tmp_path / "file.gz")).open(MOMENT)
        file.write(bytes((1 << 20) - 1))
        assert not file.is_full
        file.write(b"\n")
        assert file.is_full
        file.flush()
        assert not file.is_full
        file.close()

    def test_plain_lines(self, tmp_path: Path) -> None:
        """Nothing is gained by waiting."""
        path = tmp_path / "file"
        file = FileNames(str(path)).open(MOMENT)
        assert not file.is_full
        file.write(b"one\n")
        file.write(b"two\n")
        assert file.is_full
        file.flush()
        assert path.read_bytes() == b"one\ntwo\n"
        file.close()
        assert file.size == 8

    def test_a_flush_that_fails_half_way_leaves_nothing(self, tmp_path: Path) -> None:
        """The file ends behind the last whole flush, and is whole."""
        path = tmp_path / "file.gz"
        file = FileNames(str(path)).open(MOMENT)
        file.write(b"kept\n")
        file.flush()
        file.write(os.urandom(5000))
        with files_of_at_most(1000), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            file.flush()
        assert gzip.decompress(path.read_bytes()) == b"kept\n"
        file.write(b"more\n")
        file.close()
        assert gzip.decompress(path.read_bytes()) == b"kept\nmore\n"
        assert path.stat().st_size < 100, "there is no hole in it"

    def test_a_pipe(self) -> None:
        """It is not the file's own, cannot be synced, and may have lost its reader."""
        reading, writing = os.pipe()
        file = OutputFile(writing, "standard output", is_packed=False, owned=False)
        file.write(b"one\n")
        file.close()
        assert os.read(reading, 100) == b"one\n"
        os.close(reading)
        file.write(b"two\n")
        with pytest.raises(BrokenPipeError):
            file.flush()
        os.close(writing)
