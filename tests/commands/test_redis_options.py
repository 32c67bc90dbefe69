"""Where a command finds the Redis server: flags, the daemon's variables, its file."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from marketfeed.commands.redis_options import add_redis_options, check_channels, one_server, redis_settings
from marketfeed.config.settings import BadSetting, Settings
from marketfeed.model.selection import parse_selection
from marketfeed.model.streams import StreamKinds
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.tls import RedisTls

pytestmark = pytest.mark.usefixtures("no_variables")


def settings(*arguments: str) -> Settings:
    parser = argparse.ArgumentParser()
    add_redis_options(parser)
    return redis_settings(parser.parse_args(arguments))


def test_without_anything() -> None:
    """It is the daemon's default."""
    assert settings().redis == RedisAddress()


def test_flags_beat_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any of them beats all of these."""
    monkeypatch.setenv("REDIS_URL", "redis://variable.example")
    monkeypatch.setenv("MARKETFEED_CHANNEL_PREFIX", "v:")
    assert settings().redis == RedisAddress(host="variable.example")
    found = settings("--redis-host=flag.example", "--redis-port=7000", "--channel-prefix=f:")
    assert (found.redis, found.channel_prefix) == (RedisAddress(host="flag.example", port=7000), "f:")
    assert settings("--redis-url=redis://url.example").redis == RedisAddress(host="url.example")
    assert settings("--redis-url=rediss://h", "--redis-ca=ca.pem").redis_ca == "ca.pem"
    monkeypatch.setenv("MARKETFEED_REDIS_KEY", "v.key")
    found = settings("--redis-url=rediss://h", "--redis-ca=ca.pem", "--redis-certificate=c.pem")
    assert found.redis_tls == RedisTls("ca.pem", "c.pem", "v.key")
    assert settings("--redis-url=rediss://h", "--redis-certificate=c.pem", "--redis-key=c.key").redis_key == "c.key"


def test_what_else_a_daemon_is_told_means_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither how it authenticates, in variables or in the file, nor a variable that is no good."""
    file = tmp_path / "marketfeed.toml"
    file.write_text('redis_host = "file.example"\ndemo = true\n[streams.orders]\nprivate = true\nloss = "keep"\n')
    monkeypatch.setenv("MARKETFEED_CONFIG", str(file))
    monkeypatch.setenv("MARKETFEED_AUTH", "required")
    monkeypatch.setenv("PORT", "nonsense")
    found = settings()
    assert found.redis == RedisAddress(host="file.example")
    assert [kind.name for kind in found.kinds] == ["orders"]


@pytest.mark.parametrize(
    "line", ['validate = "maybe"', "ping_interval = -1", "port = [1]", 'warm = "?"', "history = {}"]
)
def test_what_is_wrong_in_the_file_is_the_daemons_business(line: str, tmp_path: Path) -> None:
    """Unless it is about where Redis is, or a name that no option has, which may have been meant to be one of those."""
    file = tmp_path / "marketfeed.toml"
    file.write_text(f'redis_host = "file.example"\n{line}\n')
    found = redis_settings(argparse.Namespace(config=str(file)))
    assert found.redis == RedisAddress(host="file.example")
    for other in ('redis_port = "x"', "redis_hots = 1"):
        file.write_text(f"{other}\n{line}\n")
        with pytest.raises(BadSetting, match=other.partition(" ")[0]):
            redis_settings(argparse.Namespace(config=str(file)))


def test_a_server_of_the_daemons_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else can reach it."""
    monkeypatch.setenv("REDIS_URL", "embedded:")
    with pytest.raises(BadSetting, match="expected redis://, rediss:// or unix:///path of another"):
        settings()


@pytest.mark.parametrize("url", ["redis-sentinel://h:26379/feed", "redis-cluster://h:6379"])
def test_several_servers(url: str) -> None:
    """A command that knows no more than one says so."""
    found = settings(f"--redis-url={url}")
    assert str(found.redis) == url
    with pytest.raises(BadSetting, match=r"^--redis-url or REDIS_URL: .* one server; expected redis://"):
        one_server(found)


def test_the_channels_of_a_cluster() -> None:
    """By the daemon's rule; sharded ones have no patterns."""
    patterns, names = (
        parse_selection(["trade@A", "depth@*"], StreamKinds()),
        parse_selection(["trade@A"], StreamKinds()),
    )
    cluster = "--redis-url=redis-cluster://h"
    sharded, classic = settings(cluster), settings(cluster, "--pubsub=classic")
    assert (sharded.is_classic, classic.is_classic) == (False, True)
    for each, selection in ((sharded, names), (classic, patterns), (settings(), patterns)):
        check_channels(each, selection)
    with pytest.raises(BadSetting, match=r"^'depth@\*' cannot be used: .* names of streams, or --pubsub classic$"):
        check_channels(sharded, patterns)
    with pytest.raises(BadSetting, match=r"^--pubsub: expected together with --redis-url redis-cluster://…$"):
        settings("--pubsub=classic")


def test_the_log_is_as_the_daemons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By its variables, or its file."""
    assert (settings().log_format, settings().log_level) == ("text", "info")
    file = tmp_path / "marketfeed.toml"
    file.write_text('log_level = "warn"\n')
    monkeypatch.setenv("MARKETFEED_CONFIG", str(file))
    monkeypatch.setenv("MARKETFEED_LOG_FORMAT", "json")
    assert (settings().log_format, settings().log_level) == ("json", "warn")
