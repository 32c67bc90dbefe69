"""The loads over which `benchmarks.scaling` measures how cost grows. Data only.

1. Every axis goes through one middle: 1,000 clients of one trade stream. The rest of it varies one thing at a time.
2. The daemon counts at most one flush in a millisecond, so the loads that the model is fitted to are such that no two
   fall into one: paced by at most 400 messages a second, or closed loops whose flushes take longer than that. Where
   one client gets more than that, the daemon has so little to do that each time it wakes up is a flush.
3. `is_checked`: the model is not fitted to this one. It is what the simulation of one process has to foretell.
"""

from __future__ import annotations

import msgspec

__all__ = ["LOADS", "WORKER_LOADS", "Load"]


class Load(msgspec.Struct, frozen=True):
    """One load. `rate`: messages a second, over all streams; `window`: so many under way instead; neither: only clients
    that are there. `payload`: bytes of a message at least; `levels`: of each side of a book, 0 for trades.
    """

    key: str
    clients: int
    streams: int = 1
    per_client: int = 1
    rate: float | None = None
    window: int | None = None
    payload: int = 0
    levels: int = 0
    seconds: float = 5.0
    is_checked: bool = False

    @property
    def wakes_for_each(self) -> bool:
        """More flushes than the daemon counts, but each after it had nothing to do."""
        return self.rate is not None and self.rate > 400 and self.clients == 1

    @property
    def publishes(self) -> bool:
        return self.rate is not None or self.window is not None

    @property
    def options(self) -> list[str]:
        """Of `marketfeed bench`."""
        options = ["--clients", str(self.clients), "--per-client", str(self.per_client)]
        options += ["--seconds", f"{self.seconds:g}", "--warm-up", "1" if self.publishes else "0", "--json"]
        if not self.publishes:
            names = [f"trade@IDLE-{number}" for number in range(self.streams)]
            return [*options, "--streams", ",".join(names)]
        options += ["--stream-count", str(self.streams), "--payload-bytes", str(self.payload)]
        if self.levels:
            options += ["--depth", str(self.levels)]
        return [*options, *(["--window", str(self.window)] if self.rate is None else ["--rate", f"{self.rate:g}"])]


LOADS = (
    # How many clients one stream has.
    Load("clients-100", 100, rate=200),
    Load("clients-300", 300, rate=100),
    Load("clients-1000", 1000, rate=50),
    Load("clients-3000", 3000, rate=15),
    Load("clients-10000", 10_000, rate=4),
    # How much is published.
    Load("rate-10", 1000, rate=10),
    Load("rate-100", 1000, rate=100),
    Load("window-16", 1000, window=16),
    Load("window-64", 1000, window=64),
    Load("window-64-100", 100, window=64, is_checked=True),
    # How large it is.
    Load("payload-512", 1000, rate=50, payload=512),
    Load("payload-1024", 1000, rate=50, payload=1024),
    Load("payload-4096", 1000, rate=50, payload=4096),
    Load("payload-1024-window-64", 1000, window=64, payload=1024),
    # Over how many streams, of which a client has some.
    Load("streams-200-by-1", 1000, streams=200, per_client=1, rate=400, seconds=8.0),
    Load("streams-200-by-10", 1000, streams=200, per_client=10, rate=400),
    Load("streams-1000-by-50", 1000, streams=1000, per_client=50, rate=400),
    Load("streams-200-by-10-window-1280", 1000, streams=200, per_client=10, window=1280),
    # Few who watch much, so that what a publication costs by itself stands out.
    Load("few-1", 1, rate=400, seconds=10.0),
    Load("few-1-2000", 1, rate=2000, seconds=8.0),
    Load("few-1-8000", 1, rate=8000),
    Load("few-20", 20, streams=1000, per_client=50, window=2000),
    # Order books, which are kept.
    Load("books-20", 20, rate=400, levels=20, seconds=8.0),
    Load("books-1000", 1000, rate=50, levels=20),
    # Clients that are only there: what they cost to let in, to hold, and in memory.
    Load("idle-2000", 2000, seconds=1.0),
    Load("idle-10000", 10_000, seconds=25.0),
    Load("idle-4000-by-10", 4000, streams=500, per_client=10, seconds=1.0),
    Load("idle-2000-by-50", 2000, streams=500, per_client=50, seconds=1.0),
    # What is to be foretold.
    Load("checked-hot-300", 1000, rate=300, is_checked=True),
    Load("checked-hot-3000", 3000, rate=40, is_checked=True),
    Load("checked-closed-32-500", 500, window=32, is_checked=True),
    Load("checked-many-2000", 1000, streams=200, per_client=10, rate=2000, is_checked=True),
    Load("checked-few-20000", 20, streams=1000, per_client=50, rate=20_000, is_checked=True),
    Load("checked-payload-2048", 500, rate=150, payload=2048, is_checked=True),
    # The same, but not even measured before the form of the model was settled.
    Load("fresh-2000-of-20", 2000, streams=20, rate=500, is_checked=True),
    Load("fresh-closed-24-300", 300, window=24, is_checked=True),
    Load("fresh-500-by-20", 500, streams=400, per_client=20, rate=1000, is_checked=True),
    Load("fresh-payload-700", 1500, rate=60, payload=700, is_checked=True),
    Load("fresh-100-by-5", 100, streams=50, per_client=5, rate=3000, is_checked=True),
)

WORKER_LOADS = ("rate-100", "streams-200-by-10", "window-64", "clients-10000", "idle-10000")
"""Those that several workers are measured under, too."""
