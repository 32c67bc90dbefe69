"""Where a recording is written: standard output, or files whose names have the time of their beginning, in UTC.

1. A file that exists is never opened. One that is finished is on the disk, and is not touched again.
2. What is flushed survives the end of this process, and is whole lines in a whole gzip member.
3. A flush that fails half-way leaves nothing of itself in a file.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime

from marketfeed.commands.recording.gzip_members import GzipMember

__all__ = ["BadOutput", "FileNames", "OutputFile"]

_ENOUGH = 1 << 20
"""Bytes of a member, before compression, at which it is flushed without waiting any longer."""
_IN_A_DIRECTORY = "marketfeed-%Y%m%dT%H%M%SZ.jsonl.gz"
_FIELDS = "YmdHMSjf%"
_STEM = re.compile(r".*?(?=(\.[A-Za-z][A-Za-z0-9]*)*\Z)", re.DOTALL)


class BadOutput(ValueError):
    """The name cannot be used; the message says what would be accepted."""


class OutputFile:
    """One open file, which takes lines. `is_packed`: gzip. Everything that writes raises OSError."""

    def __init__(self, descriptor: int, shown: str, *, is_packed: bool, owned: bool = True) -> None:
        self._descriptor = descriptor
        self._owned = owned
        self._is_regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._member = GzipMember() if is_packed else None
        self._lines: list[bytes] = []
        self.shown = shown
        self.size = 0
        """Bytes that were written."""

    def write(self, line: bytes) -> None:
        """Take a line, which is not written yet."""
        if self._member is None:
            self._lines.append(line)
        else:
            self._member.write(line)

    @property
    def is_full(self) -> bool:
        """Whether enough waits to be flushed at once; where nothing is compressed that is any line."""
        return bool(self._lines) if self._member is None else self._member.size >= _ENOUGH

    def flush(self) -> None:
        """Write all that waits."""
        if self._member is None:
            lines, self._lines = self._lines, []
            self._put(b"".join(lines))
        elif self._member.size:
            member, self._member = self._member, GzipMember()
            self._put(member.finish())

    def close(self) -> None:
        """Flush, and see to it that the file is on the disk."""
        try:
            self.flush()
            if self._is_regular:
                os.fsync(self._descriptor)
        finally:
            if self._owned:
                os.close(self._descriptor)

    def _put(self, data: bytes) -> None:
        before = os.fstat(self._descriptor).st_size
        left = memoryview(data)
        try:
            while left:
                written = os.write(self._descriptor, left)
                self.size += written
                left = left[written:]
        except OSError:
            if self._is_regular:
                os.ftruncate(self._descriptor, before)
                os.lseek(self._descriptor, before, os.SEEK_SET)
            raise


class FileNames:
    """Names of files, from a directory or a pattern with the fields of strftime, `%Y` and the like. Raises `BadOutput`.

    `is_many`: no two files that begin at different seconds have the same name.
    """

    def __init__(self, text: str, *, exists: Callable[[str], bool] = os.path.isdir) -> None:
        self._pattern = os.path.join(text, _IN_A_DIRECTORY) if text.endswith("/") or exists(text) else text
        used = set()
        for field in re.findall(r"%(.?)", self._pattern):
            if not field or field not in _FIELDS:
                raise BadOutput(f"%{field} cannot be used; expected %Y %m %d %j %H %M %S %f, or %% for a percent sign")
            used.add(field)
        self.is_many = bool(used - {"%"})
        self.is_packed = self._pattern.endswith(".gz")

    def open(self, time: int) -> OutputFile:
        """A new file that begins at `time`, in µs since 1970. Its directory is made if need be. Raises OSError."""
        moment = datetime.fromtimestamp(time // 1_000_000, UTC).replace(microsecond=time % 1_000_000)
        directory, name = os.path.split(moment.strftime(self._pattern))
        os.makedirs(directory or ".", exist_ok=True)
        number = 1
        while True:
            path = os.path.join(directory, _numbered(name, number))
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            except FileExistsError:
                if not self.is_many:
                    raise
                number += 1
                continue
            _sync_directory(directory or ".")
            return OutputFile(descriptor, path, is_packed=self.is_packed)


def _numbered(name: str, number: int) -> str:
    """The name itself, and for times that come twice the same with a number before its suffixes."""
    at = len(_STEM.match(name)[0])  # type: ignore[index]
    return name if number == 1 else f"{name[:at]}-{number}{name[at:]}"


def _sync_directory(path: str) -> None:
    """See to it that the directory knows its files after a loss of power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
