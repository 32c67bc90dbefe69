"""Ordinary commands, each sent to the server that has its key.

1. A server that sends elsewhere is followed: the topology hears of it, and the command is sent to whoever has the key
   then. That no server has it, or that they send in circles, is as good as being out of reach: it will pass.
2. While a slot moves, its server may say of a key that it has gone ahead (ASK): then this one command is sent to where
   the key has gone, and the next one to the slot's server again.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from marketfeed.boundaries import Clock
from marketfeed.redis.commands import CommandRefused, OutOfReach, RedisCommands
from marketfeed.redis.per_node import PerNode
from marketfeed.redis.topology import Node, Topology, is_elsewhere

__all__ = ["RoutedCommands"]

_MOST_TURNS = 4


class RoutedCommands(PerNode[RedisCommands]):
    """A link to each node, through which it is asked. `name`: what it is called, behind the node's name."""

    def __init__(self, clock: Clock, topology: Topology, name: str = "commands") -> None:
        def make(node: Node) -> RedisCommands:
            return RedisCommands(clock, node.endpoint, node.address, f"{node.name} {name}", topology.doubt)

        super().__init__(topology, make)

    def ask_for(self, key: bytes, *words: bytes | str | int) -> Deferred[Any]:
        """See `KeyedCommands`."""
        return Deferred.fromCoroutine(self._ask_for(key, words))

    def place_of(self, key: bytes) -> object:
        """See `KeyedCommands`."""
        node = self.topology.node_for(key)
        return None if node is None else (node, self.at(node).links)

    async def _ask_for(self, key: bytes, words: tuple[bytes | str | int, ...]) -> Any:
        fault = "no server has this key at the moment"
        for _ in range(_MOST_TURNS):
            node = self.topology.node_for(key)
            if node is None:
                break
            try:
                return await self.at(node).ask(*words)
            except CommandRefused as refusal:
                fault = str(refusal)
            if fault.startswith("ASK "):
                return await self._ask_where_it_goes(fault, words)
            if not is_elsewhere(fault):
                raise CommandRefused(fault)
            self.topology.doubt(fault)
            if self.topology.node_for(key) is node:
                break
        raise OutOfReach(fault)

    async def _ask_where_it_goes(self, fault: str, words: tuple[bytes | str | int, ...]) -> Any:
        node = self.topology.named_in(fault)
        if node is None:
            raise OutOfReach(fault)
        commands = self.at(node)
        asking = commands.ask("ASKING").addErrback(lambda _: None)  # what follows it has the same fate
        reply = await commands.ask(*words)
        await asking
        return reply
