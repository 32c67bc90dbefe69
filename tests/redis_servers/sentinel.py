"""A real master with two replicas, and three sentinels that watch it.

1. `server0` is the master at first; `server1` and `server2` are its replicas.
2. Two sentinels of three decide.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import hiredis

from tests.redis_servers.client import eventually
from tests.redis_servers.group import LEAN, Group
from tests.redis_servers.network import Network
from tests.redis_servers.process import Security, ServerProcess, Setting

__all__ = ["SentinelTrio"]

_COUNT = 3
_QUORUM = 2
_DOWN = {"s_down", "o_down", "disconnected"}


class SentinelTrio(Group):
    """The servers and their sentinels. `down_after`: in ms, after which a server that is silent is down."""

    def __init__(
        self,
        directory: Path,
        flavour: str,
        *,
        name: str = "feed",
        security: Security = Security(),  # noqa: B008
        sentinel_password: str = "",
        down_after: int = 1000,
        failover_timeout: int = 5000,
        network: Network | None = None,
        far: Collection[str] = (),
    ) -> None:
        super().__init__(directory, flavour, security, network, far)
        self.name = name
        self.sentinel_password = sentinel_password
        self._times = {"down-after-milliseconds": down_after, "failover-timeout": failover_timeout}
        self.servers: list[ServerProcess] = []
        for number in range(_COUNT):
            self.servers.append(self._redis(number))
        self.sentinels: list[ServerProcess] = [self._sentinel(number) for number in range(_COUNT)]

    @property
    def url(self) -> str:
        """What `--redis-url` is told, without users and passwords."""
        return "redis-sentinel://" + ",".join(f"{each.host}:{each.port}" for each in self.sentinels) + f"/{self.name}"

    def master(self) -> ServerProcess:
        """The master, by the word of the sentinel with the highest epoch."""
        best, found = -1, b""
        for sentinel in self.sentinels:
            state = self.state(sentinel) if sentinel.answers else {}
            if int(state.get("config-epoch", -1)) > best:
                best, found = int(state["config-epoch"]), self._port(sentinel)
        return next(server for server in self.servers if b"%d" % server.port == found)

    def _port(self, sentinel: ServerProcess) -> bytes:
        """Whom it sends clients to. During a failover its state has the new epoch with the old address."""
        place = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        assert isinstance(place, list)
        return bytes(place[1])

    @property
    def replicas(self) -> list[ServerProcess]:
        """Those that answer, but for the master."""
        master = self.master()
        return [server for server in self.servers if server is not master and server.answers]

    def state(self, sentinel: ServerProcess) -> dict[str, str]:
        """What a sentinel says of the master; nothing while it does not answer."""
        try:
            return _pairs(sentinel.ask("SENTINEL", "MASTER", self.name))
        except (OSError, hiredis.HiredisError):
            return {}

    def failover(self) -> ServerProcess:
        """SENTINEL FAILOVER; the new master, of which all sentinels know, and who follow it."""
        before = self.master()

        def accepted() -> bool:
            return self.sentinels[0].ask("SENTINEL", "FAILOVER", self.name) == b"OK"

        eventually(accepted, "a sentinel begins the failover")
        return self.wait_switched(before)

    def wait_switched(self, before: ServerProcess) -> ServerProcess:
        """Until all sentinels that answer name another master than before; which."""

        def switched() -> bool:
            running = [sentinel for sentinel in self.sentinels if sentinel.answers]
            ports = {state["port"] for sentinel in running if (state := self.state(sentinel))}
            return len(ports) == 1 and str(before.port) not in ports and _role(self.master()) == "master"

        eventually(switched, f"another master than {before}")
        return self.master()

    def wait_whole(self) -> None:
        """Until all are there, and all sentinels say so."""
        eventually(self.is_whole, "the sentinels and their servers are whole")

    def is_whole(self) -> bool:
        """All servers and sentinels are there, say so of each other, and all replicas have what the master has."""
        expected = {"flags": "master", "num-slaves": "2", "num-other-sentinels": "2"}
        ports = set()
        for sentinel in self.sentinels:
            state = self.state(sentinel)
            if any(state.get(name) != value for name, value in expected.items()):
                return False
            ports.add(state["port"])
            for row in _rows(sentinel.ask("SENTINEL", "REPLICAS", self.name)):
                if row["flags"] != "slave" or row["master-link-status"] != "ok" or row["master-port"] != state["port"]:
                    return False
            others = _rows(sentinel.ask("SENTINEL", "SENTINELS", self.name))
            if any(_DOWN & set(row["flags"].split(",")) for row in others):
                return False
        return len(ports) == 1 and _role(self.master()) == "master"

    def start(self) -> None:
        for server in self.servers:
            server.start()
        for server in self.servers:
            server.wait_ready()
        # A sentinel asks for replicas at once, and then after ten seconds.
        eventually(self._all_follow, "replicas follow the master")
        for sentinel in self.sentinels:
            sentinel.start()
        for sentinel in self.sentinels:
            sentinel.wait_ready()
        self.wait_whole()

    def _all_follow(self) -> bool:
        links = [server.fields("INFO", "replication").get("master_link_status") for server in self.servers[1:]]
        return set(links) == {"up"}

    def _redis(self, number: int) -> ServerProcess:
        name = f"server{number}"
        settings: list[Setting] = [*LEAN, ("replica-announce-ip", self.place(name).hosts[0])]
        if self.security.user:
            settings += [("masteruser", self.security.user)]
        if self.security.password:
            settings += [("masterauth", self.security.password)]
        if number:
            settings += [("replicaof", self.servers[0].host, str(self.servers[0].port))]
        return self._server(name, settings)

    def _sentinel(self, number: int) -> ServerProcess:
        name = f"sentinel{number}"
        master = self.servers[0]
        settings: list[Setting] = [("sentinel", "monitor", self.name, master.host, str(master.port), str(_QUORUM))]
        settings += [("sentinel", setting, self.name, str(value)) for setting, value in self._times.items()]
        settings += [("sentinel", "announce-ip", self.place(name).hosts[0])]
        if self.security.user:
            settings += [("sentinel", "auth-user", self.name, self.security.user)]
        if self.security.password:
            settings += [("sentinel", "auth-pass", self.name, self.security.password)]
        if self.sentinel_password:
            settings += [("requirepass", self.sentinel_password), ("sentinel", "sentinel-pass", self.sentinel_password)]
        return self._server(
            name,
            settings,
            "--sentinel",
            login=Security(password=self.sentinel_password, authority=self.security.authority),
        )


def _role(server: ServerProcess) -> str:
    return server.fields("INFO", "replication").get("role", "")


def _pairs(reply: object) -> dict[str, str]:
    assert isinstance(reply, list)
    words = [word.decode() for word in reply]
    return dict(zip(words[::2], words[1::2], strict=True))


def _rows(reply: object) -> list[dict[str, str]]:
    assert isinstance(reply, list)
    return [_pairs(row) for row in reply]
