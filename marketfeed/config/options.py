"""The table of the daemon's options, and what each of them accepts (docs/operations/options.md#options).

An option comes to the code in three steps: its row here says what it is called and reads its text; the field of the
same name in `settings.Settings` has its default, and its value; `daemon/build.py` and `daemon/redis_side.py` hand that
to the part that it is for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import msgspec

from marketfeed.access.addresses import parse_network
from marketfeed.access.origins import parse_origin
from marketfeed.model.candle_store import parse_keep
from marketfeed.model.intervals import parse_offset
from marketfeed.model.kinds.trade import TRADE
from marketfeed.model.numbers import whole
from marketfeed.model.stream_globs import EXPECTED, is_glob
from marketfeed.redis.address import is_host, parse_redis_url
from marketfeed.runtime.memory import parse_memory_limit

__all__ = ["OPTIONS", "Option"]


class Option(msgspec.Struct, frozen=True):
    """One row of the table. `parse` turns text into the value, or raises ValueError with what would be accepted; of a
    list it takes one value at a time.
    """

    flag: str
    group: str
    help: str
    parse: Callable[[str], Any]
    variable: str = ""
    is_switch: bool = False
    is_list: bool = False
    """The flag may be given several times, and each time with several values, between commas."""

    @property
    def field(self) -> str:
        return self.flag.replace("-", "_")

    @property
    def environment(self) -> str:
        return self.variable or f"MARKETFEED_{self.field.upper()}"


_DIGITS = 15
_MOST_WORKERS = 256
_ON, _OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _whole(least: int, unit: str = "") -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = whole(text, _DIGITS)
        if number is None or number < least:
            raise ValueError(f"a whole number{unit and f' of {unit}'}, {least} or more (up to {_DIGITS} digits)")
        return number

    return parse


def _number(least: float, unit: str = "") -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = -1.0 if "_" in text else float(text)
        except ValueError:
            value = -1.0
        if not least <= value < 1e9:
            raise ValueError(f"a number{unit and f' of {unit}'}, {least:g} or more (up to 9 digits)")
        return value

    return parse


def _text(accepted: str, is_good: Callable[[str], bool]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not is_good(text):
            raise ValueError(accepted)
        return text

    return parse


def _is_of_trades(text: str) -> bool:
    return is_glob(text) and text.startswith(f"{TRADE.name}@")


def _one_of(*words: str) -> Callable[[str], str]:
    return _text(" or ".join(words), words.__contains__)


def _switch(accepted: str) -> Callable[[str], bool]:
    def parse(text: str) -> bool:
        if text.lower() not in (*_ON, *_OFF):
            raise ValueError(accepted)
        return text.lower() in _ON

    return parse


def _host(text: str) -> str:
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not is_host(host):
        raise ValueError("the name or the address of a host; a whole URL belongs into --redis-url or REDIS_URL")
    return host


def _redis_port(text: str) -> tuple[str | None, int]:
    """A number, or ``tcp://host:port`` as Kubernetes sets it for a service called redis: (host, port)."""
    host, number = None, text
    if text.startswith("tcp://"):
        name, _, number = text.removeprefix("tcp://").rpartition(":")
        host = _host(name)
    if not _is_port(number):
        raise ValueError("a port number from 1 to 65535, or tcp://host:port")
    return host, int(number)


def _is_port(text: str) -> bool:
    return 0 < (whole(text, _DIGITS) or 0) < 65536


def _is_endpoint(text: str) -> bool:
    return text == "0" or _is_port(text) or (":" in text and not text[0].isdigit())


def _workers(text: str) -> int:
    if text == "auto":
        return len(os.sched_getaffinity(0))
    number = whole(text, _DIGITS)
    if number is None or not 1 <= number <= _MOST_WORKERS:
        raise ValueError(f"a whole number from 1 to {_MOST_WORKERS}, or auto: the CPUs that this process may use")
    return number


_ENDPOINT = "a port number from 0 to 65535, or a Twisted endpoint description such as tcp:8080:interface=127.0.0.1"
_port = _text(_ENDPOINT, _is_endpoint)
_admin = _text(f"{_ENDPOINT}, or off", lambda text: text == "off" or _is_endpoint(text))
_prefix = _text(
    "at most 200 characters, none of them blank", lambda text: len(text) <= 200 and not any(map(str.isspace, text))
)
_path = _text("the path of a file", bool)
_name = _text("a name", bool)
_flag = _switch("true or false")
_source = _one_of("pubsub", "streams")

_SERVING, _ACCESS, _REDIS, _RESUME, _LIMITS, _RUNNING = "Serving", "Access", "Redis", "Resume", "Limits", "Running"
_CANDLES = "Candles"

OPTIONS = (
    Option("port", _SERVING, "a number, or a Twisted endpoint description", _port, "PORT"),
    Option(
        "workers",
        _SERVING,
        "processes that share the port, supervised by one more: a number, or auto, as many as there are CPUs for it",
        _workers,
    ),
    Option("admin", _SERVING, "where operators look, as of --port; or off", _admin),
    Option(
        "admin-host",
        _SERVING,
        "names under which the admin port may be asked, besides localhost and its address. May be given several times",
        _text("the name or the address of a host, without a port", is_host),
        is_list=True,
    ),
    Option("admin-token-file", _SERVING, "file of the token with which others than this host may look there", _path),
    Option("ready-memory", _SERVING, "on or off: whether /readyz says no while memory is short", _switch("on or off")),
    Option("drain-seconds", _SERVING, "over which clients are sent away at SIGTERM", _number(0, "seconds")),
    Option("ping-interval", _SERVING, "seconds between pings of a client; 0 for none", _number(0, "seconds")),
    Option("ping-timeout", _SERVING, "seconds that a client has to answer a ping", _number(1, "seconds")),
    Option(
        "payloads",
        _SERVING,
        "on /stream and /ws: binance, publications as clients made for it read them; engine, as the engine wrote them",
        _one_of("binance", "engine"),
    ),
    Option("compression", _SERVING, "on or off: permessage-deflate for clients that ask for it", _switch("on or off")),
    Option(
        "allowed-origin",
        _ACCESS,
        "pages that may connect, as https://*.example.com; by default those of this host. May be given several times",
        parse_origin,
        "MARKETFEED_ALLOWED_ORIGINS",
        is_list=True,
    ),
    Option("auth", _ACCESS, "whether clients need a token", _one_of("off", "optional", "required")),
    Option("auth-key", _ACCESS, "file of the secret or the PEM public key that verifies tokens", _path),
    Option("auth-jwks", _ACCESS, "file of the public keys that verify tokens, as a JWKS", _path),
    Option("auth-audience", _ACCESS, "what the claim aud of a token must have", _name),
    Option("auth-issuer", _ACCESS, "what the claim iss of a token must be", _name),
    Option(
        "trusted-proxy",
        _ACCESS,
        "addresses and networks whose X-Forwarded-For is believed. May be given several times",
        parse_network,
        is_list=True,
    ),
    Option(
        "redis-url",
        _REDIS,
        "redis://[user:password@]host:port[/db], rediss://, unix:///path, embedded:, redis-cluster://host:port,…, "
        "redis-sentinel://host:port,…/name",
        parse_redis_url,
        "REDIS_URL",
    ),
    Option("redis-host", _REDIS, "used when no URL is given", _host, "REDIS_HOST"),
    Option("redis-port", _REDIS, "used when no URL is given", _redis_port, "REDIS_PORT"),
    Option("redis-ca", _REDIS, "file of the CA that signed the server's certificate, for rediss://", _path),
    Option("redis-certificate", _REDIS, "file of the certificate to show to a rediss:// server that asks", _path),
    Option("redis-key", _REDIS, "file of the key of --redis-certificate", _path),
    Option("source", _REDIS, "pubsub: the engine publishes; streams: it adds to Redis streams", _source),
    Option(
        "pubsub",
        _REDIS,
        "of a cluster: sharded, the engine publishes with SPUBLISH; classic, with PUBLISH",
        _one_of("sharded", "classic"),
    ),
    Option("channel-prefix", _REDIS, "before the stream's name in Redis", _prefix),
    Option("linger", _REDIS, "seconds that a channel stays subscribed after its last client", _number(0, "seconds")),
    Option(
        "warm",
        _REDIS,
        "streams kept ready without clients, such as depth@*. May be given several times",
        _text(EXPECTED, is_glob),
        is_list=True,
    ),
    Option(
        "validate",
        _REDIS,
        "strict drops a publication that is not what its kind requires, warn forwards it",
        _one_of("strict", "warn"),
    ),
    Option("max-payload", _REDIS, "bytes of a publication", _whole(1, "bytes")),
    Option("history", _RESUME, "publications of a stream that are kept", _whole(0)),
    Option("history-seconds", _RESUME, "the age up to which a publication is kept", _number(0, "seconds")),
    Option("history-bytes", _RESUME, "of all publications that are kept, of all streams", _whole(0, "bytes")),
    Option("max-connections", _LIMITS, "clients of this process", _whole(1)),
    Option("max-connections-per-address", _LIMITS, "clients from one address; 0 for any number", _whole(0)),
    Option(
        "connect-rate",
        _LIMITS,
        "attempts to connect of an address or a user in 5 minutes, 0 for any number; not given, local ones are spared",
        _whole(0),
    ),
    Option(
        "rest-rate",
        _LIMITS,
        "requests for market data of an address or a user in a minute, 0 for any number; not given, local ones are "
        "spared",
        _whole(0),
    ),
    Option("max-streams", _LIMITS, "subscriptions of one connection", _whole(1)),
    Option("max-distinct-streams", _LIMITS, "streams of all connections", _whole(1)),
    Option(
        "max-distinct-streams-per-address",
        _LIMITS,
        "of these, those that clients of one address have and nobody else; 0 for any number",
        _whole(0),
    ),
    Option("max-book-levels", _LIMITS, "levels of a book that is kept, of both sides", _whole(1)),
    Option("request-rate", _LIMITS, "requests of one connection per second", _number(0.001)),
    Option("request-burst", _LIMITS, "requests of one connection at once", _whole(1)),
    Option("max-message", _LIMITS, "bytes of a client's message", _whole(1, "bytes")),
    Option("client-queue", _LIMITS, "bytes that may wait for one slow client", _whole(4096, "bytes")),
    Option(
        "memory-limit",
        _LIMITS,
        "resident memory above which no client is let in: 512MiB, or a share of what there is, or off",
        parse_memory_limit,
    ),
    Option(
        "candles", _CANDLES, "makes candles of the trades in Redis, as marketfeed candles does", _flag, is_switch=True
    ),
    Option(
        "candle-trades",
        _CANDLES,
        "the streams of trades that it takes, such as trade@*. May be given several times",
        _text("a stream or a pattern of trades such as trade@TATA_INR or trade@*", _is_of_trades),
        is_list=True,
    ),
    Option("candle-keep", _CANDLES, "how many candles of an interval it keeps, such as 1m=527040", parse_keep),
    Option("candle-late", _CANDLES, "seconds that a trade may be late", _number(0, "seconds")),
    Option("day-offset", _CANDLES, "of the clock by which days begin, such as +05:30", parse_offset),
    Option("demo", _RUNNING, "an embedded Redis-compatible server and a simulated market", _flag, is_switch=True),
    Option("config", _RUNNING, "TOML file with these names, underscores for hyphens", _path),
    Option("log-format", _RUNNING, "text, or json for one object a line", _one_of("text", "json")),
    Option("log-level", _RUNNING, "debug, info, warn or error", _one_of("debug", "info", "warn", "error")),
)
"""Every option of the daemon, in the order of `--help`."""
