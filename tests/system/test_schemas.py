"""What the demo sends, on each path and in plain HTTP, is as docs/asyncapi.yaml and docs/openapi.yaml say."""

from __future__ import annotations

import pytest
import pytest_twisted

from schemas.structs import ANSWERS
from tests.schemas.contract import KINDS, channel_of, fault_of_answer, fault_of_message
from tests.system.harness import Harness

STREAMS = (
    "trade",
    "depth",
    "ticker",
    "aggTrade",
    "bookTicker",
    "depth5",
    "depth10",
    "depth20",
    "kline_1s",
    "miniTicker",
)
_NEEDED = {"klines": "&interval=1m", "uiKlines": "&interval=1m"}


@pytest.mark.parametrize("path", ["/", "/stream", "/ws"])
@pytest_twisted.ensureDeferred
async def test_publications_of_every_kind(path: str, harness: Harness) -> None:
    """Until each kind has been seen."""
    daemon = await harness.daemon("--demo", "--payloads", "binance")
    client = await harness.client(daemon, path)
    names = [f'"{kind}@TATA_INR"' for kind in STREAMS] + ['"!miniTicker@arr"']
    client.send(b'{"method":"SUBSCRIBE","params":[%b],"id":1}' % ",".join(names).encode())
    missing = set(KINDS.values()) | {'"result":null', "[{"}
    while missing:
        text = (await client.next_bytes()).decode()
        assert fault_of_message(text, channel_of(path)) is None, text
        missing -= {each for each in ('"result":null', "[{") if each in text}
        missing -= {kind for event, kind in KINDS.items() if f'"e":"{event}"' in text}


@pytest_twisted.ensureDeferred
async def test_every_answer_in_plain_http(harness: Harness) -> None:
    """Of one market, of all of them, and a refusal of each that can be refused."""
    daemon = await harness.daemon("--demo")
    for path in ANSWERS:

        async def is_good(path: str = path) -> bool:  # as soon as the market is open
            query = f"?symbol=TATA_INR{_NEEDED.get(path, '')}"
            status, _, body = await harness.http(daemon, f"GET /api/v3/{path}{query} HTTP/1.1\nHost: localhost")
            assert fault_of_answer(body.decode(), path, status) is None, body
            return status == 200

        await harness.eventually(is_good)
        for query in ("", "?type=MINI", "?limit=many&symbol=TATA_INR", "?timeZone=5"):
            request = f"GET /api/v3/{path}{query} HTTP/1.1\nHost: localhost"
            status, _, body = await harness.http(daemon, request)
            assert fault_of_answer(body.decode(), path, status) is None, body
