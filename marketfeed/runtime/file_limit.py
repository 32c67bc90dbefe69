"""What the operating system grants this process."""

from __future__ import annotations

import os
import resource

__all__ = ["RESERVED_FILES", "file_limit", "open_files", "raise_file_limit", "room_for_connections"]

RESERVED_FILES = 128
"""File descriptors that are no connections of clients: listeners, links, logs, the reactor's own."""
_MAX_HANDSHAKES = 4096


def room_for_connections(files: int) -> tuple[int, int]:
    """How many clients there may be at a time with this many open files, and how many who have not sent their request.

    The latter get a share, so that no flood of them takes all.
    """
    room = max(2, files - RESERVED_FILES)
    handshakes = min(_MAX_HANDSHAKES, max(1, room // 8))
    return room - handshakes, handshakes


def open_files() -> int | None:
    """How many files this process has open; None where the system does not say it at once."""
    try:
        return os.stat("/proc/self/fd").st_size or None  # Linux 6.2 and later; to list them takes longer
    except OSError:
        return None


def file_limit() -> int:
    """How many files this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_file_limit() -> int:
    """Raise the limit on open files to the most that this process may have; returns it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        most = 1 << 20
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (OSError, ValueError):
        return file_limit()
    return most
