"""The candle service put together, for `marketfeed candles` and for a daemon with `--candles`."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
from twisted.application.service import IService

from marketfeed.candles.lease import Lease
from marketfeed.candles.markets import CandleLimits, Past
from marketfeed.candles.service import CandleService
from marketfeed.candles.store import CandleStore
from marketfeed.candles.trades import HeardTrades, ReadTrades, Taker, Trades
from marketfeed.model.candle_store import CandleKeys
from marketfeed.model.intervals import Calendar
from marketfeed.model.selection import parse_selection
from marketfeed.model.streams import StreamKinds
from marketfeed.redis.publisher import RoutedPublisher
from marketfeed.redis.routed_commands import RoutedCommands
from marketfeed.redis.where import Where

__all__ = ["CandlePlan", "make_candles"]


class CandlePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator wants. `patterns`: of streams of trades; `late`: s that a trade may be late; `offset`: ms."""

    source: str
    prefix: str
    max_payload: int
    patterns: Sequence[str]
    keep: Mapping[str, int]
    late: float
    offset: int


def make_candles(reactor: Any, where: Where, plan: CandlePlan, past: Past | None = None) -> CandleService:
    """The service with all that it stands on but what finds Redis, which `where` has.

    Raises `BadSelection` or `BadGlob` for the patterns.
    """
    commands = RoutedCommands(reactor, where.keys, "candle commands")
    transactions = RoutedCommands(reactor, where.keys, "candle transactions")
    publisher = RoutedPublisher(reactor, where.keys, where.channels, is_sharded=where.is_sharded)
    keys = CandleKeys(plan.prefix)
    selection = parse_selection(plan.patterns, StreamKinds())

    def lead(taker: Taker) -> Trades:
        if plan.source == "streams":
            return ReadTrades(reactor, where, plan.prefix, plan.patterns, taker, commands)
        return HeardTrades(reactor, where, plan.prefix, selection, taker, commands)

    service = CandleService(
        reactor,
        CandleLimits(
            prefix=plan.prefix,
            max_payload=plan.max_payload,
            calendar=Calendar(plan.offset),
            late_ms=int(plan.late * 1000),
            keep=plan.keep,
        ),
        commands,
        CandleStore(transactions, keys, plan.keep, has_slots=where.has_slots),
        Lease(commands, keys.lease, f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}"),
        publisher,
        lead,
        past=past,
    )
    for each in (commands, transactions, publisher):
        cast(IService, each).setServiceParent(service)
    return service
