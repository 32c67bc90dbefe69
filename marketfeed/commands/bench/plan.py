"""What a load test is to do."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from marketfeed.commands.address import ServerAddress
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.tls import RedisTls

__all__ = ["DEFAULTS", "Plan"]


class Plan(msgspec.Struct, frozen=True):
    """What to do. Without `redis` only watch; with it, publish with either a `window` or a `rate`.

    `messages`: publish so many in all, without a warm-up, whatever `seconds` says. `levels`: of each side of a book.
    `storm`: publish, at a `rate`, while the clients connect, as many at once as the server lets wait.
    `mixed`: the streams of each client are drawn, so that hardly two have the same.
    """

    address: ServerAddress
    streams: Sequence[str]
    clients: int = 1000
    per_client: int = 1
    mixed: bool = False
    slow: int = 0
    seconds: float = 10.0
    warm_up: float = 1.0
    messages: int | None = None
    token: str | None = None
    compression: bool = False
    redis: RedisAddress | None = None
    redis_tls: RedisTls = RedisTls()
    channel_prefix: str = ""
    window: int = 16
    rate: float | None = None
    storm: bool = False
    levels: int = 10
    payload_bytes: int = 0
    server_pids: Sequence[int] = ()


DEFAULTS = {
    field.name: f"{field.default:g}" for field in msgspec.structs.fields(Plan) if isinstance(field.default, int | float)
}
"""How the numbers are spelled on the command line that stand in a plan where nothing else is asked for."""
