"""The daemon's settings: one place for defaults, and one rule for precedence (docs/operations/options.md#options).

1. A flag beats the environment, which beats the file, which beats the default.
2. The options that say where Redis is are taken together: any of them in one place beats all of them in a lower one.
3. A value that cannot be used is a `BadSetting`: one line that names its source and what would be accepted.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from marketfeed.access.addresses import Network
from marketfeed.access.origins import OriginPattern
from marketfeed.config.declared_kinds import BadSetting, read_kinds
from marketfeed.config.declared_markets import read_markets
from marketfeed.config.fit import Given, check_together
from marketfeed.config.options import OPTIONS, Option
from marketfeed.model.book_state import MAX_LEVELS
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import StreamKind
from marketfeed.model.markets import Market
from marketfeed.redis.address import EMBEDDED, Address, BadRedisUrl, RedisAddress
from marketfeed.redis.tls import REDIS_TLS, RedisTls
from marketfeed.runtime.memory import MemoryLimit

__all__ = ["DEFAULTS", "BadSetting", "Settings", "changed", "load"]


class Beaten(NamedTuple):
    """A value of the file that is not used, and which source says otherwise."""

    field: str
    text: str
    source: str


class Settings(msgspec.Struct, frozen=True):
    """What the operator decided. Sizes in bytes, times in seconds; limits hold per process."""

    port: str = "8080"
    workers: int | None = None
    """None: one process, which nothing supervises."""
    admin: str = "tcp:8081:interface=127.0.0.1"
    gives_admin: bool = False
    """Somebody has asked for that port."""
    admin_host: tuple[str, ...] = ()
    admin_token_file: str | None = None
    ready_memory: bool = True
    redis: Address = RedisAddress()
    redis_ca: str | None = None
    redis_certificate: str | None = None
    redis_key: str | None = None
    source: str = "pubsub"
    pubsub: str = "sharded"
    channel_prefix: str = ""
    candles: bool = False
    candle_trades: tuple[str, ...] = ()
    """Names and patterns of streams of trades; none: all."""
    candle_keep: Mapping[str, int] = {}
    """How many candles are kept, by interval, where it is not the usual number."""
    candle_late: float = 3600.0
    day_offset: int = 0
    """How much earlier than in UTC days begin, in ms."""
    demo: bool = False
    allowed_origin: tuple[OriginPattern, ...] = ()
    auth: str = "off"
    auth_key: str | None = None
    auth_jwks: str | None = None
    auth_audience: str | None = None
    auth_issuer: str | None = None
    trusted_proxy: tuple[Network, ...] = ()
    max_connections: int = 20000
    gives_max_connections: bool = False
    """Somebody has asked for that many."""
    max_connections_per_address: int = 0
    connect_rate: int = 300
    spares_local: bool = True
    """The connect rate is not for clients from local addresses, which nobody has decided about."""
    rest_rate: int = 1200
    rest_spares_local: bool = True
    """The same of the rate of requests."""
    max_streams: int = 1024
    max_distinct_streams: int = 50000
    max_distinct_streams_per_address: int = 5000
    max_book_levels: int = MAX_LEVELS
    request_rate: float = 10.0
    request_burst: int = 200
    validate: str = "strict"
    max_message: int = 65536
    max_payload: int = 262144
    client_queue: int = 1048576
    memory_limit: MemoryLimit = MemoryLimit(percent=85)
    ping_interval: float = 20.0
    ping_timeout: float = 60.0
    payloads: str = "binance"
    compression: bool = True
    linger: float = 5.0
    history: int = 1000
    history_seconds: float = 300.0
    history_bytes: int = 268435456
    warm: tuple[str, ...] = ()
    """Names and patterns of streams, as `parse_glob` reads them."""
    drain_seconds: float = 20.0
    log_format: str = "text"
    log_level: str = "info"
    kinds: tuple[StreamKind, ...] = ()
    """The kinds of streams that are declared besides the built-in ones."""
    markets: tuple[Market, ...] = ()
    """Those that are declared."""
    warnings: tuple[str, ...] = ()
    beaten: tuple[Beaten, ...] = ()
    """What the file says in vain."""

    @property
    def is_classic(self) -> bool:
        """In a cluster, channels are on any node."""
        return self.source == "pubsub" and self.pubsub == "classic"

    @property
    def strict(self) -> bool:
        """Whether a publication that is not what its kind requires is dropped."""
        return self.validate == "strict"

    @property
    def all_kinds(self) -> tuple[StreamKind, ...]:
        """The kinds of streams: one that is declared stands behind the built-in one that it is to replace."""
        return (*BUILT_IN, *self.kinds)

    @property
    def redis_tls(self) -> RedisTls:
        """The files for TLS to Redis."""
        return RedisTls(self.redis_ca, self.redis_certificate, self.redis_key)


DEFAULTS = msgspec.structs.asdict(Settings())
"""The default of each option that has one, by field."""

_PREFIX = "MARKETFEED_"
_WHERE_REDIS_IS = ("redis_url", "redis_host", "redis_port")


_ALL = frozenset(option.field for option in OPTIONS)


def load(flags: Mapping[str, str], environment: Mapping[str, str], only: Collection[str] = _ALL) -> Settings:
    """The settings of a process. `flags`: option field → text, only those given. Raises `BadSetting`.

    `only`: the fields that matter; what the file says of others may be anything.
    """
    from_flags = {field: Given(text, f"--{field.replace('_', '-')}") for field, text in flags.items()}
    from_environment = {
        option.field: Given(environment[option.environment], f"the variable {option.environment}")
        for option in OPTIONS
        if environment.get(option.environment)
    }
    config = from_flags.get("config") or from_environment.get("config")
    from_file, kinds, markets = _read_file(config, only) if config else ({}, (), ())
    given = _merge([from_flags, from_environment, from_file])
    values = {option.field: _parse(option, given[option.field]) for option in OPTIONS if option.field in given}
    values.pop("config", None)
    warnings = [*_settle_redis(values, given, from_flags), *_misspelt(environment)]
    values["gives_max_connections"] = "max_connections" in given
    values["gives_admin"] = "admin" in given
    values["spares_local"] = "connect_rate" not in given
    values["rest_spares_local"] = "rest_rate" not in given
    check_together(values, given, kinds)
    values |= {"kinds": kinds, "markets": markets}
    return Settings(**values, warnings=tuple(warnings), beaten=tuple(_beaten(from_file, given)))


def changed(settings: Settings) -> dict[str, str]:
    """The options that differ from their defaults, by flag, as they may be shown to people: without passwords."""
    values = msgspec.structs.asdict(settings)
    fields = {"redis": "redis-url", **{option.field: option.flag for option in OPTIONS}}
    shown = {
        f"--{flag}": _shown(values[field])
        for field, flag in fields.items()
        if field in values and values[field] != DEFAULTS[field]
    }
    tables = [f"[streams.{kind.name}]" for kind in settings.kinds]
    if settings.markets:
        tables.append("[markets]")
    return {**shown, **dict.fromkeys(tables, "declared")}


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _misspelt(environment: Mapping[str, str]) -> list[str]:
    """A warning of each variable that nobody reads and that has the name of an option but for one letter."""
    known = {option.environment for option in OPTIONS}
    ours = [name for name in environment if name.startswith(_PREFIX) and name not in known]
    near = [(name, next((option for option in sorted(known) if _is_one_edit(name, option)), None)) for name in ours]
    return [f"the variable {name} is no option; {option} is one" for name, option in near if option is not None]


def _is_one_edit(one: str, other: str) -> bool:
    """One has a letter more, another letter, or two in the other order."""
    if len(one) > len(other):
        one, other = other, one
    same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    rest, longer = one[same:], other[same:]
    if len(rest) < len(longer):
        return longer[1:] == rest
    return longer[1:] == rest[1:] or (longer[:2] == rest[1::-1] and longer[2:] == rest[2:])


def _settle_redis(values: dict[str, Any], given: dict[str, Given], from_flags: dict[str, Given]) -> list[str]:
    """Put one address in place of all that says where Redis is. Returns what the operator should be warned of."""
    warnings = []
    host, (host_of_port, port) = values.pop("redis_host", None), values.pop("redis_port", (None, None))
    url = values.pop("redis_url", None)
    parts = {"host": host or host_of_port, "port": port}
    if url is None and any(parts.values()):
        url = RedisAddress(**{name: part for name, part in parts.items() if part is not None})
    if url is not None:
        values["redis"] = url
        if url.has_password and "redis_url" in from_flags:
            warnings.append("--redis-url holds a password, which other users of this host can read: use REDIS_URL")
    if values.get("demo"):
        if any(field in from_flags for field in (*_WHERE_REDIS_IS, *REDIS_TLS)):
            remedy = "for a market on yours run: marketfeed simulate --redis-url …"
            raise BadSetting(f"{given['demo'].source}: it brings its own server; {remedy}")
        values["redis"] = EMBEDDED
        for field in REDIS_TLS:
            values.pop(field, None)
    misfit = RedisTls(*map(values.get, REDIS_TLS)).misfit(has_tls=values.get("redis", RedisAddress()).tls)
    if misfit is not None:
        field, needed = misfit
        raise BadSetting(f"{given[field].source}: expected together with {needed}")
    return warnings


def _merge(layers: list[dict[str, Given]]) -> dict[str, Given]:
    merged: dict[str, Given] = {}
    redis_found = False
    for layer in layers:
        for field, given in layer.items():
            if field not in merged and not (redis_found and field in _WHERE_REDIS_IS):
                merged[field] = given
        redis_found = redis_found or any(field in layer for field in _WHERE_REDIS_IS)
    return merged


def _beaten(from_file: dict[str, Given], given: dict[str, Given]) -> Iterator[Beaten]:
    for field, value in from_file.items():
        winner = given.get(field)
        if winner is None:  # what says where Redis is goes together
            winner = next(given[each] for each in _WHERE_REDIS_IS if each in given)
        if winner is not value:
            yield Beaten(field, value.text, winner.source)


def _parse(option: Option, given: Given) -> Any:
    if not option.is_list:
        return _parse_one(option, given.text, given.source)
    texts = [text.strip() for text in given.text.split(",") if text.strip()] or [given.text]
    return tuple([_parse_one(option, text, given.source) for text in texts])


def _parse_one(option: Option, text: str, source: str) -> Any:
    try:
        return option.parse(text)
    except BadRedisUrl as error:
        raise BadSetting(f"{source}: {error}") from None
    except ValueError as error:
        shown = "what is given" if "@" in text else repr(text[:80])  # it may be a URL with a password
        raise BadSetting(f"{source}: {shown} cannot be used; expected {error}") from None


def _read_file(
    config: Given, only: Collection[str]
) -> tuple[dict[str, Given], tuple[StreamKind, ...], tuple[Market, ...]]:
    path = repr(config.text)[1:-1]
    try:
        table = tomllib.loads(Path(config.text).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSetting(f"{config.source}: {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadSetting(f"{config.source}: {path} is not TOML: {error}") from None
    kinds = read_kinds(table.pop("streams", {}), path)
    markets = read_markets(table.pop("markets", {}), path)
    known = {option.field: option for option in OPTIONS if option.field != "config"}
    given = {}
    for field, value in table.items():
        if field not in known:
            name = repr(field[:80])[1:-1]
            raise BadSetting(
                f"{name} in {path}: unknown; expected streams, markets or one of {', '.join(sorted(known))}"
            )
        if field not in only:
            continue
        try:
            text = _as_flag(value, known[field])
        except ValueError:
            of_list = ", or a list of strings" if known[field].is_list else ""
            raise BadSetting(f"{field} in {path}: expected a string, a number, true or false{of_list}") from None
        given[field] = Given(text, f"{field} in {path}")
    return given, kinds, markets


def _as_flag(value: Any, option: Option) -> str:
    """A value of the file as the text of a flag. Raises ValueError when there is none."""
    if option.is_list and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ",".join(value)
    if not isinstance(value, str | int | float):
        raise ValueError
    return str(value).lower() if isinstance(value, bool) else str(value)
