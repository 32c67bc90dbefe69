"""How many messages a second the Python client takes on one core, beside other people's clients.

    python -m benchmarks.python_client [ROUNDS]

1. All do the same: they connect to one server, a process of its own, which sends as fast as is read, take so many
   trades of one stream, the same bytes for each, and have each as a dict.
2. Each is a process of its own, in the virtualenv that `make env-clients` sets up for it; one that is not there is
   left out. They come in turn, ROUNDS times, 5 if it is not said, and what is shown is the median.
3. What counts is the client's own time on the processor, on all its threads, from before it connects.
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode

_COUNT = 100_000
_ROUNDS = 5
_PART = 65_536
_SECONDS = 900
_ROOT = Path(__file__).parent.parent
_DRIVERS = Path(__file__).parent / "python_clients"


class _Client(NamedTuple):
    """One way to take messages. `environment`: the virtualenv; `words`: a driver of `python_clients/` and what it gets
    besides the address and the count.
    """

    name: str
    environment: str
    words: tuple[str, ...]

    @property
    def python(self) -> Path:
        return _ROOT / self.environment / "bin" / "python"

    def measure(self, port: int) -> float:
        """Messages for each second on the processor."""
        driver, *more = self.words
        command = [str(self.python), str(_DRIVERS / f"{driver}.py"), f"127.0.0.1:{port}", str(_COUNT), *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
        if done.returncode:
            sys.exit(f"{self.name} failed:\n{done.stdout}{done.stderr}")
        return _COUNT / float(json.loads(done.stdout)["processor"])


_CLIENTS = (
    _Client("marketfeed-client, in batches", "env", ("ours", "batches")),
    _Client("marketfeed-client, one by one", "env", ("ours", "single")),
    _Client("marketfeed-client, a handler", "env", ("ours", "handler")),
    _Client("python-binance", "env/clients/python-binance", ("python_binance",)),
    _Client("unicorn-binance-websocket-api", "env/clients/unicorn-binance-websocket-api", ("unicorn",)),
)
_BASE = "python-binance"
"""What the others are compared with, if it is there."""


def _flood(ports: Any) -> None:
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # clients go without a word
    asyncio.run(_serve(ports))


async def _serve(ports: Any) -> None:
    flood = b"".join(_trade(number) for number in range(_COUNT))

    async def pour(socket: ServerConnection) -> None:
        for start in range(0, len(flood), _PART):
            socket.transport.write(flood[start : start + _PART])
            await socket.drain()

    async def answer(socket: ServerConnection) -> None:
        assert socket.request is not None
        path = socket.request.path
        is_ours = path.partition("?")[0] == "/"
        is_poured = "@" in path  # a stream in the address is subscribed from the beginning
        if is_poured:
            await pour(socket)
        async for text in socket:
            request = json.loads(text)
            reply: dict[str, Any] = {"id": request["id"], "result": None}
            if is_ours:
                reply = {"stream": "!reply", "data": {"e": "reply", **reply}}
            await socket.send(json.dumps(reply))
            if request["method"] == "SUBSCRIBE" and not is_poured:
                is_poured = True
                await pour(socket)

    async with serve(answer, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        ports.put(next(iter(server.sockets)).getsockname()[1])
        await asyncio.get_running_loop().create_future()


def _trade(number: int) -> bytes:
    data = {"e": "trade", "E": 1790000000000, "s": "A", "t": number, "p": "1000.50", "q": "10", "T": 1790000000000}
    message = {"stream": "a@trade", "data": {**data, "m": False, "M": True}, "offset": f"x-{number}"}
    text = json.dumps(message, separators=(",", ":"))
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


def main(rounds: int = _ROUNDS) -> None:
    """All in turn, and a table of the medians."""
    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    server = context.Process(target=_flood, args=(ports,), daemon=True)
    server.start()
    port = ports.get()
    there = [client for client in _CLIENTS if client.python.exists()]
    rates: dict[str, list[float]] = {client.name: [] for client in there}
    for _ in range(rounds):
        for client in there:
            rates[client.name].append(client.measure(port))
    server.terminate()
    medians = {name: statistics.median(found) for name, found in rates.items()}
    base = medians.get(_BASE)
    print("| client | messages a second on a core | lowest to highest | times python-binance |\n|---|---|---|---|")  # noqa: T201
    for name, rate in medians.items():
        found = rates[name]
        ratio = f"{rate / base:.1f}" if base else "?"
        print(f"| {name} | {rate:,.0f} | {min(found):,.0f} to {max(found):,.0f} | {ratio} |")  # noqa: T201


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
