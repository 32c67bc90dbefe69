"""The options by which a command finds the Redis server: the daemon's own, with its variables and its file."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from marketfeed.config.fit import NO_PATTERNS
from marketfeed.config.options import OPTIONS
from marketfeed.config.settings import BadSetting, Settings, load
from marketfeed.model.selection import StreamSelection
from marketfeed.redis.address import ClusterAddress, RedisAddress
from marketfeed.redis.tls import REDIS_TLS

if TYPE_CHECKING:
    from marketfeed.redis.where import Where

__all__ = [
    "add_redis_options",
    "add_server_options",
    "check_channels",
    "check_redis_files",
    "one_server",
    "redis_settings",
    "where_redis_is",
]

_SHARED = (
    *("redis_url", "redis_host", "redis_port", *REDIS_TLS, "pubsub", "channel_prefix", "log_format", "log_level"),
    "config",
)
"""The daemon's options that say where Redis is, and what the log looks like. Its others may be set, even badly, and
mean nothing here."""

_FOR_PRIVATE_KINDS = {"auth": "optional", "auth_key": "none"}
"""What a daemon would be told so that the file may declare private kinds. No key is read."""


def add_redis_options(parser: argparse.ArgumentParser) -> None:
    """Add them to a command."""
    group = parser.add_argument_group("Redis")
    add_server_options(group, has_default=True)
    group.add_argument("--pubsub", metavar="SORT", help="of a cluster's channels: sharded (the default) or classic")


def add_server_options(group: argparse._ArgumentGroup, *, has_default: bool) -> None:
    """Add them to a group. `has_default`: without a URL there is a server as well."""
    several = ", redis-sentinel://, redis-cluster://" if has_default else ""
    forms = f"redis://[user:password@]host:port[/db], rediss://, unix://{several}"
    group.add_argument("--redis-url", metavar="URL", help=forms)
    if has_default:
        group.add_argument("--redis-host", metavar="HOST", help="used when no URL is given (default: localhost)")
        group.add_argument("--redis-port", metavar="PORT", help="used when no URL is given (default: 6379)")
    group.add_argument("--redis-ca", metavar="FILE", help="of the CA that signed the server's certificate, for rediss")
    group.add_argument(
        "--redis-certificate", metavar="FILE", help="of the certificate to show to a rediss server that asks for one"
    )
    group.add_argument("--redis-key", metavar="FILE", help="of the key of that certificate")
    group.add_argument("--channel-prefix", metavar="PREFIX", help="before the stream's name in Redis")


def redis_settings(arguments: argparse.Namespace) -> Settings:
    """The settings that say where Redis is, and which kinds of streams there are. Raises `BadSetting`."""
    flags = {field: text for field in _SHARED if (text := getattr(arguments, field, None)) is not None}
    shared = {option.environment for option in OPTIONS if option.field in _SHARED}
    environment = {name: text for name, text in os.environ.items() if name in shared}
    settings = load({**flags, **_FOR_PRIVATE_KINDS}, environment, _SHARED)
    if settings.redis.embedded:
        raise BadSetting(
            "--redis-url or REDIS_URL: embedded: is a daemon's own server, which has its market with --demo; "
            "expected redis://, rediss:// or unix:///path of another"
        )
    return settings


def where_redis_is(reactor: Any, settings: Settings) -> Where:
    """The servers, for a command that keeps connections. Raises `BadSetting`."""
    from marketfeed.redis.where import find_redis

    try:
        return find_redis(reactor, settings.redis, settings.redis_tls, is_classic=settings.is_classic)
    except ValueError as error:
        raise BadSetting(str(error)) from None


def check_channels(settings: Settings, selection: StreamSelection) -> None:
    """See that there can be subscriptions to what is selected. Raises `BadSetting`."""
    if isinstance(settings.redis, ClusterAddress) and not settings.is_classic:
        for text in selection.texts:
            if "*" in text:
                raise BadSetting(f"{text!r} cannot be used: {NO_PATTERNS}")


def one_server(settings: Settings) -> RedisAddress:
    """The address of the only server, for a command that knows no others. Raises `BadSetting`."""
    if not isinstance(settings.redis, RedisAddress):
        raise BadSetting(
            "--redis-url or REDIS_URL: this command connects to one server; expected redis://, rediss:// or "
            "unix:///path of it"
        )
    return settings.redis


def check_redis_files(settings: Settings) -> None:
    """See that TLS to the server can be made, for a command that connects by itself. Raises `BadSetting`."""
    if settings.redis.tls:
        from marketfeed.redis.endpoint import check_files

        try:
            check_files(settings.redis, settings.redis_tls)
        except ValueError as error:
            raise BadSetting(str(error)) from None
