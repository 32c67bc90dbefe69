"""binance-connector: the first message of each stream that it is asked for, and what its requests answer."""

import json
import threading

from binance.spot import Spot
from binance.websocket.spot.websocket_stream import SpotWebsocketStreamClient


class Stream:
    """One connection: it tells the first message of each stream, and knows when all have come."""

    def __init__(self, tell, awaited):
        self._tell = tell
        self._awaited = set(awaited)
        self._come = set()
        self.complete = threading.Event()

    def take(self, _, text):
        message = json.loads(text)
        if "id" in message:  # a reply; those to requests of one millisecond have one id
            return
        data = message.get("data", message) if isinstance(message, dict) else message
        word = data["e"] if isinstance(data, dict) else "allMiniTickers"
        if word not in self._come:
            self._come.add(word)
            self._tell(word, message)
        if self._awaited <= self._come:
            self.complete.set()


def drive(address, options, tell):
    symbol = options["symbol"]
    combined(f"ws://{address}", symbol, Stream(tell, options["awaited"]))
    raw(f"ws://{address}", symbol, Stream(lambda word, message: tell(f"raw/{word}", message), ["trade"]))
    requests(Spot(base_url=f"http://{address}"), symbol, tell)


def combined(url, symbol, stream):
    client = SpotWebsocketStreamClient(url, on_message=stream.take, is_combined=True)
    client.trade(symbol)
    client.agg_trade(symbol)
    client.kline(symbol, "1m")
    client.mini_ticker(symbol)
    client.mini_ticker()
    client.ticker(symbol)
    client.book_ticker(symbol)
    client.diff_book_depth(symbol, speed=100)
    client.partial_book_depth(symbol, level=5, speed=100)
    stream.complete.wait()
    client.stop()


def raw(url, symbol, stream):
    client = SpotWebsocketStreamClient(url, on_message=stream.take, time_unit="MILLISECOND")
    client.trade(symbol)
    stream.complete.wait()
    client.list_subscribe()
    client.trade(symbol, action=client.ACTION_UNSUBSCRIBE)
    client.ping()
    client.stop()


def requests(client, symbol, tell):
    tell("ping", client.ping())
    tell("time", client.time())
    tell("exchangeInfo", client.exchange_info())
    tell("exchangeInfoOfOne", client.exchange_info(symbol=symbol))
    tell("exchangeInfoOfSome", client.exchange_info(symbols=[symbol]))
    tell("orderBook", client.depth(symbol, limit=5))
    tell("trades", client.trades(symbol))
    tell("aggTrades", client.agg_trades(symbol))
    tell("klines", client.klines(symbol, "1m"))
    tell("uiKlines", client.ui_klines(symbol, "1m", limit=2))
    tell("ticker24hr", client.ticker_24hr(symbol))
    tell("tickers24hr", client.ticker_24hr(symbols=[symbol], type="MINI"))
    tell("price", client.ticker_price(symbol))
    tell("top", client.book_ticker(symbol))
