"""Publications for a loop, whatever the event loop is."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

from marketfeed_client.inbox import Inbox

__all__ = ["Pause", "Stream"]

Pause: TypeAlias = tuple[Awaitable[None], Callable[[], object]]
"""What is awaited, and what ends that; it may be called more than once."""


class Stream:
    """Publications for an ``async for`` loop. It ends with the loop, when the feed is closed, or by `close`; a final
    error is raised in the loop.
    """

    def __init__(self, inbox: Inbox, leave: Callable[[Inbox], None], pause: Callable[[], Pause]) -> None:
        self._inbox = inbox
        self._leave = leave
        self._pause = pause

    @property
    def dropped(self) -> int:
        """How many were dropped so far, because the loop was too slow."""
        return self._inbox.dropped

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        await self._some()
        return self._inbox.next()

    async def batches(self) -> AsyncIterator[list[Any]]:
        """All that has come since the last time, as lists."""
        try:
            while True:
                try:
                    await self._some()
                except StopAsyncIteration:
                    return
                yield self._inbox.all()
        finally:
            self.close()

    async def _some(self) -> None:
        inbox = self._inbox
        while not len(inbox):
            if inbox.is_over:
                error = inbox.end()
                raise error or StopAsyncIteration
            come, inbox.wake = self._pause()
            await come

    def close(self) -> None:
        """Want it no more."""
        self._leave(self._inbox)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the loop was left; the event loop may be gone as well
            self.close()
