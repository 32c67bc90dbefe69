"""Where Redis is, made of its address: who says which server has a key, and on which a channel is heard."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.application.service import IService
from twisted.internet.interfaces import IStreamClientEndpoint

from marketfeed.redis.address import Address, ClusterAddress, RedisAddress, SentinelAddress
from marketfeed.redis.any_node import AnyNode
from marketfeed.redis.cluster import ClusterTopology
from marketfeed.redis.endpoint import redis_endpoints
from marketfeed.redis.sentinel import SentinelTopology
from marketfeed.redis.tls import RedisTls
from marketfeed.redis.topology import Node, OneServer, Topology

__all__ = ["Where", "find_redis"]


class Where(msgspec.Struct, frozen=True):
    """Who says where keys and channels are. `services`: what finds out.

    `has_slots`: servers send elsewhere for keys that they do not have; `is_sharded`: for channels, too.
    """

    keys: Topology
    channels: Topology
    services: tuple[IService, ...] = ()
    has_slots: bool = False
    is_sharded: bool = False

    @classmethod
    def only(cls, address: RedisAddress, endpoint: IStreamClientEndpoint) -> Where:
        """Where one server has all keys and all channels."""
        server = OneServer(Node("redis", address, endpoint))
        return cls(server, server)


def find_redis(reactor: Any, address: Address, tls: RedisTls, *, is_classic: bool = False) -> Where:
    """Where Redis is. `is_classic`: in a cluster, channels are on any node.

    Raises ValueError when a file for TLS cannot be used: one line, which begins with its option.
    """
    endpoint = redis_endpoints(reactor, address, tls)
    if isinstance(address, ClusterAddress):
        cluster = ClusterTopology(reactor, address, endpoint, with_words=is_classic)
        channels: Topology = AnyNode(cluster) if is_classic else cluster
        return Where(cluster, channels, (cluster,), has_slots=True, is_sharded=not is_classic)
    if isinstance(address, SentinelAddress):
        master = SentinelTopology(reactor, address, endpoint)
        return Where(master, master, (master,))
    return Where.only(address, endpoint(address))
