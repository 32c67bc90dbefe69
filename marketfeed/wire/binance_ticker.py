"""Tickers as clients made for Binance read them, each a `24hrTicker` with all fields (docs/protocol.md#payloads).

1. What is known besides a ticker, and what follows from its price, is written once for all tickers that lack the same
   fields and say the same prices, until something else is known. Times are written each time.
2. A ticker that is plainly written, and begins with `e`, is added to without being taken apart.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from marketfeed.wire.binance import FAULTS, event_time, replaced
from marketfeed.wire.ticker_fields import DAY, ticker_fields

__all__ = ["TickerPayloads"]

_HEAD, _DAY_HEAD = b'{"e":"ticker",', b'{"e":"24hrTicker",'
_BEHIND_HEAD = len(_HEAD)
_REMEMBERED = 64
_Raw = msgspec.Raw
_NONE = _Raw()
_fields = msgspec.json.Decoder(dict[str, _Raw]).decode

_Key = tuple[str | bytes, ...]
"""The fields that there are; the last price, that of the open, and the change between the two, if they are there."""


class _Tail(msgspec.Struct, gc=False):
    """What is added. `text`: all but the times; the rest: which of these are missing besides.

    `plain`: where all of them are, the whole of a ticker, to be filled in with its own members and the times.
    """

    text: bytes
    lacks_event: bool
    lacks_open: bool
    lacks_close: bool
    plain: bytes = b""


class TickerPayloads:
    """The tickers of one stream. `market`: as JSON."""

    __slots__ = ("_known", "_market", "_tails")

    def __init__(self, market: bytes) -> None:
        self._market = market
        self._known: Mapping[str, bytes] = {}
        self._tails: dict[_Key, _Tail] = {}  # while that is what is known

    def update(self, data: bytes, at: int, known: Mapping[str, bytes]) -> bytes:
        """A ticker with all fields. `at`: when it was published, in ms since 1970; `known`: some of the fields that may
        be missing, as JSON, by their names.
        """
        try:
            is_plain = data.startswith(_HEAD) and data.endswith(b"}") and data.count(b'"e"') == 1
            if not is_plain or b"null" in data:
                return self._taken_apart(data, at, known)
            given = _fields(data)
            if known != self._known:
                self._known = known
                self._tails.clear()
            key: _Key = (*given, bytes(given["c"]))
            if "o" in given or "p" in given:
                key = (*key, bytes(given.get("o", _NONE)), bytes(given.get("p", _NONE)))
            found = self._tails.get(key)
            if found is None:
                found = self._remember(key, given, known)
            if found.plain:
                return found.plain % (data[_BEHIND_HEAD:-1], at, at - DAY, at)
            event = event_time(given, at) if found.lacks_event else bytes(given["E"])
            ended = int(event) if event.isdigit() else at
            times = b',"E":%b' % event if found.lacks_event else b""
            if found.lacks_open:
                times += b',"O":%d' % (ended - DAY)
            if found.lacks_close:
                times += b',"C":%d' % ended
            return b"%b%b%b%b}" % (_DAY_HEAD, data[_BEHIND_HEAD:-1], found.text, times)
        except FAULTS:
            return data

    def _remember(self, key: _Key, given: Mapping[str, msgspec.Raw], known: Mapping[str, bytes]) -> _Tail:
        missing = ticker_fields(given, known)
        if "s" not in given:
            missing["s"] = self._market
        text = b"".join([b',"%b":%b' % (name.encode(), value) for name, value in missing.items()])
        tail = _Tail(
            text,
            lacks_event="E" not in given,
            lacks_open="O" not in given and "O" not in missing,
            lacks_close="C" not in given and "C" not in missing,
        )
        if tail.lacks_event and tail.lacks_open and tail.lacks_close and "T" not in given:
            tail.plain = b'%b%%b%b,"E":%%d,"O":%%d,"C":%%d}' % (_DAY_HEAD, text.replace(b"%", b"%%"))
        if len(self._tails) >= _REMEMBERED:
            self._tails.clear()
        self._tails[key] = tail
        return tail

    def _taken_apart(self, data: bytes, at: int, known: Mapping[str, bytes]) -> bytes:
        given = _fields(data)
        present = {name: value for name, value in given.items() if bytes(value) != b"null"}
        missing: dict[str, bytes] = {}
        if bytes(present.get("e", _Raw())) != b'"24hrTicker"':
            missing["e"] = b'"24hrTicker"'
        if "s" not in present:
            missing["s"] = self._market
        missing.update(ticker_fields(present, known))
        if "E" not in present:
            missing["E"] = event_time(present, at)
        event = missing.get("E") or bytes(present["E"])
        ended = int(event) if event.isdigit() else at
        times = {"O": b"%d" % (ended - DAY), "C": b"%d" % ended}
        missing.update({name: time for name, time in times.items() if name not in present and name not in missing})
        return replaced(data, missing, given) if missing else data
