"""Recordings as files: in order, with names and line numbers, and what is odd about them."""

from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path

import pytest

from marketfeed.commands.recording.files import BadRecording, check, recorded
from marketfeed.commands.recording.format import Begin, End, Publication, write_record

WHOLE = [Begin(1, 1, ("*",)), Publication(2, b"trade@A", b"1"), End(3, 1)]
PLAIN = b"".join(map(write_record, WHOLE))


def test_files_in_their_order(tmp_path: Path) -> None:
    """Compressed or not, whatever their names say; each record with its place."""
    one, two, empty = tmp_path / "one", tmp_path / "two", tmp_path / "empty"
    one.write_bytes(gzip.compress(PLAIN, mtime=0))
    two.write_bytes(PLAIN + PLAIN)
    empty.write_bytes(b"")
    warnings: list[str] = []
    check([str(two), str(empty), str(one)])
    read = list(recorded([str(two), str(empty), str(one)], warnings.append))
    assert [record for _, record in read] == WHOLE * 3
    assert [place for place, _ in read] == [(str(two), number) for number in range(1, 7)] + [
        (str(one), number) for number in range(1, 4)
    ]
    assert warnings == []


def test_standard_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is not closed."""
    path = tmp_path / "file"
    path.write_bytes(PLAIN)
    with path.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        check(["-"])
        assert [place for place, _ in recorded(["-"], pytest.fail)] == [("standard input", n) for n in (1, 2, 3)]
        os.fstat(stdin.fileno())


@pytest.mark.parametrize(
    ("content", "warning", "count"),
    [
        (PLAIN[:-5], "the file ends in the middle of a line, behind line 2; it was read up to there", 2),
        (
            gzip.compress(PLAIN, mtime=0) + gzip.compress(PLAIN, mtime=0)[:-3],
            "the file ends in the middle of its compressed bytes, behind line 6; it was read up to there",
            6,
        ),
        (
            gzip.compress(write_record(WHOLE[0]), mtime=0),
            "its last line is missing: the recording was cut off, or goes on",
            1,
        ),
    ],
    ids=["lines", "members", "one member"],
)
def test_a_file_that_was_cut_off(tmp_path: Path, content: bytes, warning: str, count: int) -> None:
    """It is read up to there, with a warning, and the next file follows."""
    path, following = tmp_path / "file", tmp_path / "next"
    path.write_bytes(content)
    following.write_bytes(PLAIN)
    warnings: list[str] = []
    read = list(recorded([str(path), str(following)], warnings.append))
    assert [place[0] for place, _ in read].count(str(path)) == count
    assert [record for _, record in read[count:]] == WHOLE
    assert warnings == [f"{path}: {warning}"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (PLAIN + b"nonsense\n", "4: expected a line that marketfeed record has written"),
        (gzip.compress(PLAIN, mtime=0) + b"nonsense\n", "4: the compressed bytes are damaged"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, content: bytes, fault: str) -> None:
    """The fault names the file and the line; what comes before it is read."""
    path = tmp_path / "file"
    path.write_bytes(content)
    read = []
    with pytest.raises(BadRecording) as caught:  # noqa: PT012
        for _, record in recorded([str(path)], pytest.fail):
            read.append(record)
    assert read == WHOLE
    assert str(caught.value).startswith(f"{path}:{fault}")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    """That is known before anything is played."""
    path = tmp_path / "file"
    with pytest.raises(BadRecording, match="file: No such file"):
        check([str(path)])
    with pytest.raises(BadRecording, match="is a directory; expected files"):
        check(["-", str(tmp_path)])
    with pytest.raises(BadRecording, match="embedded null"):
        check(["a\0b"])
    with pytest.raises(BadRecording, match="file: No such file"):
        list(recorded([str(path)], pytest.fail))


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is that."""
    path = tmp_path / "file"
    path.write_bytes(PLAIN)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(BadRecording, match="file: Permission denied"):
        check([str(path)])
