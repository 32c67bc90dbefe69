"""python-binance's DepthCacheManager: the book that it has once the engine's last update is in it."""

from binance import AsyncClient, BinanceSocketManager
from binance.ws.depthcache import DepthCacheManager


async def drive(address, options, tell):
    AsyncClient.API_URL = f"http://{address}/api"
    BinanceSocketManager.STREAM_URL = f"ws://{address}/"
    client = await AsyncClient.create()
    sockets = BinanceSocketManager(client, **options["sockets"])
    manager = DepthCacheManager(client, options["symbol"], bm=sockets, limit=5000, conv_type=str, **options["book"])
    async with manager:
        tell("begun")
        bids, last = [], None
        # Behind a book that it takes from REST, it works through older updates once more.
        while last is None or manager._last_update_id < last:
            try:
                book = await manager.recv()
            except KeyError:  # at a message without `u`, as Binance's serverShutdown
                if not options.get("stumbles"):
                    raise
                tell("stumbled")
                continue
            if isinstance(book, dict):  # an error
                assert "Closed" in book["type"], book
                continue  # it connects again by itself
            bids = book.get_bids()
            if bids and bids[-1][0] == options["last"]:
                last = (await client.get_order_book(symbol=options["symbol"]))["lastUpdateId"]
        tell("book", {"bids": bids, "asks": book.get_asks()})
    await client.close_connection()
