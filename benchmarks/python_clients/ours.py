"""marketfeed-client: `ours.py ADDRESS COUNT HOW`, where HOW is ``batches``, ``single`` or ``handler``."""

import asyncio
import sys

from marketfeed_client import Client
from measured import Measured


async def take_batches(feed, count):
    taken = 0
    async for batch in feed.stream("a@trade", limit=count).batches():
        taken += len(batch)
        if taken == count:
            break


async def take_single(feed, count):
    taken = 0
    async for _ in feed.stream("a@trade", limit=count):
        taken += 1
        if taken == count:
            break


async def take_handler(feed, count):
    taken, done = 0, asyncio.Event()

    def take(message):
        nonlocal taken
        taken += 1
        if taken == count:
            done.set()

    feed.on("a@trade", take)
    await done.wait()


async def main(address, count, how):
    take = {"batches": take_batches, "single": take_single, "handler": take_handler}[how]
    measured = Measured()
    async with Client(f"ws://{address}/") as feed:
        await take(feed, int(count))
        measured.tell()


asyncio.run(main(*sys.argv[1:]))
