"""unicorn-binance-websocket-api: the first message of each stream, as UnicornFy makes it, or as a plain dict."""

import queue

from unicorn_binance_websocket_api import BinanceWebSocketApiManager


def drive(address, options, tell):
    messages = queue.Queue()
    awaited = set(options["awaited"])
    manager = BinanceWebSocketApiManager(
        exchange="binance.com",
        websocket_base_uri=f"ws://{address}/",
        warn_on_update=False,  # it would ask GitHub
        output_default=options["output"],
    )
    manager.create_stream(options["channels"], options["markets"], process_stream_data=messages.put)
    while awaited:
        message = messages.get()
        word = message.get("stream_type") or message.get("stream")
        if word in awaited:
            awaited.remove(word)
            tell(word, message)
    manager.stop_manager()
