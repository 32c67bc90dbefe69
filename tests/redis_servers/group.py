"""What all groups of servers have in common: making them, and ending them all."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from tests.redis_servers.network import Network
from tests.redis_servers.process import Place, Security, ServerProcess, Setting, executable
from tests.redis_servers.started import Started

__all__ = ["LEAN", "Group"]

LEAN: tuple[Setting, ...] = (
    ("protected-mode", "no"),  # or nobody is let in at the address of a link
    ("save", ""),
    ("appendonly", "no"),
    ("maxmemory", "64mb"),
    ("maxmemory-policy", "noeviction"),
    ("repl-backlog-size", "4mb"),
    ("repl-diskless-sync-delay", "0"),
    ("rdb-del-sync-files", "yes"),  # or a server that is started again has what it once got from its master
    ("repl-ping-replica-period", "1"),
    ("io-threads", "1"),
)
"""Little memory, nothing on disk. Sentinels have none of it."""


class Group(Started):
    """Servers of one flavour. With a network, those whose names are in `far` are on its far side."""

    def __init__(
        self, directory: Path, flavour: str, security: Security, network: Network | None, far: Collection[str]
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.flavour = flavour
        self.security = security
        self.network = network
        self._executable = executable(flavour)
        self._far = far
        self._servers: list[ServerProcess] = []
        hosts = Place().hosts if network is None else (*network.near.hosts, *network.far.hosts)
        self.access = security.access(directory, hosts)

    def close(self) -> None:
        """End all."""
        for server in self._servers:
            server.close()

    def place(self, name: str) -> Place:
        """Where the server of this name is to be."""
        if self.network is None:
            return Place()
        return self.network.far if name in self._far else self.network.near

    def _server(
        self, name: str, settings: Iterable[Setting], *arguments: str, login: Security | None = None
    ) -> ServerProcess:
        """`login`: who is let in, where it is not as everywhere."""
        security = login or self.security
        access = replace(self.access, user=security.user, password=security.password)
        every = [*security.settings(self.directory), *settings]
        program = (self._executable, *arguments)
        made = ServerProcess(name, program, self.directory / name, self.place(name), access, every)
        self._servers.append(made)
        return made
