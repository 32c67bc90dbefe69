"""Runs twistd as the unit confines it, by system calls and address families; files and users are not confined here.

`python -m tests.deploy.sandboxed …`, with twistd's arguments. The filters are those that systemd makes of the same
lines: by libseccomp, from the sets of calls that `systemd-analyze syscall-filter` has.
"""

from __future__ import annotations

import ctypes
import errno
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["confine"]

_UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "marketfeed.service"
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_EQUAL = 4


class _Compared(ctypes.Structure):
    """An argument of a call, and what it is compared with."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("how", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class Filter:
    """A filter of system calls. `otherwise`: what becomes of one that no rule names."""

    def __init__(self, otherwise: int) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(otherwise)))

    def add(self, action: int, call: str, *compared: tuple[int, int, int, int]) -> None:
        """A rule. A call that this machine does not have needs none."""
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            return
        array = (_Compared * len(compared))(*compared)
        add = self._library.seccomp_rule_add_array
        assert add(self._context, ctypes.c_uint32(action), number, len(compared), array) == 0, call

    def load(self) -> None:
        assert self._library.seccomp_load(self._context) == 0


def settings() -> dict[str, list[str]]:
    """What the unit says, by its names: each a list of lines."""
    found: dict[str, list[str]] = {}
    for line in _UNIT.read_text(encoding="utf-8").splitlines():
        name, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def calls(names: Iterable[str]) -> set[str]:
    """The calls of sets, and of the sets in them."""
    found = set()
    for name in names:
        if not name.startswith("@"):
            found.add(name)
            continue
        listed = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
        lines = [line.strip() for line in listed.stdout.splitlines()[1:]]
        found |= calls(line for line in lines if line and not line.startswith("#"))
    return found


def confine() -> None:
    """This process and what it starts, from now on."""
    unit = settings()
    permitted = calls(("@default",))
    for line in unit["SystemCallFilter"]:
        named = calls(shlex.split(line.removeprefix("~")))
        permitted = permitted - named if line.startswith("~") else permitted | named
    refused = _REFUSE | getattr(errno, unit["SystemCallErrorNumber"][0])
    families = {getattr(socket, name) for name in shlex.split(unit["RestrictAddressFamilies"][0])}
    sockets = Filter(_ALLOW)
    for family in set(range(64)) - families:
        sockets.add(_REFUSE | errno.EAFNOSUPPORT, "socket", (0, _EQUAL, family, 0))
    rest = Filter(refused)
    for call in sorted(permitted):
        rest.add(_ALLOW, call)
    sockets.load()
    rest.load()


if __name__ == "__main__":
    confine()
    from twisted.scripts.twistd import run

    sys.argv[0] = "twistd"
    run()
