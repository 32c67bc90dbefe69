"""python-binance's socket manager: `python_binance.py ADDRESS COUNT`.

As it is, it ends when 100 messages wait, or when a pong is late behind them: both bounds are lifted.
"""

import asyncio
import sys

from binance import AsyncClient, BinanceSocketManager
from measured import Measured


async def main(address, count):
    BinanceSocketManager.STREAM_URL = f"ws://{address}/"
    client = AsyncClient()
    manager = BinanceSocketManager(client, max_queue_size=count)
    manager.ws_kwargs = {"ping_interval": None}
    measured = Measured()
    async with manager.multiplex_socket(["a@trade"]) as socket:
        for _ in range(count):
            message = await socket.recv()
            if "data" not in message:
                sys.exit(f"not a trade: {message}")
        measured.tell()
    await client.close_connection()


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
