"""What candles cost: the service, and the Redis-compatible server with it, while trades of many markets come.

    python -m benchmarks.candles [--markets 1000] [--rate 5000] [--seconds 60] [--source streams]

The candles of a minute of all markets are published, and the statistics of all together, as for a daemon with clients
of everything. The ids of trades count up over all markets, as those of many engines do. A minute passes at least once:
most is written then.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from benchmarks.processes import Cores, Stage
from benchmarks.redis_cost import Connected, used_by_redis
from marketfeed.model.candle_store import CandleKeys

_PIECES = 100
"""In a second, of trades that are sent together."""
_SETTLE_SECONDS = 10.0
_KEYS = CandleKeys("")


def measure(stage: Stage, source: str, markets: int, rate: int, seconds: float) -> str:
    """One line. Raises `processes.Failed`."""
    with stage.redis(), Connected(stage.redis_path) as redis, stage.candles("--source", source) as pid:
        engine = _Engine(redis, source, markets, rate)
        engine.run(_SETTLE_SECONDS)
        before, used, began = _cpu(pid), used_by_redis(redis.socket), time.monotonic()
        engine.run(seconds)
        took = time.monotonic() - began
        service, server = (_cpu(pid) - before) / took, (used_by_redis(redis.socket) - used) / took
        time.sleep(_SETTLE_SECONDS)
        tickers = redis.ask("HVALS", _KEYS.tickers)
        counted = sum(msgspec.json.decode(ticker)["n"] for ticker in tickers)
        memory = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        assert memory is not None
        return (
            f"{source}: {markets} markets, {engine.sent / (took + _SETTLE_SECONDS):.0f} trades/s: "
            f"service {service:.2f} of a core, Redis {server:.2f}; {counted} of {engine.sent} counted, "
            f"{int(memory[1]) / 1024:.0f} MiB"
        )


class _Engine:
    """Publishes trades, at a steady rate."""

    def __init__(self, redis: Connected, source: str, markets: int, rate: int) -> None:
        self._redis = redis
        self._head = ("XADD",) if source == "streams" else ("PUBLISH",)
        self._fields = ("MAXLEN", "~", "1000", "*", "d") if source == "streams" else ()
        self._markets = [f"M{number:04}_INR" for number in range(markets)]
        self._rate = rate
        self._chance = random.Random(1)
        self._wanted_at = 0.0
        self.sent = 0

    def run(self, seconds: float) -> None:
        """Publish for so long."""
        begin = time.monotonic()
        for piece in range(int(seconds * _PIECES)):
            self._want()
            trades = [self._trade() for _ in range(self._rate // _PIECES)]
            self._redis.send(trades)
            time.sleep(max(0.0, begin + (piece + 1) / _PIECES - time.monotonic()))

    def _trade(self) -> tuple[str, ...]:
        self.sent += 1
        market = self._chance.choice(self._markets)
        price = 10_000 + self._chance.randrange(-500, 500)
        data = (
            f'{{"e":"trade","E":{time.time() * 1000:.0f},"s":"{market}","t":{self.sent},"p":"{price / 100:.2f}",'
            f'"q":"{self._chance.randrange(1, 10**6) / 1000:.3f}","T":{time.time() * 1000:.0f},"m":false}}'
        )
        return (*self._head, f"trade@{market}", *self._fields, data)

    def _want(self) -> None:
        """As daemons do."""
        if time.monotonic() < self._wanted_at:
            return
        self._wanted_at = time.monotonic() + 5
        now = str(int(time.time()))
        names = [f"kline_1m@{market}" for market in self._markets]
        self._redis.send(
            [("ZADD", _KEYS.wanted, *[word for name in [*names, "!miniTicker@arr"] for word in (now, name)])]
        )


def _cpu(pid: int) -> float:
    """Seconds of a processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.candles", description="Measure what candles cost.")
    parser.add_argument("--markets", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=5000, help="trades a second, of all markets")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--source", choices=("streams", "pubsub"), action="append")
    arguments = parser.parse_args()
    for source in arguments.source or ("streams", "pubsub"):
        with tempfile.TemporaryDirectory() as directory:
            stage = Stage(Path(directory), Cores.found())
            sys.stdout.write(measure(stage, source, arguments.markets, arguments.rate, arguments.seconds) + "\n")


if __name__ == "__main__":
    sys.exit(main())
