"""Settings: which source wins, and the one line for what cannot be used (docs/operations/options.md#options)."""

from __future__ import annotations

import os
import string
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfeed.access.addresses import Network
from marketfeed.access.origins import ANY, NULL, OriginPattern
from marketfeed.config.options import OPTIONS, Option
from marketfeed.config.settings import DEFAULTS as ACTUAL
from marketfeed.config.settings import BadSetting, Settings, changed, load
from marketfeed.model.candle_store import KEEP
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from marketfeed.redis.address import EMBEDDED, RedisAddress
from marketfeed.redis.tls import RedisTls
from marketfeed.runtime.memory import MemoryLimit
from tests.strategies import property_test

BY_FIELD = {option.field: option for option in OPTIONS}
REDIS_GROUP = ("redis_url", "redis_host", "redis_port")

# Each option's values as they are given in the flag, the environment and the file.
SAMPLES: dict[str, tuple[str, str, str]] = {
    "allowed_origin": ("https://flag.example", "https://*.variable.example", "capacitor://file"),
    "auth": ("required", "optional", "required"),
    "auth_key": ("/flag.key", "/variable.key", "/file.key"),
    "auth_jwks": ("/flag.json", "/variable.json", "/file.json"),
    "auth_audience": ("flag", "variable", "file"),
    "pubsub": ("classic", "sharded", "classic"),
    "auth_issuer": ("flag", "variable", "file"),
    "trusted_proxy": ("192.0.2.1", "10.0.0.0/8", "fd00::/8"),
    "max_connections_per_address": ("0", "1", "2"),
    "connect_rate": ("0", "1", "2"),
    "rest_rate": ("0", "1", "2"),
    "max_distinct_streams_per_address": ("0", "1", "2"),
    "memory_limit": ("512MiB", "90%", "off"),
    "port": ("7001", "tcp:7002:interface=127.0.0.1", "7003"),
    "workers": ("2", "auto", "256"),
    "admin": ("7001", "tcp:7002:interface=127.0.0.1", "off"),
    "admin_host": ("flag.example", "fd00::7", "file.example"),
    "admin_token_file": ("/flag.token", "/variable.token", "/file.token"),
    "ready_memory": ("off", "on", "false"),
    "drain_seconds": ("1.5", "0", "2e1"),
    "ping_interval": ("1.5", "0", "2e1"),
    "ping_timeout": ("1.5", "1", "2e1"),
    "payloads": ("engine", "binance", "engine"),
    "compression": ("off", "on", "false"),
    "redis_ca": ("/flag.pem", "/variable.pem", "/file.pem"),
    "redis_certificate": ("/flag.pem", "/variable.pem", "/file.pem"),
    "redis_key": ("/flag.key", "/variable.key", "/file.key"),
    "source": ("streams", "pubsub", "streams"),
    "channel_prefix": ("flag:", "variable:", "file:"),
    "linger": ("0", "2.5", "3"),
    "history": ("0", "2", "3"),
    "history_seconds": ("0", "2.5", "3"),
    "history_bytes": ("0", "2", "3"),
    "warm": ("depth@*", "ticker@A", "*@A?"),
    "candles": ("on", "off", "true"),
    "candle_trades": ("trade@A", "trade@*", "trade@B*"),
    "candle_keep": ("1h=5", "1s=7,1M=8", "1d=9"),
    "candle_late": ("0", "2.5", "3"),
    "day_offset": ("+05:30", "-01:00", "+00:01"),
    "validate": ("warn", "strict", "warn"),
    "max_payload": ("1", "2", "3"),
    "max_book_levels": ("1", "2", "3"),
    "max_connections": ("1", "2", "3"),
    "max_streams": ("1", "2", "3"),
    "max_distinct_streams": ("1", "2", "3"),
    "request_rate": ("0.001", "2", "3.5"),
    "request_burst": ("1", "2", "3"),
    "max_message": ("1", "2", "3"),
    "client_queue": ("4096", "5000", "6000"),
    "log_format": ("json", "text", "json"),
    "log_level": ("debug", "warn", "error"),
}
AS_VALUES: dict[str, tuple[Any, Any, Any]] = {
    "workers": (2, len(os.sched_getaffinity(0)), 256),
    "allowed_origin": (
        (OriginPattern("https", "flag.example"),),
        (OriginPattern("https", "*.variable.example"),),
        (OriginPattern("capacitor", "file"),),
    ),
    "admin_host": (("flag.example",), ("fd00::7",), ("file.example",)),
    "warm": (("depth@*",), ("ticker@A",), ("*@A?",)),
    "candles": (True, False, True),
    "candle_trades": (("trade@A",), ("trade@*",), ("trade@B*",)),
    "candle_keep": ({"1h": 5}, {"1s": 7, "1M": 8}, {"1d": 9}),
    "day_offset": (19_800_000, -3_600_000, 60_000),
    "trusted_proxy": ((ip_network("192.0.2.1"),), (ip_network("10.0.0.0/8"),), (ip_network("fd00::/8"),)),
    "memory_limit": (MemoryLimit(size=512 << 20), MemoryLimit(percent=90), MemoryLimit()),
}
"""What the samples come to, where that is neither a text nor a number."""
NEEDED: dict[str, dict[str, str]] = {
    "redis_ca": {"REDIS_URL": "rediss://h"},
    "redis_certificate": {"REDIS_URL": "rediss://h"},
    "redis_key": {"REDIS_URL": "rediss://h"},
    "auth_key": {"MARKETFEED_AUTH": "optional", "MARKETFEED_AUTH_JWKS": "/k"},
    "auth_jwks": {"MARKETFEED_AUTH": "required", "MARKETFEED_AUTH_KEY": "/k"},
    "pubsub": {"REDIS_URL": "redis-cluster://h"},
    "auth_audience": {"MARKETFEED_AUTH": "required", "MARKETFEED_AUTH_KEY": "/k"},
    "auth_issuer": {"MARKETFEED_AUTH": "required", "MARKETFEED_AUTH_KEY": "/k"},
}
"""The variables without which an option would not be accepted."""
NEEDED_IN_FILE = {
    "auth": "auth_key = '/k'",
    "redis_certificate": "redis_key = '/k'",
    "redis_key": "redis_certificate = '/c'",
}
DEFAULTS = {
    "port": "8080",
    "workers": None,
    "admin": "tcp:8081:interface=127.0.0.1",
    "gives_admin": False,
    "admin_host": (),
    "admin_token_file": None,
    "ready_memory": True,
    "allowed_origin": (),
    "auth": "off",
    "auth_key": None,
    "auth_jwks": None,
    "auth_audience": None,
    "pubsub": "sharded",
    "auth_issuer": None,
    "trusted_proxy": (),
    "warm": (),
    "candles": False,
    "candle_trades": (),
    "candle_keep": {},
    "candle_late": 3600,
    "day_offset": 0,
    "max_connections_per_address": 0,
    "connect_rate": 300,
    "rest_rate": 1200,
    "rest_spares_local": True,
    "markets": (),
    "max_distinct_streams_per_address": 5000,
    "spares_local": True,
    "gives_max_connections": False,
    "memory_limit": MemoryLimit(percent=85),
    "kinds": (),
    "redis": RedisAddress("localhost", 6379),
    "redis_ca": None,
    "redis_certificate": None,
    "redis_key": None,
    "source": "pubsub",
    "channel_prefix": "",
    "demo": False,
    "max_connections": 20000,
    "max_streams": 1024,
    "max_distinct_streams": 50000,
    "request_rate": 10,
    "request_burst": 200,
    "validate": "strict",
    "max_message": 65536,
    "max_payload": 262144,
    "max_book_levels": 10000,
    "client_queue": 1048576,
    "linger": 5,
    "history": 1000,
    "history_seconds": 300,
    "history_bytes": 268435456,
    "drain_seconds": 20,
    "ping_interval": 20,
    "ping_timeout": 60,
    "payloads": "binance",
    "compression": True,
    "log_format": "text",
    "log_level": "info",
    "warnings": (),
    "beaten": (),
}

WHOLE = ("", "x", "-1", "1.0", "1e3", "+1", " 1", "1_000", "\u0661", "9" * 16, "9" * 5000)
NUMBER = ("", "x", "-1", "nan", "inf", "1e9", "1_0", "9" * 5000)
PORT = ("", "x", "-1", "65536", "80.5", "8080/tcp", "\u0661", "1" * 5000)
BAD: dict[str, tuple[str, tuple[str, ...]]] = {
    "admin": (
        "a port number from 0 to 65535, or a Twisted endpoint description such as tcp:8080:interface=127.0.0.1, or off",
        (*PORT, "0.0.0.0:8080", "on"),
    ),
    "workers": (
        "a whole number from 1 to 256, or auto: the CPUs that this process may use",
        ("", "0", "257", "-1", "1.5", "Auto", "all"),
    ),
    "port": (
        "a port number from 0 to 65535, or a Twisted endpoint description such as tcp:8080:interface=127.0.0.1",
        (*PORT, "0.0.0.0:8080"),
    ),
    "allowed_origin": (
        "scheme://host[:port] and nothing behind it, such as https://app.example.com",
        ("", "x", ",", "app.example.com", "https://a.example/", "*.example.com", "https://"),
    ),
    "auth": ("off or optional or required", ("", "on", "Off", "true")),
    "warm": (
        "a stream or a pattern of streams such as depth@TATA_INR or depth@*",
        ("", "x", ",", "*", "depth", "depth:A"),
    ),
    "auth_key": ("the path of a file", ("",)),
    "auth_jwks": ("the path of a file", ("",)),
    "auth_audience": ("a name", ("",)),
    "pubsub": ("sharded or classic", ("", "Sharded", "x")),
    "auth_issuer": ("a name", ("",)),
    "trusted_proxy": (
        "an address such as 10.0.0.1 or ::1, a network such as 10.0.0.0/8 or fd00::/8, or unix",
        ("", "x", ",", "10.0.0", "10.0.0.0/33", "::1%eth0", "proxy.example"),
    ),
    "max_connections_per_address": ("a whole number, 0 or more", WHOLE),
    "connect_rate": ("a whole number, 0 or more", WHOLE),
    "rest_rate": ("a whole number, 0 or more", WHOLE),
    "max_distinct_streams_per_address": ("a whole number, 0 or more", WHOLE),
    "memory_limit": (
        "a size from 1MiB up, such as 1073741824, 512MiB or 2GiB, a share from 1% to 100%, or off",
        ("", "x", "-1", "512", "1.5GiB", "0%", "101%", "85 %", "1" * 5000),
    ),
    "drain_seconds": ("a number of seconds, 0 or more", NUMBER),
    "ping_interval": ("a number of seconds, 0 or more", NUMBER),
    "ping_timeout": ("a number of seconds, 1 or more", (*NUMBER, "0.5")),
    "payloads": ("binance or engine", ("", "Binance", "house")),
    "compression": ("on or off", ("", "maybe", "9")),
    "ready_memory": ("on or off", ("", "maybe", "9")),
    "admin_host": ("the name or the address of a host, without a port", ("", "a b", "h:8081", "http://h")),
    "redis_host": ("the name or the address of a host", ("", "a b", "h:6379", "h/1", "redis://h")),
    "redis_port": (
        "a port number from 1 to 65535, or tcp://host:port",
        (*PORT, "0", "tcp://h", "tcp://h:x", "tcp://h:0"),
    ),
    "redis_ca": ("the path of a file", ("",)),
    "admin_token_file": ("the path of a file", ("",)),
    "redis_certificate": ("the path of a file", ("",)),
    "redis_key": ("the path of a file", ("",)),
    "source": ("pubsub or streams", ("kafka", "")),
    "channel_prefix": ("at most 200 characters, none of them blank", ("a b", "\t", "x" * 201)),
    "linger": ("a number of seconds, 0 or more", NUMBER),
    "history": ("a whole number, 0 or more", WHOLE),
    "history_seconds": ("a number of seconds, 0 or more", NUMBER),
    "history_bytes": ("a whole number of bytes, 0 or more", WHOLE),
    "validate": ("strict or warn", ("", "Strict", "off")),
    "max_payload": ("a whole number of bytes, 1 or more", (*WHOLE, "0")),
    "max_book_levels": ("a whole number, 1 or more", (*WHOLE, "0")),
    "max_connections": ("a whole number, 1 or more", (*WHOLE, "0")),
    "max_streams": ("a whole number, 1 or more", (*WHOLE, "0")),
    "max_distinct_streams": ("a whole number, 1 or more", (*WHOLE, "0")),
    "request_rate": ("a number, 0.001 or more", (*NUMBER, "0", "0.0001")),
    "request_burst": ("a whole number, 1 or more", (*WHOLE, "0")),
    "max_message": ("a whole number of bytes, 1 or more", (*WHOLE, "0")),
    "client_queue": ("a whole number of bytes, 4096 or more", (*WHOLE, "4095")),
    "demo": ("true or false", ("2", "y", "maybe")),
    "candles": ("true or false", ("2", "y", "maybe")),
    "candle_trades": (
        "a stream or a pattern of trades such as trade@TATA_INR or trade@*",
        ("", "trade", "*"),
    ),
    "candle_keep": (
        "an interval and how many of its candles, such as 1m=527040; one of " + ", ".join(KEEP),
        ("", "1m", "1m=", "2m=5", "1m=0", "1m=-1", "1m=5,", "1m=1e3", "1m=9999999999"),
    ),
    "candle_late": ("a number of seconds, 0 or more", NUMBER),
    "day_offset": ("an offset from UTC from -14:00 to +14:00, such as +05:30", ("", "5", "+5:30", "+15:00", "UTC")),
    "log_format": ("text or json", ("", "xml")),
    "log_level": ("debug or info or warn or error", ("", "INFO", "critical")),
}


def config(tmp_path: Path, text: str | bytes) -> str:
    """The path of a file with this text."""
    path = tmp_path / "marketfeed.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def refusal(flags: dict[str, str] | None = None, environment: dict[str, str] | None = None) -> str:
    """The line with which a start ends."""
    with pytest.raises(BadSetting) as caught:
        load(flags or {}, environment or {})
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    return line


def expected(field: str, text: str) -> Any:
    """The value of a sample: of the default's type."""
    default = DEFAULTS[field]
    if field in AS_VALUES:
        return AS_VALUES[field][SAMPLES[field].index(text)]
    if default is True:
        return text == "on"
    return text if default is None else type(getattr(Settings(), field))(text)


def test_every_option_is_tested() -> None:
    """Whoever adds an option adds its samples here."""
    special = {"demo", "config", "redis_url", "redis_host", "redis_port"}
    assert set(SAMPLES) | special == set(BY_FIELD)
    assert set(BAD) | {"config", "redis_url"} == set(BY_FIELD)
    derived = {"redis", "spares_local", "rest_spares_local", "gives_admin", "gives_max_connections"}
    derived |= {"kinds", "markets", "warnings", "beaten"}
    assert set(DEFAULTS) - derived == set(BY_FIELD) - {"config", *REDIS_GROUP}


def test_what_the_file_says_in_vain_is_known(tmp_path: Path) -> None:
    """With the source that says otherwise; what says where Redis is goes together."""
    config = tmp_path / "file.toml"
    config.write_text('max_streams = 1\nmax_payload = 2\nlinger = 3\nredis_url = "redis://x"\n')
    flags = {"config": str(config), "max_streams": "4", "redis_port": "5"}
    assert load(flags, {"MARKETFEED_LINGER": "6"}).beaten == (
        ("max_streams", "1", "--max-streams"),
        ("linger", "3", "the variable MARKETFEED_LINGER"),
        ("redis_url", "redis://x", "--redis-port"),
    )


def test_defaults() -> None:
    """Without any source there are the documented defaults."""
    assert msgspec.structs.asdict(load({}, {})) == DEFAULTS
    assert ACTUAL["max_streams"] == 1024
    assert "redis_host" not in ACTUAL


def test_names() -> None:
    """Some variables have names that platforms set; the others are the flag's behind MARKETFEED_."""
    named = {option.flag: option.environment for option in OPTIONS if not option.environment.startswith("MARKETFEED_")}
    assert named == {"port": "PORT", "redis-url": "REDIS_URL", "redis-host": "REDIS_HOST", "redis-port": "REDIS_PORT"}
    assert BY_FIELD["max_streams"].environment == "MARKETFEED_MAX_STREAMS"
    assert BY_FIELD["allowed_origin"].environment == "MARKETFEED_ALLOWED_ORIGINS"
    assert BY_FIELD["config"].environment == "MARKETFEED_CONFIG"
    assert {option.field for option in OPTIONS if option.is_switch} == {"candles", "demo"}
    assert {option.field for option in OPTIONS if option.is_list} == {
        "admin_host", "allowed_origin", "candle_trades", "trusted_proxy", "warm",
    }  # fmt: skip
    assert all(option.group and option.help for option in OPTIONS)


# Which source wins.


@pytest.mark.parametrize("field", SAMPLES)
def test_precedence(field: str, tmp_path: Path) -> None:
    """A flag beats the environment, which beats the file, which beats the default."""
    flag, variable, in_file = SAMPLES[field]
    path = config(tmp_path, f'{field} = "{in_file}"\n{NEEDED_IN_FILE.get(field, "")}')
    base = NEEDED.get(field, {})
    in_environment = {**base, BY_FIELD[field].environment: variable}
    with_file = {**base, "MARKETFEED_CONFIG": path}

    def value(flags: dict[str, str], environment: dict[str, str]) -> Any:
        return getattr(load(flags, environment), field)

    assert value({}, base) == DEFAULTS[field]
    assert value({}, with_file) == expected(field, in_file)
    assert value({}, {**with_file, **in_environment}) == expected(field, variable)
    assert value({field: flag}, {**with_file, **in_environment}) == expected(field, flag)
    assert value({field: flag, "config": path}, base) == expected(field, flag)
    assert value({}, {**with_file, BY_FIELD[field].environment: ""}) == expected(field, in_file)


def test_other_fields_keep_their_sources(tmp_path: Path) -> None:
    """Each option is decided by itself."""
    path = config(tmp_path, "max_streams = 3\nlinger = 1.5\n")
    settings = load({"port": "1", "config": path}, {"PORT": "2", "MARKETFEED_LINGER": "2.5"})
    assert (settings.port, settings.linger, settings.max_streams) == ("1", 2.5, 3)


def test_config_flag_beats_variable(tmp_path: Path) -> None:
    """There is one file: the flag's, not the variable's as well."""
    path = config(tmp_path, "max_streams = 3")
    assert load({"config": path}, {"MARKETFEED_CONFIG": "/does/not/exist"}).max_streams == 3


@pytest.mark.parametrize(
    ("flags", "environment", "in_file", "address"),
    [
        ({}, {}, "", "redis://localhost:6379"),
        ({}, {}, 'redis_url = "redis://f:1"', "redis://f:1"),
        ({}, {}, 'redis_host = "f"\nredis_port = 2', "redis://f:2"),
        ({}, {"REDIS_HOST": "v"}, 'redis_url = "redis://f:1"', "redis://v:6379"),
        ({}, {"REDIS_PORT": "3"}, 'redis_host = "f"', "redis://localhost:3"),
        ({}, {"REDIS_HOST": ""}, 'redis_host = "f"', "redis://f:6379"),
        ({}, {"REDIS_URL": "redis://v:1", "REDIS_HOST": "w", "REDIS_PORT": "2"}, "", "redis://v:1"),
        ({"redis_host": "a"}, {"REDIS_URL": "redis://v:1", "REDIS_PORT": "2"}, "", "redis://a:6379"),
        ({"redis_port": "9"}, {"REDIS_URL": "redis://v:1", "REDIS_HOST": "v"}, "", "redis://localhost:9"),
        ({"redis_url": "redis://a:9"}, {"REDIS_HOST": "v", "REDIS_PORT": "x"}, 'redis_host = "f"', "redis://a:9"),
        ({"redis_url": "redis://a:9", "redis_host": "b"}, {}, "", "redis://a:9"),
        ({"redis_host": "a", "redis_port": "9"}, {}, 'redis_url = "redis://f:1"', "redis://a:9"),
        ({"redis_host": "[::1]", "redis_port": "9"}, {}, "", "redis://[::1]:9"),
        ({}, {"REDIS_PORT": "tcp://10.0.0.7:6380"}, "", "redis://10.0.0.7:6380"),
        ({}, {"REDIS_PORT": "tcp://[fd00::7]:6380"}, "", "redis://[fd00::7]:6380"),
        ({}, {"REDIS_PORT": "tcp://10.0.0.7:6380", "REDIS_HOST": "v"}, "", "redis://v:6380"),
        ({"redis_host": "a"}, {"REDIS_PORT": "tcp://10.0.0.7:6380"}, "", "redis://a:6379"),
    ],
)
def test_where_redis_is(
    flags: dict[str, str], environment: dict[str, str], in_file: str, address: str, tmp_path: Path
) -> None:
    """URL, host and port are taken together: any of them in one place beats all of them in a lower one."""
    settings = load({"config": config(tmp_path, in_file), **flags}, environment)
    assert str(settings.redis) == address


def test_unknown_variables() -> None:
    """Kubernetes sets such variables for a service called marketfeed or redis."""
    environment = {
        "MARKETFEED_PORT": "tcp://10.0.0.1:8080",
        "MARKETFEED_SERVICE_HOST": "10.0.0.1",
        "MARKETFEED_PORT_8080_TCP": "x",
        "MARKETFEED_": "x",
        "MARKETFEED_NO_SUCH_OPTION": "x",
        "marketfeed_linger": "x",
        "LINGER": "x",
    }
    assert load({}, environment) == Settings()


def test_empty_variables() -> None:
    """An empty variable counts as unset, whatever the option."""
    assert load({}, {option.environment: "" for option in OPTIONS}) == Settings()


# Values.


@pytest.mark.parametrize(
    "text", ["0", "8080", "65535", "tcp:8080", "unix:/run/feed.sock", "systemd:domain=INET:index=0"]
)
def test_ports(text: str) -> None:
    """A number or an endpoint description, which is Twisted's to read."""
    assert load({"port": text}, {}).port == text


@pytest.mark.parametrize("text", ["1", "true", "TRUE", "yes", "on"])
def test_switch_on(text: str) -> None:
    """The usual words for yes."""
    assert load({}, {"MARKETFEED_DEMO": text}).demo is True


@pytest.mark.parametrize("text", ["0", "false", "False", "no", "off"])
def test_switch_off(text: str) -> None:
    """The usual words for no."""
    assert load({}, {"MARKETFEED_DEMO": text}).demo is False


def test_file_values(tmp_path: Path) -> None:
    """The file's own types are as good as text."""
    text = 'port = 7000\nrequest_rate = 2.5\nlinger = 1e1\nmax_payload = 1_000\ndemo = true\nvalidate = "warn"\n'
    settings = load({"config": config(tmp_path, text)}, {})
    assert (settings.port, settings.request_rate, settings.linger) == ("7000", 2.5, 10.0)
    assert (settings.max_payload, settings.demo, settings.validate) == (1000, True, "warn")


def source(field: str, place: str, path: str) -> str:
    """How a message names where a value was given."""
    return {
        "flag": f"--{field.replace('_', '-')}",
        "variable": f"the variable {BY_FIELD[field].environment}",
        "file": f"{field} in {path}",
    }[place]


@pytest.mark.parametrize("place", ["flag", "variable", "file"])
@pytest.mark.parametrize("field", BAD)
def test_bad_values(field: str, place: str, tmp_path: Path) -> None:
    """A bad value ends the start with one line: its source, the value, and what would be accepted."""
    accepted, bad = BAD[field]
    for text in bad:
        if place == "flag":
            path, line = "", refusal({field: text})
        elif place == "variable":
            if not text:
                continue
            path, line = "", refusal(environment={BY_FIELD[field].environment: text})
        else:
            path = config(tmp_path, f'{field} = "{text}"'.replace("\t", "\\t"))
            line = refusal({"config": path})
        assert line.startswith(f"{source(field, place, path)}: {text[:80]!r} cannot be used; expected ")
        if not text.startswith("tcp://h"):
            assert accepted in line


@pytest.mark.parametrize("place", ["flag", "variable", "file"])
def test_bad_url(place: str, tmp_path: Path) -> None:
    """A bad URL is named by its source, and never repeated."""
    path = config(tmp_path, 'redis_url = "http://secret@h"')
    if place == "flag":
        line = refusal({"redis_url": "http://secret@h"})
    elif place == "variable":
        line = refusal(environment={"REDIS_URL": "http://secret@h"})
    else:
        line = refusal({"config": path})
    assert line.startswith(f"{source('redis_url', place, path)}: the scheme is another; expected redis://")
    assert "secret" not in line


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "no_such_option = 1",
            "no_such_option in {path}: unknown; expected streams, markets or one of admin, admin_host, ",
        ),
        ("config = 'other.toml'", "config in {path}: unknown; expected streams, markets or one of "),
        ('"a\\nb" = 1', "a\\nb in {path}: unknown; expected streams, markets or one of "),
        ("[limits]\nmax_streams = 1", "limits in {path}: unknown; expected streams, markets or one of "),
        ("max-streams = 1", "max-streams in {path}: unknown; expected streams, markets or one of "),
        ("max_streams = [1]", "max_streams in {path}: expected a string, a number, true or false"),
        ("max_streams = ['1']", "max_streams in {path}: expected a string, a number, true or false"),
        (
            "trusted_proxy = [1]",
            "trusted_proxy in {path}: expected a string, a number, true or false, or a list of str",
        ),
        (
            "trusted_proxy = ['::1', ['::2']]",
            "trusted_proxy in {path}: expected a string, a number, true or false, or ",
        ),
        ("trusted_proxy = []", "trusted_proxy in {path}: '' cannot be used; expected an address such as "),
        ("trusted_proxy = ['::1', 'x']", "trusted_proxy in {path}: 'x' cannot be used; expected an address such as "),
        ("memory_limit = 0.85", "memory_limit in {path}: '0.85' cannot be used; expected a size from 1MiB up"),
        ("streams = 1", "streams in {path}: expected tables, as [streams.orders]"),
        ("[streams.trade]\nloss = 'keep'", "streams.trade in {path}: this kind is built in; expected another name"),
        ("[max_streams]\nx = 1", "max_streams in {path}: expected a string, a number, true or false"),
        ("linger = 2024-01-01", "linger in {path}: expected a string, a number, true or false"),
        ("max_streams = 0x" + "f" * 5000, "max_streams in {path}: expected a string, a number, true or false"),
        ("max_streams = true", "max_streams in {path}: 'true' cannot be used; expected a whole number, 1 or more"),
        ("max_streams = 10.0", "max_streams in {path}: '10.0' cannot be used; expected a whole number, 1 or more"),
        ("linger = inf", "linger in {path}: 'inf' cannot be used; expected a number of seconds, 0 or more"),
        ("demo = 2", "demo in {path}: '2' cannot be used; expected true or false"),
        ("max_streams = ", "--config: {path} is not TOML: Invalid value (at "),
        ("max_streams = 1\nmax_streams = 2", "--config: {path} is not TOML: Cannot overwrite a value (at "),
        ("max_streams = " + "1" * 5000, "--config: {path} is not TOML: "),
        ("linger = " + "[" * 100000, "--config: {path} is not TOML: "),
        (b"linger = '\xff'", "--config: {path} is not TOML: 'utf-8' codec can't decode byte 0xff"),
        (b"\xef\xbb\xbflinger = 1", "--config: {path} is not TOML: "),
    ],
)
def test_bad_file(text: str | bytes, fault: str, tmp_path: Path) -> None:
    """What is wrong with the file is said in one line, with the file's name."""
    path = config(tmp_path, text)
    assert refusal({"config": path}).startswith(fault.format(path=path))


def test_unreadable_file(tmp_path: Path) -> None:
    """A file that is not there, or cannot be one, is named with the source of its name."""
    missing = str(tmp_path / "missing.toml")
    assert refusal({"config": missing}) == f"--config: {missing}: No such file or directory"
    line = refusal(environment={"MARKETFEED_CONFIG": str(tmp_path)})
    assert line == f"the variable MARKETFEED_CONFIG: {tmp_path}: Is a directory"
    assert refusal({"config": ""}).startswith("--config: ")
    assert refusal({"config": "a\nb"}) == "--config: a\\nb: No such file or directory"
    assert refusal({"config": "a\0b"}).startswith("--config: a\\x00b is not TOML: ")


# Several values.

A, B, C = (OriginPattern("https", host) for host in ("a.example", "b.example", "c.example"))


@pytest.mark.parametrize(
    ("in_file", "variable", "flag", "origins"),
    [
        ("", "", "https://a.example,https://b.example", (A, B)),
        ("", "", " https://a.example , ,https://b.example, ", (A, B)),
        ("", "https://a.example,https://b.example", None, (A, B)),
        ('allowed_origin = ["https://a.example", "https://b.example"]', "", None, (A, B)),
        ('allowed_origin = "https://a.example,https://b.example"', "", None, (A, B)),
        ('allowed_origin = ["https://a.example"]', "https://b.example", None, (B,)),
        ('allowed_origin = ["https://a.example"]', "https://b.example", "https://c.example", (C,)),
        ("", "*", None, (ANY,)),
        ("", "null,https://a.example:443", None, (NULL, A)),
    ],
)
def test_several_values(
    in_file: str, variable: str, flag: str | None, origins: tuple[OriginPattern, ...], tmp_path: Path
) -> None:
    """Commas part them in a flag, a variable and a text of the file, which has arrays too. Places do not add up."""
    flags = {"config": config(tmp_path, in_file)} | ({} if flag is None else {"allowed_origin": flag})
    assert load(flags, {"MARKETFEED_ALLOWED_ORIGINS": variable}).allowed_origin == origins


def test_networks_of_proxies() -> None:
    """Both families, and Unix sockets."""
    networks: tuple[Network, ...] = (ip_network("10.0.0.0/8"), ip_network("::1"), "unix")
    assert load({}, {"MARKETFEED_TRUSTED_PROXY": "10.0.0.0/8,::1,unix"}).trusted_proxy == networks


def test_the_one_that_is_bad_is_named() -> None:
    """Of many, which may be longer than a line."""
    many = ",".join(["https://a.example"] * 100 + ["https://b.example/path"])
    line = refusal({"allowed_origin": many})
    assert line.startswith("--allowed-origin: 'https://b.example/path' cannot be used; expected scheme://host[:port] ")


# Rules between options.


@pytest.mark.parametrize(
    ("flags", "environment", "in_file"),
    [({"connect_rate": "300"}, {}, ""), ({}, {"MARKETFEED_CONNECT_RATE": "300"}, ""), ({}, {}, "connect_rate = 300")],
)
def test_a_connect_rate_that_is_given_spares_nobody(
    flags: dict[str, str], environment: dict[str, str], in_file: str, tmp_path: Path
) -> None:
    """Be it the default one; only the default that nobody chose spares local addresses."""
    assert load({}, {"MARKETFEED_CONNECT_RATE": ""}).spares_local
    assert not load({**flags, "config": config(tmp_path, in_file)}, environment).spares_local


@pytest.mark.parametrize("mode", ["optional", "required"])
def test_tokens_need_keys(mode: str, tmp_path: Path) -> None:
    """A key or a JWKS, from any place; the line names where tokens were asked for."""
    fault = "expected together with --auth-key or --auth-jwks"
    assert refusal({"auth": mode}) == f"--auth: {fault}"
    assert refusal({}, {"MARKETFEED_AUTH": mode}) == f"the variable MARKETFEED_AUTH: {fault}"
    path = config(tmp_path, f"auth = '{mode}'\nauth_audience = 'x'")
    assert refusal({"config": path}) == f"auth in {path}: {fault}"
    for field in ("auth_key", "auth_jwks"):
        settings = load({"config": path}, {BY_FIELD[field].environment: "/k"})
        assert (settings.auth, getattr(settings, field)) == (mode, "/k")


@pytest.mark.parametrize("field", ["auth_key", "auth_jwks", "auth_audience", "auth_issuer"])
@pytest.mark.parametrize("auth", [{}, {"auth": "off"}], ids=["by default", "given"])
def test_what_is_about_tokens_needs_tokens(field: str, auth: dict[str, str], tmp_path: Path) -> None:
    """Who names a key thinks that nobody gets in without one."""
    path = config(tmp_path, f"{field} = 'x'")
    fault = "expected together with --auth optional or --auth required"
    assert refusal({**auth, field: "x"}) == f"{source(field, 'flag', path)}: {fault}"
    assert refusal(auth, {BY_FIELD[field].environment: "x"}) == f"{source(field, 'variable', path)}: {fault}"
    assert refusal({**auth, "config": path}) == f"{source(field, 'file', path)}: {fault}"


KINDS = "[streams.orders]\nprivate = true\nloss = 'keep'\n[streams.funding]\nloss = 'latest'\n"


def test_kinds_are_declared_in_the_file(tmp_path: Path) -> None:
    """Beside the options of the same file."""
    path = config(tmp_path, f"auth = 'required'\nauth_key = '/k'\n{KINDS}")
    settings = load({"config": path}, {})
    assert settings.kinds == (
        StreamKind("orders", LossPolicy.KEEP, private=True),
        StreamKind("funding", LossPolicy.LATEST),
    )
    assert load({}, {"MARKETFEED_CONFIG": path}).kinds == settings.kinds


def test_private_kinds_need_tokens(tmp_path: Path) -> None:
    """Nobody could subscribe to them. Public ones need none."""
    path = config(tmp_path, KINDS)
    line = f"streams.orders in {path}: private streams are for the bearers of tokens; "
    line += "expected together with --auth optional or --auth required"
    assert refusal({"config": path}) == line
    assert refusal({"auth": "off"}, {"MARKETFEED_CONFIG": path}) == line
    assert load({"config": path, "auth": "optional", "auth_key": "/k"}, {}).kinds
    assert load({"config": config(tmp_path, "[streams.funding]\nloss = 'latest'\n")}, {}).kinds


def test_only_streams_of_declared_kinds_are_kept_warm(tmp_path: Path) -> None:
    """Private ones too; the line names the pattern, and the kinds that there are."""
    fault = "expected a stream or a pattern of streams such as depth@TATA_INR or depth@*, of one of the kinds"
    line = (
        f"'orders@*' cannot be used; {fault} trade, depth, ticker, kline_<interval>, miniTicker, !miniTicker, aggTrade"
    )
    assert refusal({"warm": "depth@*,orders@*"}) == f"--warm: {line}"
    for text in ("depth@", "depth@A@100ms", "depth@[AB]", "redis://:secret@h"):
        assert refusal({"warm": text}) == f"--warm: what is given cannot be used; {fault.partition(', of')[0]}"
    assert refusal({}, {"MARKETFEED_WARM": "orders@*"}) == f"the variable MARKETFEED_WARM: {line}"
    path = config(tmp_path, f"auth = 'required'\nauth_key = '/k'\nwarm = ['depth@*', 'orders@alice']\n{KINDS}")
    assert load({"config": path}, {}).warm == ("depth@*", "orders@alice")
    assert refusal({"config": path, "warm": "o?@*"}) == f"--warm: {line.replace('orders@*', 'o?@*')}, orders, funding"


def test_demo_brings_its_own_redis(tmp_path: Path) -> None:
    """The demo's server is embedded, whatever the environment or the file says of another."""
    path = config(tmp_path, 'redis_host = "f"')
    environment = {"REDIS_URL": "rediss://u:p@v:1", "MARKETFEED_REDIS_CA": "/ca.pem"}
    environment |= {"MARKETFEED_REDIS_CERTIFICATE": "/c.pem", "MARKETFEED_REDIS_KEY": "/c.key"}
    for settings in (load({"demo": "true"}, environment), load({"demo": "true", "config": path}, {})):
        assert settings.demo
        assert settings.redis is EMBEDDED
        assert settings.redis_tls == RedisTls()
    assert load({"demo": "false"}, environment).redis == RedisAddress("v", 1, "", True, "u", "p")


@pytest.mark.parametrize("field", [*REDIS_GROUP, "redis_ca", "redis_certificate", "redis_key"])
@pytest.mark.parametrize(
    ("flags", "environment", "source"),
    [({"demo": "true"}, {}, "--demo"), ({}, {"MARKETFEED_DEMO": "1"}, "the variable MARKETFEED_DEMO")],
)
def test_demo_and_redis_flags(field: str, flags: dict[str, str], environment: dict[str, str], source: str) -> None:
    """Who asks for both in one command is told which command does it."""
    value = {"redis_url": "redis://h", "redis_host": "h", "redis_port": "1"}.get(field, "/c.pem")
    line = refusal({**flags, field: value}, environment)
    assert line.startswith(f"{source}: it brings its own server; for a market on yours run: marketfeed simulate ")


@pytest.mark.parametrize("environment", [{}, {"REDIS_URL": "redis://h"}, {"REDIS_HOST": "h"}])
def test_ca_without_tls(environment: dict[str, str]) -> None:
    """A CA that nothing would be verified with is a mistake, and so is a certificate that nobody would see."""
    assert refusal({"redis_ca": "/ca.pem"}, environment) == "--redis-ca: expected together with a rediss:// URL"
    for flags in ({"redis_certificate": "/c.pem", "redis_key": "/c.key"}, {"redis_certificate": "/c.pem"}):
        assert refusal(flags, environment) == "--redis-certificate: expected together with a rediss:// URL"
    assert refusal({"redis_key": "/c.key"}, environment) == "--redis-key: expected together with a rediss:// URL"


def test_a_certificate_and_its_key_belong_together(tmp_path: Path) -> None:
    """Wherever each is given; one alone is named by its source."""
    environment = {"REDIS_URL": "rediss://h"}
    line = "expected together with --redis-key"
    assert refusal({"redis_certificate": "/c.pem"}, environment) == f"--redis-certificate: {line}"
    variable = {"MARKETFEED_REDIS_CERTIFICATE": "/c.pem"}
    assert refusal({}, environment | variable) == f"the variable MARKETFEED_REDIS_CERTIFICATE: {line}"
    path = config(tmp_path, "redis_key = '/c.key'")
    line = "expected together with --redis-certificate"
    assert refusal({"config": path}, environment) == f"redis_key in {path}: {line}"
    settings = load({"config": path, "redis_ca": "/ca.pem"}, environment | variable)
    assert settings.redis_tls == RedisTls("/ca.pem", "/c.pem", "/c.key")


# Secrets.


def test_password_in_a_flag_draws_a_warning() -> None:
    """Other users of the host see the command line; variables and files they do not."""
    settings = load({"redis_url": "redis://:secret@h"}, {})
    (warning,) = settings.warnings
    assert warning.startswith("--redis-url holds a password")
    assert "secret" not in warning
    assert load({}, {"REDIS_URL": "redis://:secret@h"}).warnings == ()
    assert load({"redis_url": "redis://feed@h"}, {}).warnings == ()


@pytest.mark.parametrize("field", [field for field in BY_FIELD if field not in ("demo", "config", "redis_ca")])
def test_url_in_the_wrong_place(field: str) -> None:
    """A URL with a password given as another option does not show in the error."""
    url = "redis://:secret@h:6379"
    try:
        shown = repr(load({field: url}, {}).redis)
    except BadSetting as error:
        shown = str(error)
    assert "secret" not in shown


@property_test
@given(
    st.text(string.ascii_letters, max_size=9).map("zq7w".__add__),
    st.text(string.printable, max_size=6),
    st.sampled_from(("@h", "@h:x", "", "@h/" + "1" * 5000)),
)
def test_password_never_shows(secret: str, junk: str, behind: str) -> None:
    """Neither the settings nor an error repeat a password, however the URL ends."""
    for flags, environment in (
        ({"redis_url": f"redis://u:{secret}{junk}{behind}"}, {}),
        ({}, {"REDIS_URL": f"rediss://:{secret}{junk}{behind}"}),
    ):
        try:
            settings = load(flags, environment)
            shown = f"{settings} {settings!r} {settings.warnings}"
        except BadSetting as error:
            shown = str(error)
        assert secret not in shown


# Whatever is given.

given_texts = st.text(st.characters()) | st.sampled_from(
    ("1", "0", "true", "redis://h", "tcp://h:1", "json", "1e5", "::1")
)
fields = st.sampled_from(sorted(BY_FIELD.keys() - {"config"}))


@property_test
@given(st.dictionaries(fields, given_texts, max_size=4), st.dictionaries(fields, given_texts, max_size=4))
@example({"max_streams": "1" * 5000}, {})
@example({"port": ":"}, {})
def test_any_text(flags: dict[str, str], variables: dict[str, str]) -> None:
    """Any text in any place gives settings, or one line."""
    environment = {BY_FIELD[field].environment: text for field, text in variables.items()}
    try:
        settings = load(flags, environment)
    except BadSetting as error:
        assert_one_line(error)
        return
    assert isinstance(settings, Settings)


def assert_one_line(error: BadSetting) -> None:
    """The message is one line that names a source."""
    line = str(error)
    assert len(line.splitlines()) == 1
    assert line.startswith(("--", "the variable ")) or " in " in line


@property_test
@given(
    st.binary()
    | st.text().map(str.encode)
    | st.builds("{} = {}\n".format, fields, st.text(string.printable) | st.integers() | st.floats()).map(str.encode)
)
def test_any_file(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Any bytes in the file give settings, or one line."""
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    try:
        load({"config": str(path)}, {})
    except BadSetting as error:
        assert_one_line(error)


def test_options_are_data() -> None:
    """An option is a row of a table: its flag, group and help, how its text is read, and where else it is found."""
    option = Option("some-thing", "Group", "help", str)
    assert (option.field, option.environment) == ("some_thing", "MARKETFEED_SOME_THING")


class TestMisspeltVariables:
    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("MARKETFEED_MAX_CONECTIONS", "MARKETFEED_MAX_CONNECTIONS"),
            ("MARKETFEED_MAX_CONNECTIONSS", "MARKETFEED_MAX_CONNECTIONS"),
            ("MARKETFEED_MAX-CONNECTIONS", "MARKETFEED_MAX_CONNECTIONS"),
            ("MARKETFEED_LOG_LEVLE", "MARKETFEED_LOG_LEVEL"),
            ("MARKETFEED_ALLOWED_ORIGIN", "MARKETFEED_ALLOWED_ORIGINS"),
        ],
    )
    def test_one_edit_away_from_an_option_is_told(self, name: str, meant: str) -> None:
        """Whatever it holds, which is not shown: it might be secret."""
        assert load({}, {name: "secret"}).warnings == (f"the variable {name} is no option; {meant} is one",)

    @pytest.mark.parametrize(
        "name",
        [
            *("MARKETFEED_LOG_LEVEL", "MARKETFEED_AUDIT", "MARKETFEED_", "MARKETFEED", "MARKETFED_AUTH", "REDIS_ULR"),
            *("MARKETFEED_PORT", "MARKETFEED_SERVICE_HOST", "MARKETFEED_PORT_8080_TCP_ADDR", "MARKETFEED_LOG"),
        ],
    )
    def test_any_other_name_may_be_somebody_s(self, name: str) -> None:
        """As those that Kubernetes makes of a service with our name."""
        assert load({}, {name: "info"}).warnings == ()

    def test_no_option_is_taken_for_another(self) -> None:
        """However alike their names are."""
        values = {option.environment: "" for option in OPTIONS}
        assert load({}, values).warnings == ()

    @given(st.sampled_from([option.environment for option in OPTIONS]), st.integers(11, 60), st.sampled_from("XYZ"))
    def test_any_one_letter_is_noticed(self, name: str, at: int, letter: str) -> None:
        """One too many, one too few, a wrong one, and two in the wrong order."""
        if not name.startswith("MARKETFEED_"):
            return
        at = min(at, len(name) - 1)
        head, rest = name[:at], name[at:]
        known = {option.environment for option in OPTIONS}
        for wrong in {head + letter + rest, head + rest[1:], head + letter + rest[1:], head + rest[1::-1] + rest[2:]}:
            if wrong not in known:
                assert f"{name} is one" in "".join(load({}, {wrong: "1"}).warnings)


def test_whether_the_number_of_clients_was_given_is_known() -> None:
    """Also where it is the default's."""
    assert not load({}, {}).gives_max_connections
    assert not load({}, {}).gives_admin
    assert load({"admin": "8081"}, {}).gives_admin
    assert load({"max_connections": "20000"}, {}).gives_max_connections


def test_what_differs_from_the_defaults() -> None:
    """As people may see it: no password of a URL, and lists as they are given."""
    flags = {"redis_url": "redis://u:secret@h:7000/2", "compression": "off", "history": "5", "auth": "optional"}
    flags |= {
        "allowed_origin": "https://*.example",
        "auth_key": "/k",
        "trusted_proxy": "10.0.0.0/8,unix",
        "memory_limit": "512MiB",
    }
    shown = changed(load(flags, {}))
    assert shown == {
        "--redis-url": "redis://u:***@h:7000/2",
        "--compression": "off",
        "--history": "5",
        "--auth": "optional",
        "--auth-key": "/k",
        "--trusted-proxy": "10.0.0.0/8, unix",
        "--memory-limit": "512MiB",
        "--allowed-origin": "https://*.example",
    }
    assert changed(load({}, {})) == {}


def test_which_channels_a_cluster_has_is_said_only_of_one() -> None:
    """Where they are heard; what is missing is named."""
    line = "--pubsub: expected together with"
    assert refusal({"pubsub": "classic"}) == f"{line} --redis-url redis-cluster://…"
    cluster = {"REDIS_URL": "redis-cluster://h"}
    assert refusal({"pubsub": "sharded", "source": "streams"}, cluster) == f"{line} --source pubsub"
    assert load({"pubsub": "classic"}, cluster).pubsub == "classic"


def test_sharded_channels_have_no_patterns() -> None:
    """Names are kept ready; with channels of the other sort patterns are, too, and with streams."""
    cluster = {"REDIS_URL": "redis-cluster://h"}
    assert load({"warm": "depth@A"}, cluster).warm == ("depth@A",)
    why = "Redis has no patterns of sharded channels; expected names of streams, or --pubsub classic"
    assert refusal({"warm": "depth@A,ticker@*"}, cluster) == f"--warm: 'ticker@*' cannot be used: {why}"
    for flags in ({"pubsub": "classic"}, {"source": "streams"}):
        assert load({"warm": "ticker@*", **flags}, cluster).warm == ("ticker@*",)
