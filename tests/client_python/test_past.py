"""Past candles and trades without an event loop: a server that is asked by plain functions."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from marketfeed_client import Candle, FeedError, Market, Trade
from marketfeed_client.past import klines, markets, trades

CANDLE = ("1.00", "2.00", "0.50", "1.50", "10")
LAST = 2500


class Server(BaseHTTPRequestHandler):
    """Has a candle for each moment from 0 to `LAST`, and a trade; what it was asked is in `asked`."""

    asked: list[dict[str, Any]]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        if not url.path.startswith("/api/v3/"):
            self.send_response(404)
            self.end_headers()
            return
        self.asked.append({"path": url.path, "token": self.headers["Authorization"], **query})
        if url.path.endswith("exchangeInfo"):
            market = {"symbol": "TATA_INR", "baseAsset": "TATA", "quoteAsset": "INR", "filters": []}
            self._answer(200, {"symbols": [market]})
        elif query["symbol"] == "NONE":
            self._answer(400, {"code": -1121, "msg": "Invalid symbol."})
        elif url.path.endswith("klines"):
            last = min(int(query.get("endTime", LAST)), LAST)
            moments = range(last + 1)[-int(query["limit"]) :]
            self._answer(200, [[each, *CANDLE, each, "15", 1, "5", "7", "0"] for each in moments])
        else:
            first = int(query["fromId"])
            self._answer(200, [{"a": first, "p": "1.50", "q": "2", "T": 5, "m": False}])

    def _answer(self, status: int, body: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Server.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_candles_come_in_as_many_pages_as_it_takes(url: str) -> None:
    found = klines(url, "A", "1m", limit=2100, token="abc")
    assert [each.open_time for each in found] == list(range(401, LAST + 1))
    assert found[0] == Candle(401, *CANDLE, 401, "15", 1, "5", "7")
    assert len(Server.asked) == 3
    assert {each["token"] for each in Server.asked} == {"Bearer abc"}
    assert len({each["affinity"] for each in Server.asked}) == 1


def test_trades_are_asked_for_alike(url: str) -> None:
    assert trades(url, "A", from_id=7) == [Trade(7, "1.50", "2", 5, False)]
    assert Server.asked[0]["token"] is None


def test_what_is_refused_is_raised(url: str) -> None:
    with pytest.raises(FeedError, match=r"Invalid symbol\.") as raised:
        klines(url, "NONE", "1m")
    assert (raised.value.kind, raised.value.code, raised.value.final) == ("refused", -1121, True)


def test_markets_are_listed(url: str) -> None:
    assert markets(url, token="abc") == [Market("TATA_INR", "TATA", "INR")]
    assert Server.asked[0]["token"] == "Bearer abc"


def test_where_nobody_answers_is_said(url: str) -> None:
    with pytest.raises(
        FeedError, match=rf"^klines: {url}/stream/api/v3/klines answers 404; expected the address"
    ) as raised:
        klines(f"{url}/stream", "A", "1m")
    assert (raised.value.kind, raised.value.final) == ("refused", True)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        closed = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    with pytest.raises(FeedError, match=f"^klines: no answer from {closed}/api/v3/klines: .*refused") as raised:
        klines(closed, "A", "1m")
    assert (raised.value.kind, raised.value.final) == ("not-open", False)


def test_what_cannot_be_asked_is_said_at_once() -> None:
    with pytest.raises(TypeError, match=r"url: expected an address .*ws://, wss://, http:// or https://"):
        klines("localhost:8080", "A", "1m")
    with pytest.raises(TypeError, match="market: expected a market"):
        klines("http://localhost:8080", "trade@A", "1m")
