"""A real cluster: three masters and three replicas, made by commands of our own.

1. `node0` to `node2` are masters at first, `node3` to `node5` their replicas in the same order.
2. Methods that say nothing else return when all nodes that answer agree on what has changed.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

import hiredis

from marketfeed.redis.topology import SLOTS, key_slot
from tests.redis_servers.client import ClusterClient, Connection, eventually
from tests.redis_servers.group import LEAN, Group
from tests.redis_servers.network import Network
from tests.redis_servers.process import Security, ServerProcess, Setting

__all__ = ["RedisCluster"]

_MASTERS = 3
_AT_ONCE = 100
_MIGRATE_MS = 5000

_Range = tuple[int, int, ServerProcess]
"""The first and the last slot, and who has them."""


class RedisCluster(Group):
    """The cluster. `node_timeout`: in ms, after which a node that is silent may be replaced."""

    def __init__(
        self,
        directory: Path,
        flavour: str,
        *,
        security: Security = Security(),  # noqa: B008
        node_timeout: int = 1500,
        network: Network | None = None,
        far: Collection[str] = (),
    ) -> None:
        super().__init__(directory, flavour, security, network, far)
        self._node_timeout = node_timeout
        self._ids: dict[ServerProcess, str] = {}
        self._bus_ports: dict[ServerProcess, int] = {}
        self.nodes: list[ServerProcess] = [self._node(number) for number in range(2 * _MASTERS)]

    @property
    def url(self) -> str:
        """What `--redis-url` is told, without user and password."""
        return "redis-cluster://" + ",".join(f"{node.host}:{node.port}" for node in self.nodes)

    @property
    def masters(self) -> list[ServerProcess]:
        """Those that have slots, by the word of the one that knows best."""
        return [node for node in self.nodes if self._has_slots(node)]

    def client(self, timeout: float = 5.0) -> ClusterClient:
        """A client that goes where the cluster sends it. `timeout`: s for which it waits for a node."""
        return ClusterClient([node.address for node in self.nodes], self.access, timeout)

    def owner(self, key: str | bytes) -> ServerProcess:
        """Who has a key, or a channel of sharded pub/sub."""
        return self.owner_of_slot(key_slot(key.encode() if isinstance(key, str) else key))

    def owner_of_slot(self, slot: int) -> ServerProcess:
        """Who has a slot."""
        for first, last, master in self._ranges():
            if first <= slot <= last:
                return master
        raise AssertionError(f"nobody has slot {slot}")

    def key_of(self, node: ServerProcess, prefix: str = "key") -> str:
        """Some key that a node has."""
        ranges = [(first, last) for first, last, master in self._ranges() if master is node]
        keys = (f"{prefix}{number}" for number in range(100 * SLOTS))
        return next(key for key in keys if any(a <= key_slot(key.encode()) <= b for a, b in ranges))

    def replica_of(self, master: ServerProcess) -> ServerProcess:
        """A replica that follows a master."""
        for node in self.nodes:
            if node.answers and node.fields("INFO", "replication").get("master_port") == str(master.port):
                return node
        raise AssertionError(f"{master} has no replica")

    def id_of(self, node: ServerProcess) -> str:
        """What the cluster calls a node."""
        return self._ids[node]

    def bus_port_of(self, node: ServerProcess) -> int:
        """Where the others talk to a node."""
        return self._bus_ports[node]

    def kill(self, node: ServerProcess) -> None:
        """Kill it -9. `wait_served` says when its slots are served again."""
        node.kill()

    def restart(self, node: ServerProcess) -> None:
        """Start it again, as what the others say it is now; all is well then."""
        node.restart()
        self.wait_whole()

    def start_again(self) -> None:
        """Start all that are down, as what they were; all is well then."""
        for node in self.nodes:
            if not node.is_running:
                node.start()
        self.wait_whole()

    def wait_served(self) -> None:
        """Until every slot has a master, by the word of all that answer."""
        eventually(self.is_served, "all slots are served")

    def wait_whole(self) -> None:
        """Until all nodes are there, and agree, and all replicas have what their masters have."""
        try:
            eventually(self.is_whole, "the cluster is whole")
        except AssertionError as error:
            for node in self._answering:
                error.add_note(f"{node} says:\n{node.fields('INFO', 'replication')}\n{node.ask('CLUSTER', 'NODES')!r}")
            raise

    def is_served(self, *by: ServerProcess) -> bool:
        """All slots have a master that answers, by the word of these nodes, or of all that answer, who agree."""
        maps = []
        for node in by or self._answering:
            if node.fields("CLUSTER", "INFO").get("cluster_state") != "ok":
                return False
            maps.append(self._map(node))
        owners = {master for _, _, master in maps[0]}
        return all(each == maps[0] for each in maps) and all(owner.answers for owner in owners)

    def is_whole(self) -> bool:
        """All nodes are there, say so of each other, agree on who has what, and all replicas are connected."""
        maps = set()
        for node in self.nodes:
            with node.connect() as connection:
                state = connection.fields("CLUSTER", "INFO")
                if state["cluster_state"] != "ok" or state["cluster_slots_ok"] != str(SLOTS):
                    return False
                replication = connection.fields("INFO", "replication")
                if replication["role"] == "slave" and replication["master_link_status"] != "up":
                    return False
                if (known := _known(connection)) is None:
                    return False
                maps.add(known)
        return len(maps) == 1

    def failover(self, replica: ServerProcess, how: str = "") -> None:
        """CLUSTER FAILOVER, or `how`: FORCE or TAKEOVER. It is the master then, and the others know."""
        replica.ask("CLUSTER", "FAILOVER", *filter(None, [how]))
        eventually(lambda: self._has_slots(replica), f"{replica} takes over")
        self.wait_served()

    def move_slot(self, slot: int, to: ServerProcess) -> None:
        """Move a slot with all its keys, as it is to be done while the cluster is in use."""
        source = self.owner_of_slot(slot)
        if source is to:
            return
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self._ids[source])
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self._ids[to])
        self.move_keys(slot, source, to)
        others = [node for node in self.masters if node not in (source, to)]
        for node in (to, source, *others):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", self._ids[to])

    def move_keys(self, slot: int, source: ServerProcess, to: ServerProcess) -> None:
        """Move the keys of a slot that is on its way, until none is left."""
        user, password = self.security.user or "default", self.security.password
        login: tuple[str, ...] = ("AUTH2", user, password) if password else ()
        with source.connect(2 * _MIGRATE_MS / 1000) as connection:
            while keys := connection.command("CLUSTER", "GETKEYSINSLOT", slot, _AT_ONCE):
                connection.command("MIGRATE", *to.address, "", 0, _MIGRATE_MS, *login, "KEYS", *keys)

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait_ready()
        bounds = [number * SLOTS // _MASTERS for number in range(_MASTERS + 1)]
        slots = [*pairwise(bounds), *[None] * _MASTERS]
        for number, (node, some) in enumerate(zip(self.nodes, slots, strict=True)):
            with node.connect() as connection:
                self._ids[node] = connection.command("CLUSTER", "MYID").decode()
                connection.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                if some is not None:
                    connection.command("CLUSTER", "ADDSLOTSRANGE", some[0], some[1] - 1)
                for other in self.nodes[:number]:
                    connection.command("CLUSTER", "MEET", other.host, other.port, self._bus_ports[other])
        for master, replica in zip(self.nodes[:_MASTERS], self.nodes[_MASTERS:], strict=True):
            eventually(lambda a=master, b=replica: self._replicates(b, a), f"{replica} follows {master}")
        self.wait_whole()

    def _node(self, number: int) -> ServerProcess:
        name = f"node{number}"
        settings: list[Setting] = [
            *LEAN,
            ("cluster-enabled", "yes"),
            ("cluster-config-file", "nodes.conf"),
            ("cluster-node-timeout", str(self._node_timeout)),
            ("cluster-replica-validity-factor", "0"),
            ("cluster-announce-ip", self.place(name).hosts[0]),
        ]
        if self.security.user:
            settings += [("masteruser", self.security.user)]
        if self.security.password:
            settings += [("masterauth", self.security.password)]
        if self.security.authority is not None:
            settings += [("tls-cluster", "yes")]
        node = self._server(name, settings)
        self._bus_ports[node] = node.reserve()
        node.settings = [*node.settings, ("cluster-port", str(self._bus_ports[node]))]
        return node

    def _replicates(self, replica: ServerProcess, master: ServerProcess) -> bool:
        try:
            return replica.ask("CLUSTER", "REPLICATE", self._ids[master]) == b"OK"
        except hiredis.ReplyError:  # it has not heard of it yet
            return False

    def _has_slots(self, node: ServerProcess) -> bool:
        return any(master is node for _, _, master in self._ranges())

    @property
    def _answering(self) -> list[ServerProcess]:
        return [node for node in self.nodes if node.answers]

    def _ranges(self) -> list[_Range]:
        """Who has which slots, by the word of the one with the highest epoch of those that say that all is served."""
        best: tuple[bool, int] = (False, -1)
        found: list[_Range] = []
        for node in self._answering:
            state = node.fields("CLUSTER", "INFO")
            knows = state.get("cluster_state") == "ok", int(state.get("cluster_current_epoch", -1))
            if knows > best:
                best, found = knows, self._map(node)
        return found

    def _map(self, node: ServerProcess) -> list[_Range]:
        """Who has which slots, by the word of one node, in order."""
        by_address = {node.address: node for node in self.nodes}
        rows = node.ask("CLUSTER", "SLOTS")
        assert isinstance(rows, list)
        return sorted(
            ((first, last, by_address[host.decode(), port]) for first, last, (host, port, *_), *_ in rows),
            key=lambda row: row[0],
        )


def _known(connection: Connection) -> frozenset[tuple[str, ...]] | None:
    """Every node with what it is; None: not all is well, by the word of this one."""
    rows = [line.split() for line in connection.command("CLUSTER", "NODES").decode().splitlines()]
    known = set()
    for name, _, flags, master, _, _, _, link, *slots in rows:
        role = flags.replace("myself,", "")
        if role not in ("master", "slave") or link != "connected":
            return None
        known.add((name, role, master, *slots))
    return frozenset(known) if len(rows) == 2 * _MASTERS else None
