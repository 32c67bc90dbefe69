"""An asyncio loop beside the reactor."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any

from twisted.internet.defer import Deferred

from tests.guard import DEADLINE

__all__ = ["Loop"]


class Loop:
    """An asyncio loop in a thread of its own; what is run there is waited for here."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Deferred[Any]:
        done = Deferred[Any]()

        def tell(future: Future[Any]) -> None:
            error = future.exception()
            answer, value = (done.callback, future.result()) if error is None else (done.errback, error)
            self._reactor.callFromThread(answer, value)

        asyncio.run_coroutine_threadsafe(work, self._loop).add_done_callback(tell)
        return done.addTimeout(DEADLINE, self._reactor)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
