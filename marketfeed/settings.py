"""The daemon's settings: one table of options, one place for defaults, one rule for precedence (OPTIONS.md).

1. A flag beats the environment, which beats the file, which beats the default.
2. The options that say where Redis is are taken together: any of them in one place beats all of them in a lower one.
3. A value that cannot be used is a `BadSetting`: one line that names its source and what would be accepted.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from marketfeed.redis_address import EMBEDDED, BadRedisUrl, RedisAddress, is_host, parse_redis_url

__all__ = ["OPTIONS", "BadSetting", "Option", "Settings", "load"]


class BadSetting(ValueError):
    """A setting cannot be used; the message is the line to show."""


class Settings(msgspec.Struct, frozen=True):
    """What the operator decided. Sizes in bytes, times in seconds; limits hold per process."""

    port: str = "8080"
    redis: RedisAddress = RedisAddress()
    redis_ca: str | None = None
    channel_prefix: str = ""
    demo: bool = False
    max_connections: int = 20000
    max_streams: int = 1024
    max_distinct_streams: int = 50000
    request_rate: float = 10.0
    request_burst: int = 200
    validate: str = "strict"
    max_message: int = 65536
    max_payload: int = 262144
    client_queue: int = 1048576
    ping_interval: float = 20.0
    ping_timeout: float = 60.0
    compression: bool = True
    linger: float = 5.0
    drain_seconds: float = 20.0
    log_format: str = "text"
    log_level: str = "info"
    warnings: tuple[str, ...] = ()


class Option(msgspec.Struct, frozen=True):
    """One row of the table. `parse` turns text into the value, or raises ValueError with what would be accepted."""

    flag: str
    group: str
    help: str
    parse: Callable[[str], Any]
    variable: str = ""
    is_switch: bool = False

    @property
    def field(self) -> str:
        return self.flag.replace("-", "_")

    @property
    def environment(self) -> str:
        return self.variable or f"MARKETFEED_{self.field.upper()}"

    @property
    def default(self) -> Any:
        return _DEFAULTS.get(self.field)


_DEFAULTS = msgspec.structs.asdict(Settings())
_DIGITS = 15


def _whole(least: int, unit: str = "") -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (_is_digits(text) and int(text) >= least):
            raise ValueError(f"a whole number{unit and f' of {unit}'}, {least} or more (up to {_DIGITS} digits)")
        return int(text)

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


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(" or ".join(words))
        return text

    return parse


def _text(accepted: str, is_good: Callable[[str], bool]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not is_good(text):
            raise ValueError(accepted)
        return text

    return parse


def _switch(accepted: str) -> Callable[[str], bool]:
    def parse(text: str) -> bool:
        if text.lower() not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
            raise ValueError(accepted)
        return text.lower() in ("1", "true", "yes", "on")

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
    return _is_digits(text) and 0 < int(text) < 65536


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS


_port = _text(
    "a port number from 0 to 65535, or a Twisted endpoint description such as tcp:8080:interface=127.0.0.1",
    lambda text: text == "0" or _is_port(text) or (":" in text and not text[0].isdigit()),
)
_prefix = _text(
    "at most 200 characters, none of them blank", lambda text: len(text) <= 200 and not any(map(str.isspace, text))
)
_name = _text("a name or an address", bool)

_SERVING, _REDIS, _LIMITS, _RUNNING = "Serving", "Redis", "Limits", "Running"

OPTIONS = (
    Option("port", _SERVING, "a number, or a Twisted endpoint description", _port, "PORT"),
    Option("drain-seconds", _SERVING, "over which clients are sent away at SIGTERM", _number(0, "seconds")),
    Option("ping-interval", _SERVING, "seconds between pings of a client; 0 for none", _number(0, "seconds")),
    Option("ping-timeout", _SERVING, "seconds that a client has to answer a ping", _number(1, "seconds")),
    Option("compression", _SERVING, "on or off: permessage-deflate for clients that ask for it", _switch("on or off")),
    Option(
        "redis-url",
        _REDIS,
        "redis://[user:password@]host:port[/db], rediss://, unix:///path, embedded:",
        parse_redis_url,
        "REDIS_URL",
    ),
    Option("redis-host", _REDIS, "used when no URL is given", _host, "REDIS_HOST"),
    Option("redis-port", _REDIS, "used when no URL is given", _redis_port, "REDIS_PORT"),
    Option("redis-ca", _REDIS, "file of the CA that signed the server's certificate, for rediss://", _name),
    Option("channel-prefix", _REDIS, "before the stream's name in Redis", _prefix),
    Option("linger", _REDIS, "seconds that a channel stays subscribed after its last client", _number(0, "seconds")),
    Option(
        "validate",
        _REDIS,
        "strict drops a publication that is not what its kind requires, warn forwards it",
        _one_of("strict", "warn"),
    ),
    Option("max-payload", _REDIS, "bytes of a publication", _whole(1, "bytes")),
    Option("max-connections", _LIMITS, "clients of this process", _whole(1)),
    Option("max-streams", _LIMITS, "subscriptions of one connection", _whole(1)),
    Option("max-distinct-streams", _LIMITS, "streams of all connections", _whole(1)),
    Option("request-rate", _LIMITS, "requests of one connection per second", _number(0.001)),
    Option("request-burst", _LIMITS, "requests of one connection at once", _whole(1)),
    Option("max-message", _LIMITS, "bytes of a client's message", _whole(1, "bytes")),
    Option("client-queue", _LIMITS, "bytes that may wait for one slow client", _whole(4096, "bytes")),
    Option(
        "demo",
        _RUNNING,
        "an embedded Redis-compatible server and a simulated market",
        _switch("true or false"),
        is_switch=True,
    ),
    Option("config", _RUNNING, "TOML file with these names, underscores for hyphens", _name),
    Option("log-format", _RUNNING, "text, or json for one object a line", _one_of("text", "json")),
    Option("log-level", _RUNNING, "debug, info, warn or error", _one_of("debug", "info", "warn", "error")),
)
"""Every option of the daemon, in the order of `--help`."""

_WHERE_REDIS_IS = ("redis_url", "redis_host", "redis_port")


class _Given(msgspec.Struct, frozen=True):
    """A value as it was given, and where."""

    text: str
    source: str


def load(flags: Mapping[str, str], environment: Mapping[str, str]) -> Settings:
    """The settings of a process. `flags`: option field → text, only those given. Raises `BadSetting`."""
    from_flags = {field: _Given(text, f"--{field.replace('_', '-')}") for field, text in flags.items()}
    from_environment = {
        option.field: _Given(environment[option.environment], f"the variable {option.environment}")
        for option in OPTIONS
        if environment.get(option.environment)
    }
    config = from_flags.get("config") or from_environment.get("config")
    layers = [from_flags, from_environment, _read_file(config) if config else {}]
    given = _merge(layers)
    values = {option.field: _parse(option, given[option.field]) for option in OPTIONS if option.field in given}
    values.pop("config", None)
    warnings = []
    host, port = values.pop("redis_host", None), values.pop("redis_port", (None, 6379))
    url = values.pop("redis_url", None)
    if url is None and (host is not None or "redis_port" in given):
        url = RedisAddress(host=host or port[0] or "localhost", port=port[1])
    if url is not None:
        values["redis"] = url
        if url.password is not None and "redis_url" in from_flags:
            warnings.append("--redis-url holds a password, which other users of this host can read: use REDIS_URL")
    if values.get("demo"):
        if any(field in from_flags for field in (*_WHERE_REDIS_IS, "redis_ca")):
            raise BadSetting(
                f"{given['demo'].source}: it brings its own server; "
                "for a market on yours run: marketfeed simulate --redis-url …"
            )
        values["redis"] = EMBEDDED
        values.pop("redis_ca", None)
    if values.get("redis_ca") and not values.get("redis", RedisAddress()).tls:
        raise BadSetting(f"{given['redis_ca'].source}: expected together with a rediss:// URL")
    return Settings(**values, warnings=tuple(warnings))


def _merge(layers: list[dict[str, _Given]]) -> dict[str, _Given]:
    merged: dict[str, _Given] = {}
    redis_found = False
    for layer in layers:
        for field, given in layer.items():
            if field not in merged and not (redis_found and field in _WHERE_REDIS_IS):
                merged[field] = given
        redis_found = redis_found or any(field in layer for field in _WHERE_REDIS_IS)
    return merged


def _parse(option: Option, given: _Given) -> Any:
    try:
        return option.parse(given.text)
    except BadRedisUrl as error:
        raise BadSetting(f"{given.source}: {error}") from None
    except ValueError as error:
        shown = "what is given" if "@" in given.text else repr(given.text[:80])  # it may be a URL with a password
        raise BadSetting(f"{given.source}: {shown} cannot be used; expected {error}") from None


def _read_file(config: _Given) -> dict[str, _Given]:
    path = repr(config.text)[1:-1]
    try:
        table = tomllib.loads(Path(config.text).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSetting(f"{config.source}: {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadSetting(f"{config.source}: {path} is not TOML: {error}") from None
    known = {option.field for option in OPTIONS} - {"config"}
    given = {}
    for field, value in table.items():
        if field not in known:
            name = repr(field[:80])[1:-1]
            raise BadSetting(f"{name} in {path}: unknown; expected one of {', '.join(sorted(known))}")
        try:
            text = _as_flag(value)
        except ValueError:
            raise BadSetting(f"{field} in {path}: expected a string, a number, true or false") from None
        given[field] = _Given(text, f"{field} in {path}")
    return given


def _as_flag(value: Any) -> str:
    """A value of the file as the text of a flag. Raises ValueError when there is none."""
    if not isinstance(value, str | int | float):
        raise ValueError
    return str(value).lower() if isinstance(value, bool) else str(value)
