"""Candles in Redis: written whole or not at all, and by one leader only.

1. What a change writes stands in one transaction: the closed candles, those that late trades amend, and where the
   market goes on. So whoever goes on from there has each trade once, however the one before ended.
2. Each change of a market has a number, and so has the leader. A transaction watches both. It gives up where another
   leader is there (`Overtaken`), and does nothing where this change has been written already, which is not known when a
   link is lost.
3. The keys of a market are in one slot. Where servers have slots, each market is a transaction of its own.
4. A server may lose what it had acknowledged: a replica that becomes the master has it not yet. Then the number of the
   last change is not the one before this, and the leader goes on from what there is (`Overtaken`).
5. Transactions have a link to each server to themselves, and come one after the other on it: what one watches is no
   other's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, DeferredLock

from marketfeed.model.candle import Candle
from marketfeed.model.candle_store import CandleKeys, Row, rows_in
from marketfeed.model.statistics import DAY_MS, MINUTE_MS
from marketfeed.redis.commands import CommandFault, CommandRefused, OutOfReach, RedisCommands
from marketfeed.redis.routed_commands import RoutedCommands
from marketfeed.redis.topology import is_elsewhere
from marketfeed.runtime.logs import Log

__all__ = ["CandleStore", "Change", "Overtaken", "Stored"]

_LEADER, _TURN, _POSITION, _CANDLES = b"leader", b"turn", b"position", b"candles"
_ANOTHER = "another one has taken over"
_AHEAD_MS = 3_600_000
"""How far a minute may be ahead of now that is kept: clocks may have been set back since."""
_AT_ONCE = 20
"""Markets in one transaction."""


class Overtaken(Exception):
    """What this leader knows is not what Redis has any more; the message says why. It is to be loaded anew."""


class Stored(msgspec.Struct, frozen=True):
    """A market as it was written. `turn`: of its last change; `position`: in its stream, b"" where there is none;
    `parts`: all else that changes had, by name; `left_out`: entries that are no minutes, or a minute once more.
    """

    turn: int
    position: bytes
    candles: bytes | None
    parts: Mapping[bytes, bytes]
    minutes: list[Row]
    left_out: int = 0


class Change(msgspec.Struct, frozen=True, eq=False):
    """What is to be written of a market: closed candles, what late trades came to, and where it goes on.

    `parts`: what has changed of all else, by name; the names in `gone` are to be forgotten.
    """

    market: str
    turn: int
    position: bytes
    candles: bytes
    parts: Mapping[bytes, bytes]
    gone: Sequence[bytes]
    closed: Sequence[tuple[str, Candle]]
    late: Mapping[tuple[str, int], Candle]


class CandleStore:
    """Reads and writes for the leader of this `number`. `transactions`: nobody else's; `keep`: candles, by interval."""

    log = Log()

    def __init__(
        self, transactions: RoutedCommands, keys: CandleKeys, keep: Mapping[str, int], *, has_slots: bool
    ) -> None:
        self._transactions = transactions
        self._keys = keys
        self._keep = keep
        self._has_slots = has_slots
        self._locks: dict[RedisCommands, DeferredLock] = {}
        self.number = 0

    async def lead(self) -> None:
        """Be a leader, with a number of one's own. Raises `CommandFault`."""
        key = self._keys.leader.encode()
        self.number = await self._transactions.ask_for(key, "INCR", key)

    async def load(self, market: str, since: int) -> Stored:
        """Take a market over. `since`: where the minutes of the last 24 hours begin. What is of no minute, or far ahead
        of these, is left out.

        Raises `Overtaken` and `CommandFault`.
        """
        key = self._keys.state(market).encode()
        minutes = self._keys.candles(market, "1m").encode()
        commands, lock = self._server(key)
        async with lock:
            watched = commands.ask("WATCH", key)
            asked = commands.ask("HGETALL", key)
            scores = commands.ask("ZRANGEBYSCORE", minutes, since, "+inf", "WITHSCORES")
            _, found, kept = await self._all([watched, asked, scores])
            parts = dict(zip(found[::2], found[1::2], strict=True))
            leader, turn = (self._number(market, parts.pop(name, None)) for name in (_LEADER, _TURN))
            position, candles = parts.pop(_POSITION, b""), parts.pop(_CANDLES, None)
            if leader > self.number:
                await commands.ask("UNWATCH")
                raise Overtaken(_ANOTHER)
            written = [("HSET", key, _LEADER, self.number)]
            await self._execute(commands, written)
        until = since + DAY_MS + _AHEAD_MS
        rows = [row for row in rows_in(kept) if row.open_time < until and row.open_time % MINUTE_MS == 0]
        return Stored(turn, position, candles, parts, rows, len(kept) // 2 - len(rows))

    def _number(self, market: str, written: bytes | None) -> int:
        """What a leader has written; what is no number counts as nothing, so that it is written anew."""
        try:
            return int(written or 0)
        except ValueError:
            self.log.error("candles: a number in the state of {market} is none, and counts as 0", market=market)
            return 0

    @property
    def most(self) -> int:
        """So many markets may be in one transaction."""
        return 1 if self._has_slots else _AT_ONCE

    async def write(self, changes: Sequence[Change]) -> None:
        """Write all of them, `most` at most, or none. Raises `Overtaken` and `CommandFault`."""
        keys = [self._keys.state(change.market).encode() for change in changes]
        commands, lock = self._server(keys[0])
        async with lock:
            asked = [commands.ask("WATCH", *keys)]
            asked += [commands.ask("HMGET", key, _LEADER, _TURN) for key in keys]
            late = [(change, key) for change in changes for key in change.late]
            asked += [self._ask_for_row(commands, change.market, *key) for change, key in late]
            _, *found = await self._all(asked)
            states, rows = found[: len(keys)], found[len(keys) :]
            fault = ""
            new = set()
            for change, (leader, turn) in zip(changes, states, strict=True):
                if self._number(change.market, leader) > self.number:
                    fault = fault or _ANOTHER
                elif (written := self._number(change.market, turn)) == change.turn - 1:
                    new.add(change.market)
                elif written != change.turn:
                    fault = f"Redis has lost what it had taken of {change.market}"
            if fault:
                await commands.ask("UNWATCH")
                raise Overtaken(fault)
            kept = {(change.market, *key): rows_in(row) for (change, key), row in zip(late, rows, strict=True)}
            words = [each for change in changes if change.market in new for each in self._words(change, kept)]
            await self._execute(commands, words)

    def _ask_for_row(self, commands: RedisCommands, market: str, interval: str, start: int) -> Deferred[Any]:
        return commands.ask("ZRANGEBYSCORE", self._keys.candles(market, interval), start, start, "WITHSCORES")

    def _words(self, change: Change, kept: Mapping[tuple[str, str, int], list[Row]]) -> Iterable[tuple[Any, ...]]:
        """The commands of one change."""
        market = change.market
        rows = {}
        closed: Counter[str] = Counter()
        for interval, candle in reversed(change.closed):
            closed[interval] += 1
            if closed[interval] <= self._keep[interval]:  # others would be taken away at once
                rows[interval, candle.start] = candle.row()
        for key, candle in change.late.items():
            before = rows.get(key) or next(iter(kept[market, *key]), None)
            rows[key] = candle.row() if before is None else candle.amended(before)
        for (interval, start), row in rows.items():
            name = self._keys.candles(market, interval)
            yield "ZREMRANGEBYSCORE", name, start, start
            yield "ZADD", name, start, row.to_bytes()
        for interval in {interval for interval, _ in rows}:
            yield "ZREMRANGEBYRANK", self._keys.candles(market, interval), 0, -1 - self._keep[interval]
        fields = [_LEADER, self.number, _TURN, change.turn, _POSITION, change.position, _CANDLES, change.candles]
        fields += [word for part in change.parts.items() for word in part]
        yield "HSET", self._keys.state(market), *fields
        if change.gone:
            yield "HDEL", self._keys.state(market), *change.gone

    async def _execute(self, commands: RedisCommands, words: Iterable[tuple[Any, ...]]) -> None:
        """All of it, or nothing: then `Overtaken`, or what the server says."""
        asked = [commands.ask("MULTI"), *[commands.ask(*each) for each in words], commands.ask("EXEC")]
        done = (await self._all(asked))[-1]
        if done is None:
            raise Overtaken(_ANOTHER)
        for reply in done:
            if isinstance(reply, Exception):
                raise CommandRefused(str(reply))

    def _server(self, key: bytes) -> tuple[RedisCommands, DeferredLock]:
        node = self._transactions.topology.node_for(key)
        if node is None:
            raise OutOfReach("no server has this key at the moment")
        commands = self._transactions.at(node)
        return commands, self._locks.setdefault(commands, DeferredLock())

    async def _all(self, asked: Sequence[Deferred[Any]]) -> list[Any]:
        """All replies. Raises the first fault, when all have come."""
        fault: CommandFault | None = None
        replies = []
        for each in asked:
            try:
                replies.append(await each)
            except CommandFault as refusal:
                fault = fault or refusal
        if fault is None:
            return replies
        if isinstance(fault, CommandRefused) and (
            is_elsewhere(str(fault)) or str(fault).startswith(("ASK ", "EXECABORT"))
        ):
            self._transactions.topology.doubt(str(fault))
            raise OutOfReach(str(fault))
        raise fault
