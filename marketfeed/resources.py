"""What the operating system grants this process."""

from __future__ import annotations

import resource

__all__ = ["RESERVED_FILES", "raise_file_limit"]

RESERVED_FILES = 128
"""File descriptors that are not clients: listeners, links, logs, the reactor's own, handshakes that are refused."""


def raise_file_limit() -> int:
    """Raise the limit on open files to the most that this process may have; returns it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        most = 1 << 20
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (OSError, ValueError):
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return most
