"""python-binance's socket manager: the first message of each of its sockets, and what its requests answer."""

import asyncio

from binance import AsyncClient, BinanceSocketManager


def sockets_of(manager, symbol):
    yield "trade", manager.trade_socket(symbol)
    yield "aggTrade", manager.aggtrade_socket(symbol)
    yield "kline", manager.kline_socket(symbol)
    yield "miniTicker", manager.symbol_miniticker_socket(symbol)
    yield "allMiniTickers", manager.miniticker_socket()
    yield "ticker", manager.symbol_ticker_socket(symbol)
    yield "bookTicker", manager.symbol_book_ticker_socket(symbol)
    yield "depth", manager.depth_socket(symbol)
    yield "depthTenTimes", manager.depth_socket(symbol, interval=100)
    yield "depth5", manager.depth_socket(symbol, depth="5")
    yield "depth20", manager.depth_socket(symbol, depth="20", interval=100)
    yield "multiplex", manager.multiplex_socket([f"{symbol.lower()}@bookTicker"])


async def drive(address, options, tell):
    async def listen(word, socket):
        async with socket:
            tell(word, await socket.recv())

    AsyncClient.API_URL = f"http://{address}/api"
    BinanceSocketManager.STREAM_URL = f"ws://{address}/"
    symbol = options["symbol"]
    client = await AsyncClient.create()
    sockets = sockets_of(BinanceSocketManager(client), symbol)
    await asyncio.gather(*(listen(word, socket) for word, socket in sockets))
    tell("exchangeInfo", await client.get_exchange_info())
    tell("symbolInfo", await client.get_symbol_info(symbol))
    tell("orderBook", await client.get_order_book(symbol=symbol, limit=5))
    tell("trades", await client.get_recent_trades(symbol=symbol))
    tell("aggTrades", await client.get_aggregate_trades(symbol=symbol))
    tell("aggTradesFrom", [each async for each in client.aggregate_trade_iter(symbol, last_id=1)])
    tell("klines", await client.get_klines(symbol=symbol, interval="1m"))
    tell("historicalKlines", await client.get_historical_klines(symbol, "1m", "1 hour ago UTC"))
    tell("ticker24hr", await client.get_ticker(symbol=symbol))
    tell("price", await client.get_symbol_ticker(symbol=symbol))
    tell("prices", await client.get_all_tickers())
    tell("top", await client.get_orderbook_ticker(symbol=symbol))
    tell("tops", await client.get_orderbook_tickers(symbols=f'["{symbol}"]'))
    await client.close_connection()
