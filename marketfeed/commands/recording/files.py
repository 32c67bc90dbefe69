"""Reads recordings, file after file, for a replay. What is odd about one is a warning, what is wrong is a fault."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence

from marketfeed.commands.recording.format import BadLine, End, Record, read_records
from marketfeed.commands.recording.gzip_members import CutOff, Damaged

__all__ = ["BadRecording", "Place", "check", "recorded"]

_READ = 1 << 18

Place = tuple[str, int]
"""A file's name and the number of a line in it."""


class BadRecording(ValueError):
    """A file cannot be read; the message names it, and the line."""


def check(paths: Sequence[str]) -> None:
    """See that the files are there before hours have passed with the first of them. Raises `BadRecording`."""
    for path in paths:
        if path == "-":
            continue
        if os.path.isdir(path):
            raise BadRecording(f"{path}: is a directory; expected files of marketfeed record, or - for standard input")
        try:
            os.stat(path)
            if not os.access(path, os.R_OK):
                raise PermissionError(0, "Permission denied")
        except (OSError, ValueError) as error:
            raise BadRecording(f"{repr(path)[1:-1]}: {getattr(error, 'strerror', None) or error}") from None


def recorded(paths: Sequence[str], warn: Callable[[str], None]) -> Iterator[tuple[Place, Record]]:
    """All records, in order. Raises `BadRecording`; `warn`: gets a line for each file that was cut off."""
    for path in paths:
        shown = "standard input" if path == "-" else path
        number, record = 0, None
        try:
            for number, record in read_records(_chunks(path)):
                yield (shown, number), record
        except BadLine as error:
            raise BadRecording(f"{shown}:{error.number}: {error}") from None
        except Damaged as error:
            raise BadRecording(f"{shown}:{number + 1}: {error}") from None
        except CutOff as error:
            warn(f"{shown}: {error}, behind line {number}; it was read up to there")
            continue
        if number and not isinstance(record, End):
            warn(f"{shown}: its last line is missing: the recording was cut off, or goes on")


def _chunks(path: str) -> Iterator[bytes]:
    descriptor = -1
    try:
        descriptor = sys.stdin.fileno() if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        while chunk := os.read(descriptor, _READ):
            yield chunk
    except OSError as error:
        raise BadRecording(f"{path}: {error.strerror}") from None
    finally:
        if path != "-" and descriptor >= 0:
            os.close(descriptor)
