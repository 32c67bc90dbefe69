"""What a program that uses the Python client wrongly hears, and what is logged."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import msgspec
import pytest
from marketfeed_client import Book, Client, Error, FeedError, Message, Overflow, Reconnecting, Times
from marketfeed_client.inbox import Inbox
from marketfeed_client.session import Envelope
from marketfeed_client.tx import Client as TwistedClient
from twisted.internet.task import Clock
from websockets.asyncio.server import ServerConnection, serve

TRADE = "trade@TATA_INR"
NOT_STARTED = "the feed is not started: use it inside `async with Client"


async def first(feed: Client) -> None:
    await anext(feed.stream(TRADE))


async def first_batch(feed: Client) -> None:
    await anext(feed.messages(TRADE).batches())


async def ready(feed: Client) -> None:
    await feed.ready()


async def history(feed: Client) -> None:
    await feed.history(TRADE)


@pytest.mark.parametrize("use", [first, first_batch, ready, history])
def test_who_waits_for_a_feed_that_was_never_started_hears_of_it(use: Any) -> None:
    with pytest.raises(RuntimeError, match=NOT_STARTED):
        asyncio.run(use(Client("ws://localhost:8080")))
    twisted: Any = use(TwistedClient("ws://localhost:8080", reactor=Clock()))
    with pytest.raises(RuntimeError, match=NOT_STARTED):
        twisted.send(None)


def test_a_feed_that_was_closed_and_never_started_ends_its_loops() -> None:
    async def run() -> list[Any]:
        feed = Client("ws://localhost:8080")
        stream = feed.stream(TRADE)
        await feed.close()
        return [each async for each in stream]

    assert asyncio.run(run()) == []


def test_handlers_are_plain_functions() -> None:
    async def hear(_: Any) -> None: ...

    class Hearer:
        async def __call__(self, _: Any) -> None: ...

    feed = Client("ws://localhost:8080")
    for wrong in (hear, Hearer()):
        for name in (TRADE, "gap", "message"):
            with pytest.raises(TypeError, match=r"handler: expected a plain function, .*async for message in"):
                feed.on(name, wrong)
        with pytest.raises(TypeError, match="handler: expected a plain function"):
            feed.book("TATA_INR").on_change(wrong)
    with pytest.raises(TypeError, match="handler: expected a function"):
        feed.on(TRADE, None)  # type: ignore[arg-type]
    feed.on(TRADE, print)


async def answer(socket: ServerConnection) -> None:
    """A daemon, as far as three trades and three books need it."""
    async for text in socket:
        request = msgspec.json.decode(text)
        reply = {"stream": "!reply", "data": {"e": "reply", "id": request["id"], "result": None}}
        await socket.send(msgspec.json.encode(reply).decode())
        if request["method"] == "SUBSCRIBE":
            for number in (1, 2, 3):
                data: dict[str, Any] = {"e": "trade", "t": number}
                if request["params"] != [TRADE]:
                    data = {"e": "depth", "u": number, "b": [["1.00", "2"]], "a": [], "snapshot": True}
                for stream in request["params"]:
                    await socket.send(msgspec.json.encode({"stream": stream, "data": data}).decode())


@pytest.mark.parametrize("what", ["stream", "book"])
def test_a_handler_that_raises_is_told_once_with_its_traceback_and_then_in_a_line(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Any] = []
    told: list[Error] = []

    async def run() -> None:
        done = asyncio.Event()

        def hear(given: Message | Book) -> None:
            heard.append(given)
            if len(heard) == 3:
                done.set()
            raise KeyError("price")

        async with serve(answer, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with Client(f"ws://127.0.0.1:{port}") as feed:
                feed.on("error", told.append)
                if what == "book":
                    feed.book("TATA_INR").on_change(hear)
                else:
                    feed.on(TRADE, hear)
                await done.wait()

    asyncio.run(run())
    lines = [record for record in caplog.records if record.name == "marketfeed_client"]
    of = "the book of TATA_INR" if what == "book" else TRADE
    text = f"a handler of {of} failed, and the feed goes on: KeyError('price')"
    assert [record.getMessage() for record in lines] == [text] * len(heard)
    assert [bool(record.exc_info) for record in lines] == [True, *[False] * (len(heard) - 1)]
    assert [(error.kind, error.message) for error in told] == [("handler", text)] * len(heard)


def test_where_nobody_listens_is_logged_with_the_next_attempt(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]

    async def run() -> Reconnecting:
        times = Times(backoff_base=60, backoff_most=60)
        async with Client(f"ws://me:secret@127.0.0.1:{port}", times=times, random=lambda: 0.5) as feed:
            async for event in feed.events():
                if isinstance(event, Reconnecting):
                    return event
        raise AssertionError("it ended")

    with caplog.at_level(logging.WARNING, "marketfeed_client"):
        assert asyncio.run(run()).delay == 30_000
    (line,) = [record.getMessage() for record in caplog.records if record.name == "marketfeed_client"]
    assert line.startswith(f"no connection to ws://127.0.0.1:{port}/: ")
    assert line.endswith("; the next attempt comes in 30.0 s")


def test_history_says_what_to_wait_for() -> None:
    async def run() -> None:
        async with Client("ws://127.0.0.1:1") as feed:
            await feed.history(TRADE)

    with pytest.raises(FeedError, match=r"HISTORY needs an open connection: `await feed.ready\(\)` first"):
        asyncio.run(run())


def test_an_overflow_says_how_many_it_stands_for() -> None:
    told: list[Overflow] = []
    inbox = Inbox(TRADE, 2, msgspec.json.decode, told.append, lambda *_: None, whole=True, has_events=True)

    def take(*numbers: int) -> None:
        for number in numbers:
            inbox.take(Envelope(TRADE, msgspec.Raw(b"%d" % number)), False)

    take(1, 2, 3, 4, 5)
    assert told == [Overflow(TRADE, 2, 1)]
    assert inbox.next() == Overflow(TRADE, 2, 3)
    assert [inbox.next().data, inbox.next().data] == [4, 5]
    take(6, 7, 8)
    assert told == [Overflow(TRADE, 2, 1)] * 2
    assert [each.dropped if isinstance(each, Overflow) else each.data for each in inbox.all()] == [1, 7, 8]
