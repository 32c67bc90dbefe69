"""How many messages a second the Python client takes on one core, in batches and one by one.

    python -m benchmarks.python_client

A process of its own floods one connection with trades; what is counted is the client's own time on the processor.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import statistics
import time
from typing import Any

from marketfeed_client import Client
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode

_COUNT = 300_000
_ROUNDS = 5
_PART = 65_536


def _flood(ports: Any) -> None:
    asyncio.run(_serve(ports))


async def _serve(ports: Any) -> None:
    flood = b"".join(_trade(number) for number in range(_COUNT))

    async def answer(socket: ServerConnection) -> None:
        async for text in socket:
            request = json.loads(text)
            reply = {"stream": "!reply", "data": {"e": "reply", "id": request["id"], "result": None}}
            await socket.send(json.dumps(reply))
            if request["method"] == "SUBSCRIBE":
                for start in range(0, len(flood), _PART):
                    socket.transport.write(flood[start : start + _PART])
                    await socket.drain()

    async with serve(answer, "127.0.0.1", 0, compression=None) as server:
        ports.put(next(iter(server.sockets)).getsockname()[1])
        await asyncio.get_running_loop().create_future()


def _trade(number: int) -> bytes:
    data = {"e": "trade", "t": number, "m": False, "p": "1000.50", "q": "10", "s": "A", "E": 1790000000000}
    text = json.dumps({"stream": "trade@A", "data": data, "offset": f"x-{number}"}, separators=(",", ":"))
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


async def _measure(port: int, in_batches: bool) -> float:
    """Messages for each second on the processor."""
    async with Client(f"ws://127.0.0.1:{port}") as feed:
        trades = feed.stream("trade@A", limit=_COUNT)
        count, begin = 0, time.process_time()
        if in_batches:
            async for batch in trades.batches():
                count += len(batch)
                if count == _COUNT:
                    break
        else:
            async for _ in trades:
                count += 1
                if count == _COUNT:
                    break
        return count / (time.process_time() - begin)


def main() -> None:
    """Both in turn, and the median of each."""
    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    server = context.Process(target=_flood, args=(ports,), daemon=True)
    server.start()
    port = ports.get()
    rates: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(_ROUNDS):
        for in_batches, found in rates.items():
            found.append(asyncio.run(_measure(port, in_batches)))
    server.terminate()
    for in_batches, found in rates.items():
        print(f"{'in batches' if in_batches else 'one by one'}: {statistics.median(found):,.0f} messages a second")  # noqa: T201


if __name__ == "__main__":
    main()
