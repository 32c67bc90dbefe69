"""The Python client in a process of its own, for clients/conformance/README.md: commands come in as lines of JSON, and
what the client tells goes out as lines of JSON. Nothing is expected here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec
from marketfeed_client import Book, Client, Error, Event, FeedError, Message, Stream, Times
from marketfeed_client.events import EVENTS

_TIMES = {
    "backoffBase": "backoff_base",
    "backoffMost": "backoff_most",
    "stableAfter": "stable_after",
    "connectTimeout": "connect_timeout",
    "pingInterval": "ping_interval",
    "pingTimeout": "ping_timeout",
}
_ROUNDS = 20  # of the event loop, in which whatever is due at once has been done


async def settled() -> None:
    """What needs no more than the event loop is done."""
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)


class Hand:
    """A clock that is moved by hand, in ms, and chance that is said."""

    def __init__(self, time: float, random: list[float]) -> None:
        self.time = time
        self._random = random

    def now(self) -> float:
        return self.time

    ticks = now

    def chance(self) -> float:
        return self._random.pop(0) if len(self._random) > 1 else self._random[0]


def plain(error: BaseException) -> dict[str, Any]:
    """An error as it is told."""
    if not isinstance(error, FeedError):
        return {"kind": type(error).__name__}
    told = {"kind": error.kind, "final": error.final, "code": error.code, "stream": error.stream}
    return {name: value for name, value in told.items() if value is not None}


class Adapter:
    """One feed, and what it is told to do."""

    def __init__(self) -> None:
        self._feed: Client
        self._hand: Hand | None = None
        self._is_over = False
        self._stops: dict[str, Callable[[], None]] = {}
        self._loops: dict[str, Stream] = {}
        self._books: dict[str, Book] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, event: str, **fields: Any) -> None:
        if not self._is_over:
            print(json.dumps({"event": event, **fields}), flush=True)

    async def do(self, command: dict[str, Any]) -> None:
        """Do it, and write that it is done."""
        word, number = command.pop("do"), command.pop("id")
        to = command.get("to", word)
        try:
            done = getattr(self, f"do_{word}")(**command)
            if isinstance(done, Awaitable):
                await done
        except Exception as error:
            self.tell("thrown", to=to, **plain(error))
        await settled()
        print(json.dumps({"done": number}), flush=True)

    async def do_start(
        self,
        url: str,
        options: dict[str, Any],
        time: float = 0,
        random: list[float] = [0],  # noqa: B006 # read only
        token: Any = None,
        urls: Any = None,
        clock: str = "",
    ) -> None:
        times = {_TIMES[name]: value / 1000 for name, value in options.items() if name in _TIMES}
        given: dict[str, Any] = {"affinity": options.get("affinity"), "times": Times(**times)}
        if clock != "real":
            self._hand = Hand(time, [*random])
            given |= {"clock": self._hand, "random": self._hand.chance}
        where = self._answers("url", [url if each is True else each for each in urls]) if urls else url
        self._feed = Client(where, token=self._answers("token", token) if isinstance(token, list) else token, **given)
        for name in EVENTS:
            if name != "message":
                self._feed.on(name, self._told)
        await self._feed.__aenter__()

    def _told(self, event: Event) -> None:
        if isinstance(event, Error):
            error = FeedError(event.kind, event.message, final=event.final, code=event.code, stream=event.stream)
            self.tell("error", **plain(error))
        else:
            fields = msgspec.to_builtins(event)
            fields.pop("dropped", None)  # which not every client tells
            self.tell(fields.pop("e"), **fields)

    def _answers(self, name: str, answers: list[Any]) -> Callable[[], Awaitable[Any]]:
        """A function that gives one after the other, the last one again and again."""

        async def ask() -> Any:
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            self.tell("asked", **{"for": name})
            if isinstance(answer, dict):
                error = RuntimeError(answer["fails"])
                error.final = answer.get("final", False)  # type: ignore[attr-defined]
                raise error
            return answer

        return ask

    def do_on(self, stream: str, to: str, rewind: int = 0) -> None:
        def hear(message: Message) -> None:
            more = {"offset": message.offset} if message.offset is not None else {}
            self.tell("data", to=to, data=message.data, **more, **({"past": True} if message.past else {}))
            if isinstance(message.data, dict) and message.data.get("fails"):
                raise RuntimeError("as the scenario says")

        self._stops[to] = self._feed.on(stream, hear, rewind=rewind)

    def do_stop(self, to: str) -> None:
        self._stops[to]()

    def do_loop(self, stream: str, to: str, limit: int = 10_000) -> None:
        self._loops[to] = self._feed.stream(stream, limit=limit)
        self.do_take(to)

    def do_take(self, to: str) -> None:
        self._promise(self._take(to))

    async def _take(self, to: str) -> None:
        try:
            self.tell("taken", to=to, data=await anext(self._loops[to]))
        except StopAsyncIteration:
            self.tell("over", to=to)
        except FeedError as error:
            self.tell("thrown", to=to, **plain(error))

    def do_dropped(self, to: str) -> None:
        self.tell("dropped", to=to, count=self._loops[to].dropped)

    def do_leave(self, to: str) -> None:
        self._loops[to].close()

    def do_history(self, stream: str, to: str, limit: int = 100) -> None:
        async def ask() -> Any:
            messages = await self._feed.history(stream, limit=limit)
            return [{"offset": each.offset, "data": each.data} for each in messages]

        self._promise(self._result(to, ask()))

    def do_ready(self, to: str) -> None:
        async def ready() -> bool:
            await self._feed.ready()
            return True

        self._promise(self._result(to, ready()))

    async def _result(self, to: str, asked: Awaitable[Any]) -> None:
        try:
            self.tell("result", to=to, value=await asked)
        except FeedError as error:
            self.tell("thrown", to=to, **plain(error))

    def _promise(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def do_refresh(self, stream: str) -> None:
        self._feed.refresh(stream)

    def do_book(self, market: str, to: str, rate: Any = None) -> None:
        book = self._books[to] = self._feed.book(market, rate=rate)
        book.on_change(lambda _: self.do_look(to))

    def do_look(self, to: str) -> None:
        book = self._books[to]
        self.tell("book", to=to, state=book.state, u=book.last_update_id, bids=book.bids(), asks=book.asks())

    def do_closeBook(self, to: str) -> None:  # as the command is called
        self._books[to].close()

    def do_close(self) -> None:
        self._promise(self._feed.close())

    async def do_advance(self, ms: float) -> None:
        hand = self._hand
        assert hand is not None
        end = hand.time + ms
        await settled()
        core = self._feed._core
        while core.deadline is not None and core.deadline <= end:
            hand.time = max(hand.time, core.deadline)
            self._feed._tick()
            await settled()
        hand.time = end

    def do_mark(self, text: str) -> None:
        self.tell("mark", text=text)

    def do_sync(self) -> None:
        """What has been heard is told."""

    async def do_end(self) -> None:
        self._is_over = True
        for task in list(self._tasks):
            task.cancel()
        if hasattr(self, "_feed"):
            await self._feed.close()


async def main() -> None:
    logging.disable()
    adapter = Adapter()
    reader = asyncio.StreamReader(limit=2**26)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        is_end = command["do"] == "end"
        await adapter.do(command)
        if is_end:
            return


with suppress(KeyboardInterrupt):
    asyncio.run(main())
