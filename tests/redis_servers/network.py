"""Two sides, and a link between them that can be cut while all processes live: a network namespace with veth pairs.

1. The near side is where the tests run. The far side is a network namespace: it ends with the process that holds it,
   which ends with the test, even with one that is killed.
2. Servers of both sides know each other by the addresses of the link. A second link, which is never cut, leads to the
   far side for the test itself: whatever is there can be asked at its last address during a partition.
3. Every network has addresses of its own, of the block for benchmarks (RFC 2544), which nobody routes.
"""

from __future__ import annotations

import random
import socket
import subprocess
from pathlib import Path

from tests.programs import find
from tests.redis_servers.process import LOOPBACK, Place
from tests.redis_servers.started import Started

__all__ = ["Network", "no_network"]


def no_network() -> str:
    """Why there can be no network here; empty if there can."""
    for program in ("ip", "unshare", "nsenter"):
        if find(program) is None:
            return f"{program} is not installed"
    try:
        with Network():
            return ""
    except (OSError, subprocess.CalledProcessError) as fault:
        said = fault.stderr if isinstance(fault, subprocess.CalledProcessError) else fault
        return f"no network namespaces here: {str(said).strip()}"


class Network(Started):
    """A far side, and the link to it."""

    def __init__(self) -> None:
        number, self._claim = _claim_number()
        second, third, fourth = 18 + (number >> 12), (number >> 4) & 0xFF, (number & 0xF) << 4
        base = f"198.{second}.{third}"
        self._names = [(f"mf{number:x}{kind}n", f"mf{number:x}{kind}f") for kind in "lc"]
        self._pairs = [(f"{base}.{fourth + at + 1}", f"{base}.{fourth + at + 2}") for at in (0, 4)]
        self._holder: subprocess.Popen[bytes] | None = None
        self.near = Place((self._pairs[0][0], LOOPBACK))
        self.far = Place()

    def start(self) -> None:
        """Make the far side, with both links up."""
        command = [_path("unshare"), "--net", "/bin/sh", "-c", "echo; read -r _"]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._holder = holder
        assert holder.stdout is not None
        assert holder.stderr is not None
        if not holder.stdout.readline():
            raise OSError(holder.stderr.read().decode())
        there = Path(f"/proc/{holder.pid}/ns/net")
        (link, control) = self._pairs
        self.far = Place((link[1], LOOPBACK, control[1]), (_path("nsenter"), f"--net={there}", "--"))
        self._far("link", "set", "lo", "up")
        for (near, far), (near_host, far_host) in zip(self._names, self._pairs, strict=True):
            _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", str(holder.pid))
            _ip("address", "add", f"{near_host}/30", "dev", near)
            self._far("address", "add", f"{far_host}/30", "dev", far)
            self._far("link", "set", far, "up")
            _ip("link", "set", near, "up")

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self._far("link", "set", self._names[0][1], "down")

    def heal(self) -> None:
        """Everything passes again."""
        self._far("link", "set", self._names[0][1], "up")

    def close(self) -> None:
        """The far side is gone, unless somebody runs there."""
        if self._holder is not None:
            for pipe in (self._holder.stdin, self._holder.stdout, self._holder.stderr):
                if pipe is not None:
                    pipe.close()
            self._holder.wait()
            for near, _ in self._names:
                subprocess.run([_path("ip"), "link", "delete", near], stderr=subprocess.DEVNULL, check=False)
        self._claim.close()

    def _far(self, *words: str) -> None:
        subprocess.run([*self.far.prefix, _path("ip"), *words], check=True, capture_output=True, text=True)


def _claim_number() -> tuple[int, socket.socket]:
    """The number of a /28 in 198.18.0.0/15 that nobody else has while this socket is open."""
    while True:
        number, claim = random.SystemRandom().randrange(0x2000), socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0marketfeed.network.{number}")
        except OSError:
            claim.close()
        else:
            return number, claim


def _ip(*words: str) -> None:
    subprocess.run([_path("ip"), *words], check=True, capture_output=True, text=True)


def _path(program: str) -> str:
    path = find(program)
    assert path is not None, f"{program} is not installed"
    return path
