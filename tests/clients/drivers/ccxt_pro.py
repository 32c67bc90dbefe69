"""ccxt pro's binance: its markets, the first answer of everything that it watches, and what it fetches."""

import ccxt.pro


async def drive(address, options, tell):
    exchange = ccxt.pro.binance({"options": {"fetchMarkets": {"types": ["spot"]}}})
    exchange.urls["api"]["public"] = f"http://{address}/api/v3"
    exchange.urls["api"]["ws"]["spot"] = f"ws://{address}/ws"
    try:
        if "last" in options:
            await watch_book(exchange, options["symbol"], options["last"], tell)
        else:
            await watch_all(exchange, options["symbol"], tell)
    finally:
        await exchange.close()


async def watch_all(exchange, symbol, tell):
    tell("markets", await exchange.load_markets())
    tell("trades", await exchange.watch_trades(symbol))
    tell("book", await exchange.watch_order_book(symbol))
    tell("ticker", await exchange.watch_ticker(symbol))
    tell("wholeTicker", await exchange.watch_ticker(symbol, {"name": "ticker"}))
    tell("tickers", await exchange.watch_tickers())
    tell("candles", await exchange.watch_ohlcv(symbol, "1m"))
    tell("tops", await exchange.watch_bids_asks([symbol]))
    tell("fetchedCandles", await exchange.fetch_ohlcv(symbol, "1m"))
    tell("candlesSince", await exchange.fetch_ohlcv(symbol, "1m", since=0, limit=2))
    tell("fetchedTrades", await exchange.fetch_trades(symbol))
    tell("recentTrades", await exchange.fetch_trades(symbol, params={"fetchTradesMethod": "publicGetTrades"}))
    tell("fetchedTicker", await exchange.fetch_ticker(symbol))
    tell("fetchedTickers", await exchange.fetch_tickers([symbol]))
    tell("fetchedTops", await exchange.fetch_bids_asks([symbol]))
    tell("time", await exchange.fetch_time())
    await exchange.un_watch_trades(symbol)


async def watch_book(exchange, symbol, last, tell):
    """Until the engine's last update is in the book."""
    book = await exchange.watch_order_book(symbol)
    tell("begun")
    while book["bids"][-1][0] != last:
        book = await exchange.watch_order_book(symbol)
    tell("book", {"bids": book["bids"], "asks": book["asks"]})
