"""A load test: open the clients, publish or only watch, count, and say what was found.

1. One thread, which waits in one place. Nothing is published before every client has its streams confirmed, but in a
   storm: then the clients come as it is published, and the opening is over when each has had something.
2. A closed loop keeps so many messages in flight; a paced one publishes by the clock, and catches up when it is late.
   A paced message tells the time at which it was due, so that a delay of ours is seen, and not left out with what
   would have been sent meanwhile.
3. Latencies are of all that is published while it is measured, however late it arrives; throughput is what arrives.
4. An interruption ends the measuring, not the counting: what is on its way is waited for, unless interrupted again.
"""

from __future__ import annotations

import gc
import math
import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from marketfeed.commands.bench.client import ClientFault, meet
from marketfeed.commands.bench.crowd import Crowd
from marketfeed.commands.bench.engine import NumberedEngine
from marketfeed.commands.bench.machine import resident_kib, usage_of
from marketfeed.commands.bench.plan import Plan
from marketfeed.commands.bench.report import Report
from marketfeed.commands.bench.result import Course, Sample, make_report
from marketfeed.commands.bench.tally import ANY
from marketfeed.commands.redis_link import RedisLink
from marketfeed.runtime.file_limit import RESERVED_FILES, raise_file_limit

__all__ = ["LoadTest", "Patience"]

_AT_ONCE = 128  # clients that are connecting
_AT_ONCE_IN_STORM = 500  # fewer than a server lets wait for their requests
_PATIENCE = 10.0
"""Seconds without any progress after which clients that connect are given up."""
_GRACE = 3.0
"""Seconds without any progress after which what has not arrived is lost."""
_REST = 1.0
"""Seconds of rest before the memory of the connected clients is looked at."""
_SLOW_SECONDS = 10.0
"""After this long, slow clients who still get something are taken for open."""
_SLOW_GRACE = 1.0
"""Seconds without any progress after which they are."""
_BURST = 2000  # messages that are published at once
_TICK = 0.1  # seconds that may pass unseen


class Patience:
    """Runs out when a number has not changed for so many seconds."""

    def __init__(self, clock: Callable[[], float], seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._number: int | None = None
        self._since = 0.0

    def has_run_out(self, number: int) -> bool:
        now = self._clock()
        if number != self._number:
            self._number, self._since = number, now
        return now - self._since > self._seconds


class LoadTest:
    """One load test, run once. Raises `ClientFault` or `RedisFault` when it cannot be done."""

    def __init__(self, plan: Plan, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._plan = plan
        self._clock = clock
        self._epoch = time.time() - clock()  # the clock of times does not jump meanwhile
        self._selector = selectors.DefaultSelector()
        self._patience = Patience(clock, _GRACE)
        self._has_stalled = False
        self._interruptions = 0
        self._engine: NumberedEngine | None = None
        self._crowd: Crowd

    def interrupt(self) -> None:
        """End soon."""
        self._interruptions += 1

    def run(self) -> Report:
        """Do it all; returns what was found."""
        plan = self._plan
        files = raise_file_limit()
        if files < plan.clients + RESERVED_FILES:
            raise ClientFault(f"this system grants {files} open files, too few for {plan.clients} clients")
        with ExitStack() as stack:
            stack.callback(self._selector.close)
            stack.enter_context(_without_collections())
            before = resident_kib(plan.server_pids)
            self._prepare(stack)
            begun = self._sample()
            self._open_all()
            opened = self._sample()
            if plan.server_pids:
                self._flow(_REST, is_publishing=False)
            connected = resident_kib(plan.server_pids)
            first, last = self._measure()
            after = resident_kib(plan.server_pids)
            self._end_slow()
            course = Course(
                begun, opened, first, last, before, connected, after, self._interruptions, self._has_stalled
            )
            return make_report(plan, self._crowd, self._engine, course)

    def _prepare(self, stack: ExitStack) -> None:
        plan = self._plan
        meeting = meet(plan.address, compression=plan.compression, token=plan.token)
        if plan.redis is not None:
            link = RedisLink.connect(plan.redis, plan.redis_tls)
            stack.callback(link.close)
            self._engine = NumberedEngine(link, plan.streams, plan.channel_prefix, plan.levels, plan.payload_bytes)
            self._selector.register(self._engine, selectors.EVENT_READ, self._heard_engine)
        self._crowd = Crowd(
            self._selector,
            meeting,
            plan.streams,
            self._now,
            per_client=plan.per_client,
            slow=plan.slow,
            is_mixed=plan.mixed,
            first_number=ANY if self._engine is None or plan.storm else 1,
            is_storm=plan.storm,
        )
        stack.callback(self._crowd.close)
        if self._engine is not None:
            self._crowd.published = self._engine.published

    def _now(self) -> float:
        return (self._epoch + self._clock()) * 1000

    # The phases.

    def _open_all(self) -> None:
        crowd, clients, is_storm = self._crowd, self._plan.clients, self._plan.storm
        patience, started = Patience(self._clock, _PATIENCE), self._clock()
        at_once = _AT_ONCE_IN_STORM if is_storm else _AT_ONCE
        while (crowd.open < clients or crowd.unserved) and not self._interruptions:
            while (begun := len(crowd.clients)) < clients and begun - crowd.open < at_once:
                crowd.begin()
            self._poll(self._publish(self._engine, started, 0) if is_storm and self._engine is not None else _TICK)
            if patience.has_run_out(crowd.open - len(crowd.unserved)):
                raise ClientFault(
                    f"{self._plan.address.shown}: {crowd.open} of {clients} clients have their streams, "
                    f"and for {_PATIENCE:.0f} s no other"
                )

    def _measure(self) -> tuple[Sample, Sample]:
        plan = self._plan
        if plan.messages is None:
            self._flow(plan.warm_up)
            self._crowd.measure_from(self._now() if self._engine is not None else -math.inf)
        first = self._sample()
        self._flow(plan.seconds if plan.messages is None else math.inf)
        last = self._sample()
        self._drain()
        return first, last if plan.messages is None else self._sample()

    def _flow(self, seconds: float, *, is_publishing: bool = True) -> None:
        """Let things happen for so long, or until all is published."""
        engine = self._engine if is_publishing else None
        started = self._clock()
        already = 0 if engine is None else engine.total
        while not self._interruptions and not self._has_stalled:
            elapsed = self._clock() - started
            if elapsed >= seconds or (engine is not None and engine.total >= (self._plan.messages or math.inf)):
                return
            wait = min(seconds - elapsed, _TICK)
            if engine is not None:
                wait = min(wait, self._publish(engine, started, already))
            self._poll(wait)

    def _end_slow(self) -> None:
        """See what has become of the slow clients: what was sent to them is read now, up to a close if there is one."""
        crowd, patience, started = self._crowd, Patience(self._clock, _SLOW_GRACE), self._clock()
        crowd.listen_to_slow()
        while crowd.slow_open and self._interruptions < 2:
            self._poll(_TICK)
            if patience.has_run_out(crowd.slow_size) or self._clock() - started > _SLOW_SECONDS:
                return

    def _drain(self) -> None:
        """Wait for what is on its way."""
        if self._engine is None:
            return
        while self._interruptions < 2 and (self._crowd.awaited > 0 or self._engine.has_waiting):
            self._poll(_TICK)
            if self._patience.has_run_out(self._crowd.publications):
                return

    # Publishing.

    def _publish(self, engine: NumberedEngine, started: float, already: int) -> float:
        """Publish what is due; returns how long nothing else will be.

        `started`: when this phase began, by the clock; `already`: what had been published by then.
        """
        plan, crowd = self._plan, self._crowd
        if engine.is_behind:
            return _TICK
        wait, time, step = _TICK, self._now(), 0.0
        if plan.rate is not None:
            done = engine.total - already
            elapsed = self._clock() - started
            due = int(elapsed * plan.rate) - done
            wait = max((done + min(due, _BURST) + 1) / plan.rate - elapsed, 0.0)
            step = 1000 / plan.rate
            time = (self._epoch + started) * 1000 + (done + 1) * step
        else:
            audience = max(sum(crowd.subscribers) / len(crowd.subscribers), 1.0)
            due = plan.window - math.ceil(crowd.awaited / audience)
            self._has_stalled = due <= 0 and self._patience.has_run_out(crowd.publications)
        if plan.messages is not None:
            due = min(due, plan.messages - engine.total)
        if due > 0:
            for stream in engine.publish(min(due, _BURST), time, step):
                crowd.awaited += crowd.subscribers[stream]
            self._wait_for_engine(engine)
        return wait

    def _heard_engine(self) -> None:
        assert self._engine is not None
        self._engine.read_replies()
        if self._engine.has_waiting:
            self._engine.flush()
            self._wait_for_engine(self._engine)

    def _wait_for_engine(self, engine: NumberedEngine) -> None:
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if engine.has_waiting else 0)
        if self._selector.get_key(engine).events != wanted:
            self._selector.modify(engine, wanted, self._heard_engine)

    def _poll(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            key.data()

    def _sample(self) -> Sample:
        published = 0 if self._engine is None else self._engine.total
        usage = usage_of(self._plan.server_pids)
        return Sample(self._clock(), usage, published, self._crowd.publications, self._crowd.size)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Nothing here is left in a cycle, and a collection would be a pause."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
