"""unicorn-binance-websocket-api: `unicorn.py ADDRESS COUNT`. A function is called with each message, a dict.

As it is, it ends when a pong is late behind many messages: it sends no pings here.
"""

import os
import sys
import threading

from measured import Measured
from unicorn_binance_websocket_api import BinanceWebSocketApiManager

_LONG = 3600


def main(address, count):
    taken, done = 0, threading.Event()

    def take(message):
        nonlocal taken
        if "data" in message:
            taken += 1
            if taken == count:
                done.set()

    measured = Measured()
    manager = BinanceWebSocketApiManager(
        exchange="binance.com",
        websocket_base_uri=f"ws://{address}/",
        warn_on_update=False,  # it would ask GitHub
        output_default="dict",
        ping_interval_default=_LONG,
        ping_timeout_default=_LONG,
    )
    manager.create_stream("trade", "a", process_stream_data=take)
    done.wait()
    measured.tell()
    os._exit(0)  # its threads may take long to end


main(sys.argv[1], int(sys.argv[2]))
