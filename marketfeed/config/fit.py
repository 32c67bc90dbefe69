"""Whether the values of several options go together, each of which could be used by itself.

One that does not fit is a `BadSetting`, whose line begins with where the value is from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from marketfeed.config.declared_kinds import BadSetting
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import StreamKind
from marketfeed.model.stream_globs import BadGlob, parse_glob
from marketfeed.redis.address import ClusterAddress

__all__ = ["NO_PATTERNS", "Given", "check_together"]

NO_PATTERNS = "Redis has no patterns of sharded channels; expected names of streams, or --pubsub classic"
"""Why a pattern cannot be used, and what can."""


class Given(msgspec.Struct, frozen=True):
    """A value as it was given, and where."""

    text: str
    source: str


def check_together(values: Mapping[str, Any], given: Mapping[str, Given], kinds: tuple[StreamKind, ...]) -> None:
    """Raises `BadSetting` for the first that does not fit. `values`: what the options come to, by field; `given`: as
    what they were given; `kinds`: those that the file declares.
    """
    _check_auth(values, given, kinds)
    _check_warm(values, given, kinds)
    _check_pubsub(values, given, kinds)


def _check_auth(values: Mapping[str, Any], given: Mapping[str, Given], kinds: tuple[StreamKind, ...]) -> None:
    """Tokens need keys, and all that is about tokens needs them."""
    if values.get("auth", "off") != "off":
        if not ("auth_key" in values or "auth_jwks" in values):
            raise BadSetting(f"{given['auth'].source}: expected together with --auth-key or --auth-jwks")
        return
    needed = "expected together with --auth optional or --auth required"
    for field in ("auth_key", "auth_jwks", "auth_audience", "auth_issuer"):
        if field in given:
            raise BadSetting(f"{given[field].source}: {needed}")
    for kind in kinds:
        if kind.private:
            path = repr(given["config"].text)[1:-1]
            raise BadSetting(f"streams.{kind.name} in {path}: private streams are for the bearers of tokens; {needed}")


def _check_pubsub(values: Mapping[str, Any], given: Mapping[str, Given], kinds: tuple[StreamKind, ...]) -> None:
    """Channels of a cluster are of two sorts, and of sharded ones there are no patterns in Redis."""
    is_cluster = isinstance(values.get("redis"), ClusterAddress)
    is_heard = values.get("source", "pubsub") == "pubsub"
    if "pubsub" in given and not (is_cluster and is_heard):
        needed = "--source pubsub" if is_cluster else "--redis-url redis-cluster://…"
        raise BadSetting(f"{given['pubsub'].source}: expected together with {needed}")
    if is_cluster and is_heard and values.get("pubsub", "sharded") == "sharded":
        for text in values.get("warm", ()):
            if not parse_glob(text, (*BUILT_IN, *kinds)).is_name:
                raise BadSetting(f"{given['warm'].source}: {text!r} cannot be used: {NO_PATTERNS}")
        if values.get("candles"):
            for text in values.get("candle_trades", ("trade@*",)):
                if not parse_glob(text, BUILT_IN).is_name:
                    source = given.get("candle_trades", given["candles"]).source
                    raise BadSetting(f"{source}: {text!r} cannot be used: {NO_PATTERNS}, in --candle-trades")


def _check_warm(values: Mapping[str, Any], given: Mapping[str, Given], kinds: tuple[StreamKind, ...]) -> None:
    """Which kinds there are is known only now."""
    for text in values.get("warm", ()):
        try:
            parse_glob(text, (*BUILT_IN, *kinds))
        except BadGlob as error:
            raise BadSetting(f"{given['warm'].source}: {text!r} cannot be used; expected {error}") from None
