"""Publications as clients made for Binance read them (docs/protocol.md#payloads).

1. What is missing is added, and what those clients cannot read is written as they can; all else stays as the engine
   wrote it. A payload that lacks nothing is passed on as it is, the same bytes. A field that is null is missing. A time
   that is no number of ms stands for no other.
2. Nothing here raises: what is not as its kind requires, as `--validate warn` may let through, is passed on as it is.
3. Depth messages are differences to these clients, snapshots too: in a snapshot the levels that are gone follow, with a
   quantity of zero. Zero is the one text that they delete a level by, and a price has one spelling.
4. Most payloads are plainly written, and begin with `e`. They are added to without being taken apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from marketfeed.model.book import Prices
from marketfeed.model.kinds.depth import PlainDepth
from marketfeed.model.spelling import AMOUNTS, ZERO, PriceSpelling, spelled_levels

__all__ = ["FAULTS", "DepthPayloads", "Moment", "agg_trade", "event_time", "replaced", "trade"]

_Raw = msgspec.Raw
_UNSET = msgspec.UNSET
_encode = msgspec.json.encode
_fields = msgspec.json.Decoder(dict[str, _Raw]).decode
_pairs = msgspec.json.Decoder(list[tuple[_Raw, _Raw]]).decode


class Moment(msgspec.Struct, frozen=True, gc=False):
    """What is known of a depth message besides its payload. `at`: when it was published, in ms since 1970.

    `number`: its place among those of its stream, which count up, for who gives none itself; `previous`: that of the
    one before it, or None, where something is missing between them or nothing is known. `given`: the last id that the
    engine has given before it, if it gives some.
    """

    at: int
    number: int = 0
    previous: int | None = None
    given: int | None = None


class _Stamped(msgspec.Struct, gc=False):
    s: Any = _UNSET
    E: Any = _UNSET
    T: Any = _UNSET
    M: Any = _UNSET


class _Agg(msgspec.Struct, gc=False):
    t: _Raw = _Raw()
    p: _Raw = _Raw()
    q: _Raw = _Raw()
    m: _Raw = _Raw()
    s: _Raw = _Raw()
    E: _Raw = _Raw()
    T: _Raw = _Raw()


class _Depth(msgspec.Struct, gc=False):
    e: str
    a: list[tuple[str, str]]
    b: list[tuple[str, str]]
    s: Any = _UNSET
    E: Any = _UNSET
    T: Any = _UNSET
    U: Any = _UNSET
    u: Any = _UNSET
    snapshot: Any = _UNSET


_stamped = msgspec.json.Decoder(_Stamped).decode
_agg = msgspec.json.Decoder(_Agg).decode
_depth = msgspec.json.Decoder(_Depth).decode
_AGG_TRADE = b'{"e":"aggTrade","E":%b,"s":%b,"a":%b,"p":%b,"q":%b,"f":%b,"l":%b,"T":%b,"m":%b,"M":true}'  # of one trade
FAULTS = (
    ArithmeticError,
    ValueError,
    TypeError,
    KeyError,
    RecursionError,
)  # of a payload that is not what its kind requires


def trade(data: bytes, market: bytes, at: int) -> bytes:
    """A trade with `E`, `T`, `s` and `M`. `market`: as JSON; `at`: when it was published, in ms since 1970."""
    try:
        found = _stamped(data)
        event, traded, is_named, has_mark = found.E, found.T, found.s is not _UNSET, found.M is not _UNSET
        if event is traded is _UNSET and not has_mark and found.s is not None:
            tail = b',"E":%d,"T":%d,"M":true' % (at, at)  # it is what an engine writes that gives no more than it must
        elif None in (event, traded, found.M, found.s):
            return replaced(data, _trade_fields(_fields(data), market, at))
        else:
            tail = b""
            if event is _UNSET:
                tail += b',"E":%d' % (traded if type(traded) is int else at)
            if traded is _UNSET:
                tail += b',"T":%d' % (event if type(event) is int else at)
            if not has_mark:
                tail += b',"M":true'
        if not is_named:
            tail += b',"s":%b' % market
        return _behind(data, tail) if tail else data
    except FAULTS:
        return data


def agg_trade(data: bytes, market: bytes, at: int) -> bytes:
    """A trade as an aggregated one of which it is the only one. `market`, `at`: as of `trade`."""
    try:
        found = _agg(data)
        event, traded = found.E or _time(found.T, at), found.T or _time(found.E, at)
        if b"null" not in data and found.t and found.p and found.q and found.m and found.s:
            return _AGG_TRADE % (event, found.s, found.t, found.p, found.q, found.t, found.t, traded, found.m)
        trade_fields = _trade_fields(_fields(data), market, at)
    except FAULTS:
        return data
    number = trade_fields.get("t")
    fields: dict[str, bytes | msgspec.Raw | None] = {
        "e": b'"aggTrade"',
        "E": trade_fields["E"],
        "s": trade_fields["s"],
        "a": number,
        "p": trade_fields.get("p"),
        "q": trade_fields.get("q"),
        "f": number,
        "l": number,
        "T": trade_fields["T"],
        "m": trade_fields.get("m"),
        "M": trade_fields["M"],
    }
    return _object({name: value for name, value in fields.items() if value is not None})


class DepthPayloads:
    """The depth messages of one stream. `prices`: how its prices are written, wherever they are."""

    __slots__ = ("_bare", "_market", "_named", "_prices")

    def __init__(self, market: bytes, prices: PriceSpelling) -> None:
        self._market = market
        self._named = b',"s":%b' % market
        self._bare = b'{"e":"depthUpdate",%%b,"E":%%d,"s":%b,"U":%%d,"u":%%d}' % market.replace(b"%", b"%%")
        self._prices = prices

    def bare(self, data: bytes, plain: PlainDepth, at: int, number: int, previous: int | None) -> bytes | None:
        """What `update` makes of what has been read as `plain`, if an engine that gives no ids has written no more than
        it must, and its levels as they are to be written; None: it has not. The rest: as of a `Moment`.
        """
        if not plain.E is plain.T is plain.s is plain.U is plain.u is plain.snapshot is _UNSET:
            return None
        prices, amounts = self._prices.kept, AMOUNTS.kept
        for rows in (plain.a, plain.b):
            for price, amount in rows:
                if price not in prices or amount not in amounts:
                    return None
        if data.count(b":") == _LEAST and data.startswith(_DEPTH_HEAD) and data.endswith(b"}"):
            first = number if previous is None or previous >= number else previous + 1
            return self._bare % (data[_BEHIND_DEPTH_HEAD:-1], at, first, number)
        return None

    def update(
        self, data: bytes, moment: Moment, vanished: Prices | None = None, plain: PlainDepth | None = None
    ) -> bytes:
        """A depth message as a difference. `vanished`, of a snapshot: what was there before it and is not in it; None:
        nobody knows, and its `U` is its own `u`, so that a client sees it. `plain`: what has been read of it.
        """
        try:
            if plain is not None and plain.snapshot is not True and self._keeps(plain.a, plain.b):
                is_bare = plain.E is plain.T is plain.s is plain.U is plain.u is _UNSET
                if is_bare or None not in (plain.s, plain.E, plain.T, plain.U, plain.u):
                    return self._headed(data, plain, moment, is_bare)
            try:
                found = _depth(data)
            except msgspec.ValidationError:  # some levels are numbers
                return self._taken_apart(data, moment, vanished)
            is_bare = found.E is found.T is found.s is found.U is found.u is _UNSET
            if found.snapshot is True or (not is_bare and None in (found.s, found.E, found.T, found.U, found.u)):
                return self._taken_apart(data, moment, vanished)
            if self._keeps(found.a, found.b):
                return self._headed(data, found, moment, is_bare)
            respelled = self._plainly_levelled(data, found.a + found.b)
            if respelled is None:
                return self._taken_apart(data, moment, vanished)
            return self._headed(respelled, found, moment, is_bare)
        except FAULTS:
            return data

    def _keeps(self, *sides: Sequence[tuple[str | float, str | float]]) -> bool:
        """Whether these levels are to be written as they are."""
        prices, amounts = self._prices, AMOUNTS
        kept_prices, kept_amounts = prices.kept, amounts.kept
        for rows in sides:
            for price, amount in rows:
                if price not in kept_prices and not prices.keeps(price):
                    return False
                if amount not in kept_amounts and not amounts.keeps(amount):
                    return False
        return True

    def _plainly_levelled(self, data: bytes, rows: list[tuple[str, str]]) -> bytes | None:
        """A message with its levels as they should be, where zeros are all that is not; None: something else is."""
        prices, amounts = zip(*rows, strict=True)
        if any(self._prices[price] != price for price in prices):
            return None
        odd = {amount for amount in amounts if AMOUNTS[amount] != amount}
        if not odd:
            return data
        # Without blanks and escapes each is written like this; where there are more of these, some are in other fields.
        zeros = b',"0"]'
        is_plain = odd == {"0"} and b"\\" not in data and len(data.split(None, 1)) == 1
        return data.replace(zeros, _ZEROS) if is_plain and data.count(zeros) == amounts.count("0") else None

    def _headed(self, data: bytes, found: _Depth | PlainDepth, moment: Moment, is_bare: bool) -> bytes:
        """A message whose levels are as they should be. `is_bare`: it has nothing that is known here but for `e`."""
        if is_bare and data.startswith(_DEPTH_HEAD) and data.endswith(b"}") and data.count(b'"e"') == 1:
            # It is what an engine writes that gives no more than it must.
            first, last = _range(moment)
            return self._bare % (data[_BEHIND_DEPTH_HEAD:-1], moment.at, first, last)
        if found.e != "depthUpdate":
            if not data.startswith(_DEPTH_HEAD) or data.count(b'"e"') > 1:
                return self._taken_apart(data, moment, None)
            head, data = _UPDATE_HEAD, data[len(_DEPTH_HEAD) :]
        else:
            head = b""
        has_ids = type(found.U) is int and type(found.u) is int
        if not has_ids and (found.U is not _UNSET or found.u is not _UNSET):
            return self._taken_apart(head + data, moment, None)
        tail = b""
        if found.E is _UNSET:
            tail = b',"E":%d' % (found.T if type(found.T) is int else moment.at)
        if found.s is _UNSET:
            tail += self._named
        if not has_ids:
            tail += b',"U":%d,"u":%d' % _range(moment)
        if not tail:
            return head + data if head else data
        end = -1 if data.endswith(b"}") else data.rindex(b"}")
        return b"%b%b%b}" % (head, data[:end], tail)

    def _taken_apart(self, data: bytes, moment: Moment, vanished: Prices | None) -> bytes:
        fields = _fields(data)
        asks, bids = self._levels(fields["a"]), self._levels(fields["b"])
        is_snapshot = bytes(fields.get("snapshot", _Raw())) == b"true"
        if is_snapshot and vanished is not None:
            asks += [(self._prices[price], ZERO) for price in vanished[0]]
            bids += [(self._prices[price], ZERO) for price in vanished[1]]
        changed: dict[str, bytes] = self._head(fields, moment, is_snapshot, vanished is not None)
        for name, levels in (("a", asks), ("b", bids)):
            text = _encode(levels)
            if text != bytes(fields[name]):
                changed[name] = text
        return replaced(data, changed, fields) if changed else data

    def _levels(self, side: msgspec.Raw) -> list[tuple[str, str]]:
        return spelled_levels(_pairs(side), self._prices)

    def _head(
        self, fields: Mapping[str, msgspec.Raw], moment: Moment, is_snapshot: bool, is_continued: bool
    ) -> dict[str, bytes]:
        """What is to be changed of all fields but the levels."""
        present = {name: value for name, value in fields.items() if bytes(value) != b"null"}
        changed: dict[str, bytes] = {}
        if bytes(present["e"]) != b'"depthUpdate"':
            changed["e"] = b'"depthUpdate"'
        if "E" not in present:
            changed["E"] = event_time(present, moment.at)
        if "s" not in present:
            changed["s"] = self._market
        first, last = (_integer(present.get(name)) for name in ("U", "u"))
        if first is None or last is None:
            if is_snapshot and not is_continued and moment.given is None:
                first = last = moment.number
            else:
                first, last = _range(moment)
            changed["U"], changed["u"] = b"%d" % first, b"%d" % last
        elif is_snapshot and is_continued and moment.given is not None and first != moment.given + 1 <= last + 1:
            changed["U"] = b"%d" % (moment.given + 1)  # more than `u`, where it says again what was said
        return changed


_ZEROS = b',"%b"]' % ZERO.encode()
_DEPTH_HEAD, _UPDATE_HEAD = b'{"e":"depth",', b'{"e":"depthUpdate",'
_BEHIND_DEPTH_HEAD = len(_DEPTH_HEAD)


_LEAST = 3
"""The fields of each depth message, `e`, `a` and `b`. Where there are no more colons, there is nothing else."""


def _range(moment: Moment) -> tuple[int, int]:
    """`U` and `u` of a message without. Among others that have ids it goes on from the last one, and has none itself:
    so it may stand alone, or be merged with what follows.
    """
    if moment.given is not None:
        return moment.given + 1, moment.given
    last, previous = moment.number, moment.previous
    return (last if previous is None or previous >= last else previous + 1), last


def _trade_fields(fields: Mapping[str, msgspec.Raw], market: bytes, at: int) -> dict[str, bytes | msgspec.Raw]:
    """All fields of a trade, with those that were missing."""
    made: dict[str, bytes | msgspec.Raw] = {
        name: value for name, value in fields.items() if bytes(value) != b"null" or name not in ("E", "T", "s", "M")
    }
    made.setdefault("E", event_time(fields, at))
    made.setdefault("T", _time(made["E"], at))
    made.setdefault("s", market)
    made.setdefault("M", b"true")
    return made


def event_time(fields: Mapping[str, msgspec.Raw], at: int) -> bytes:
    """The time of the event, for one that has no `E`: that of its transaction, or else when it was published."""
    return _time(fields.get("T"), at)


def _time(other: bytes | msgspec.Raw | None, at: int) -> bytes:
    """For a time that is missing: the other one, if that is a number of ms, or else when it was published."""
    found = _integer(other)
    return b"%d" % (at if found is None else found)


def _integer(value: bytes | msgspec.Raw | None) -> int | None:
    token = b"" if value is None else bytes(value)
    return int(token) if token.removeprefix(b"-").isdigit() else None


def _behind(data: bytes, tail: bytes) -> bytes:
    """An object with more members: `tail`, which begins with a comma."""
    members = data[: data.rindex(b"}")]
    return b"%b%b}" % (members, tail[1:] if members.strip() == b"{" else tail)


def replaced(
    data: bytes, changed: Mapping[str, bytes | msgspec.Raw], fields: Mapping[str, msgspec.Raw] | None = None
) -> bytes:
    """`data` with some members instead of those of the same names, or behind the others."""
    return _object({**(_fields(data) if fields is None else fields), **changed})


def _object(members: Mapping[str, bytes | msgspec.Raw]) -> bytes:
    return b"{%b}" % b",".join([b"%b:%b" % (_encode(name), bytes(value)) for name, value in members.items()])
