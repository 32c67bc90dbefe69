"""The last 24 hours of all markets: kept in Redis for those who ask, and published for those who want them.

1. They are told of a market when it has changed, and of all once a minute, for time takes trades away. What is told
   is kept already: who asks for it finds it. While it cannot be kept, nothing is told, and then all.
2. Who begins to want them gets what they are now.
3. The stream about all markets has what has changed since it was last published, in parts of a bounded size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from marketfeed.candles.demand import ALL_MARKETS, Demand
from marketfeed.candles.klines import Publication
from marketfeed.candles.market import Market
from marketfeed.model.candle_store import CandleKeys
from marketfeed.model.kinds.mini_ticker import MINI_TICKER
from marketfeed.model.statistics import MINUTE_MS
from marketfeed.redis.commands import KeyedCommands

__all__ = ["Days"]

_ARRAY_BYTES = 65_536
_FIELDS = 200
"""Of a hash, written at once."""


class Days:
    """What is told of them. `publish`: takes publications, in order."""

    def __init__(
        self, commands: KeyedCommands, keys: CandleKeys, publish: Callable[[Sequence[Publication]], None]
    ) -> None:
        self._commands = commands
        self._key = keys.tickers
        self._publish = publish
        self._changed: dict[str, bytes] = {}  # since all were last published together
        self._minute = 0
        self._tried = 0  # the second in which that was last tried
        self._is_behind = False  # it was not kept

    def forget(self) -> None:
        """Another one tells of them from now on."""
        self._changed = {}
        self._minute, self._is_behind = 0, False

    async def tell(self, now: int, changed: Iterable[Market], markets: Iterable[Market], demand: Demand) -> None:
        """Tell of the markets that have changed, or of all `markets` in a new minute. Raises `CommandFault`."""
        again, second, minute = self._is_behind, now // 1000, now // MINUTE_MS
        if again and second == self._tried:
            return
        self._tried, self._is_behind = second, True
        fields: list[bytes | str] = []
        minis: list[tuple[str, bytes | None]] = []
        for market in markets if again or minute != self._minute else changed:
            found = market.ticker(now, again=again)
            if found is not None:
                fields += [market.name, found[0]]
                minis.append((market.name, found[1]))
        for at in range(0, len(fields), 2 * _FIELDS):
            await self._commands.ask_for(self._key.encode(), "HSET", self._key, *fields[at : at + 2 * _FIELDS])
        self._minute, self._is_behind = minute, False
        self._publish([told for name, mini in minis for told in self._told(name, mini, demand.days)])

    def tell_anew(self, now: int, markets: Mapping[str, Market], before: Demand, demand: Demand) -> None:
        """Tell those who want something that nobody has wanted before."""
        new = demand.days - before.days
        publications: list[Publication] = []
        for name in markets if demand.all_days and not before.all_days else new & markets.keys():
            found = markets[name].ticker(now, again=True)
            if found is not None:
                publications += self._told(name, found[1], new)
        self._publish(publications)

    def _told(self, name: str, mini: bytes | None, wanted: frozenset[str]) -> list[Publication]:
        if mini is None:
            return []
        self._changed[name] = mini
        return [(f"{MINI_TICKER.name}@{name}", mini)] if name in wanted else []

    def tell_together(self, demand: Demand) -> None:
        """Publish what has changed, of all markets."""
        changed, self._changed = self._changed, {}
        if not demand.all_days:
            return
        parts: list[list[bytes]] = []
        size = _ARRAY_BYTES
        for mini in changed.values():
            if size + len(mini) + 1 > _ARRAY_BYTES:
                parts.append([])
                size = len("[]")
            parts[-1].append(mini)
            size += len(mini) + 1
        self._publish([(ALL_MARKETS, b"[" + b",".join(part) + b"]") for part in parts])
