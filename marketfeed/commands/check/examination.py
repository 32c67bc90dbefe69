"""What has been heard of an engine, and what it comes to. Pure.

1. What is published is judged as a daemon would that drops what is not as it should be.
2. Of each fault the first example is kept, and no more of it than can be read. What is kept is bounded.
3. Of what is private, or of a kind that nobody has declared, only the number is kept: no payload, and no name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from marketfeed.commands.check.features import FEATURES, Feature
from marketfeed.commands.check.rules import RULES, Answer, DepthRules, Rules, TradeIds, is_pair
from marketfeed.model.kinds.columns import WORD, clean
from marketfeed.model.kinds.kind import StreamKind
from marketfeed.model.publications import BadPublication, PublicationReader
from marketfeed.model.sequence import new_reader
from marketfeed.model.streams import BadStreamName, StreamKinds, StreamName, snapshot_key

__all__ = ["EXAMPLE", "Examination", "Example", "Fault", "Finding", "KindCount"]

EXAMPLE = 200
"""Characters of a payload that are shown."""
_MOST_STREAMS = 20_000
_MOST_FAULTS = 12
"""Of one kind."""
_PART = " - at `"
_INDEX = re.compile(r"\[\d+\]")

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Example(msgspec.Struct, frozen=True):
    """A publication, as far as it is shown."""

    stream: str
    payload: str


class Fault(msgspec.Struct):
    """Something that is wrong, how often, and the first example."""

    kind: str
    what: str
    count: int = 0
    example: Example | None = None


class Finding(msgspec.Struct):
    """How it is with one feature: of so many that were looked at, so many are good; and the first that is not.

    `what`: what is wrong with that one; `unit`: what was looked at.
    """

    feature: Feature
    unit: str = "publication"
    good: int = 0
    of: int = 0
    what: str = ""
    example: Example | None = None

    @property
    def verdict(self) -> str:
        """yes, partly, no; unknown: nothing was there to look at."""
        if not self.of:
            return "unknown"
        return "yes" if self.good == self.of else "partly" if self.good else "no"

    def take(self, what: str, example: Example | None = None, *, count: int = 1) -> None:
        self.of += count
        if not what:
            self.good += count
        elif not self.what:
            self.what, self.example = what, example


class KindCount(msgspec.Struct):
    """What has been heard of a kind. `note`: why it is not looked into, if it is not."""

    name: str
    note: str = ""
    publications: int = 0
    dropped: int = 0
    bytes: int = 0
    markets: set[str] = msgspec.field(default_factory=set)


class _Stream(msgspec.Struct, eq=False):
    name: StreamName
    reader: PublicationReader
    rules: Rules | None
    count: KindCount


class Examination:
    """Takes what is heard. `kinds`: those that are declared; `on_streams`: whether Redis Streams are read, None where
    nobody knows; `max_payload`: as a daemon has it.
    """

    def __init__(
        self, kinds: Iterable[StreamKind], prefix: str, max_payload: int, *, on_streams: bool | None = None
    ) -> None:
        self._kinds = StreamKinds(kinds)
        self._prefix = prefix
        self._max_payload = max_payload
        self._on_streams = on_streams
        self._streams: dict[bytes, _Stream | KindCount] = {}
        self._ids = TradeIds()
        self._findings = {feature.key: Finding(feature) for feature in FEATURES}
        self._faults: dict[tuple[str, str], Fault] = {}
        self.kinds: dict[str, KindCount] = {}
        self._odd = KindCount("")
        self.odd_example = ""
        """Of the channels that have no name that a stream could have."""
        self.publications = 0
        self.gaps = 0

    # What is heard.

    def take(self, time_us: int, stream: bytes, payload: bytes) -> None:
        """A publication: when it came, the channel or key without the prefix, and what was published."""
        self.publications += 1
        place = self._place(stream)
        count = place.count if isinstance(place, _Stream) else place
        count.publications += 1
        count.bytes += len(payload)
        if isinstance(place, _Stream):
            self._judge(place, payload, time_us // 1000)

    def lose(self) -> None:
        """Something may have been missed by us."""
        self.gaps += 1
        self._ids.lose()
        for each in self._known():
            if each.rules is not None:
                each.rules.lose()

    def seed(self, stream: str, data: bytes) -> None:
        """The state that is kept beside a stream of those that were heard."""
        place = self._streams.get(stream.encode())
        if not isinstance(place, _Stream) or place.rules is None:
            return
        kind, key = place.name.kind.name, snapshot_key("", stream)
        try:
            found = place.reader.read(data)
        except BadPublication as fault:
            self._fault(kind, "the state in a key cannot be used", _short(fault), key, data)
            return
        what = place.rules.seed(found) if isinstance(place.rules, DepthRules) else ""
        if what:
            self._fault(kind, "the state in a key cannot be put in its place", what, key, data)

    @property
    def with_states(self) -> list[str]:
        """The streams of which there may be a state beside them."""
        return [str(each.name) for each in self._known() if each.name.kind.name in ("depth", "ticker")]

    # What it comes to.

    def finish(self) -> None:
        """Nothing more is heard."""
        book, pair, streams = (self._findings[key] for key in ("book", "pair", "streams"))
        book.unit, pair.unit, streams.unit = "stream", "market", ""
        for each in self._known():
            if isinstance(each.rules, DepthRules) and each.count.publications > each.count.dropped:
                for answer in each.rules.look():
                    self._fault("depth", answer.what, answer.detail, str(each.name))
                book.take("" if each.rules.had_book else "no whole book", Example(str(each.name), ""))
        for market in self.markets:
            pair.take("" if is_pair(market) else f"{clean(market, WORD)} is not spelled so")
        ids = self._findings["ids"]
        if ids.verdict in ("no", "partly") and self._ids.are_common:
            ids.what, ids.good = "t counts up by one over all markets together", 0
        if self._on_streams is not None and self.publications:
            streams.take("" if self._on_streams else "these are channels")

    @property
    def markets(self) -> list[str]:
        """Public ones."""
        kinds = ((each.name.kind, each.name.market) for each in self._known())
        return sorted({market for kind, market in kinds if not (kind.private or kind.only)})

    @property
    def findings(self) -> list[Finding]:
        """One for each feature, in the order of the table."""
        return list(self._findings.values())

    @property
    def faults(self) -> list[Fault]:
        """All, the most frequent first."""
        return sorted(self._faults.values(), key=lambda fault: -fault.count)

    @property
    def odd(self) -> int:
        """Publications on channels that have no name that a stream could have."""
        return self._odd.publications

    # Judging.

    def _known(self) -> Iterator[_Stream]:
        return (each for each in self._streams.values() if isinstance(each, _Stream))

    def _place(self, stream: bytes) -> _Stream | KindCount:
        place = self._streams.get(stream)
        if place is None:
            place = self._new_place(stream)
            if len(self._streams) < _MOST_STREAMS:
                self._streams[stream] = place
        return place

    def _new_place(self, stream: bytes) -> _Stream | KindCount:
        text = stream.decode("utf-8", "replace")
        try:
            name = self._kinds.parse(text)
        except BadStreamName:
            name = None
        if name is not None and str(name) == text:
            return self._new_stream(name)
        kind, at, market = text.partition("@")
        if any(each.private and each.name in market for each in self._kinds):  # a private name, the wrong way round
            return self._odd
        if at and market and kind.isascii() and kind.isidentifier() and kind not in self._kinds.names:
            return self._count(clean(kind, WORD), f"not declared: [streams.{clean(kind, WORD)}] in the file does", text)
        self.odd_example = self.odd_example or clean(text, WORD)
        return self._odd

    def _new_stream(self, name: StreamName) -> _Stream:
        kind = name.kind
        count = self._count(kind.name, "private: counted, and not looked into" if kind.private else "", name.market)
        reader = new_reader(name, (str(name), self._prefix + str(name)), self._max_payload)
        rules = RULES[kind.name](self._ids) if kind.name in RULES else None
        return _Stream(name, reader, rules, count)

    def _count(self, kind: str, note: str, market: str) -> KindCount:
        count = self.kinds.setdefault(kind, KindCount(kind, note))
        if len(count.markets) < _MOST_STREAMS:
            count.markets.add(market)
        return count

    def _judge(self, place: _Stream, payload: bytes, now: int) -> None:
        kind, stream = place.name.kind, str(place.name)
        try:
            raw = place.reader.read(payload)
        except BadPublication as fault:
            place.count.dropped += 1
            sort = f"dropped, {fault.reason}"
            if kind.private:
                self._fault(kind.name, sort)
            else:
                place_in_it = _INDEX.sub("", fault.fault.partition(_PART)[2])
                self._fault(kind.name, sort, _short(fault), stream, payload, more=place_in_it)
            return
        if place.rules is None:
            return
        try:
            data = _decode(raw)
        except (msgspec.DecodeError, RecursionError):  # in a field that a daemon does not look at
            return
        for answer in (*place.rules.ask(data, raw, now), *_market(data, place.name.market)):
            if answer.key:
                finding = self._findings[answer.key]
                finding.take(answer.what, _example(stream, payload) if answer.what and not finding.what else None)
            else:
                self._fault(kind.name, answer.what, answer.detail, stream, payload)

    def _fault(
        self, kind: str, sort: str, what: str = "", stream: str = "", payload: bytes = b"", *, more: str = ""
    ) -> None:
        """Count a fault of this sort, and `more`. Of the first is remembered `what` it is, and where."""
        key = (kind, sort + more)
        if key not in self._faults and sum(each.kind == kind for each in self._faults.values()) >= _MOST_FAULTS:
            key, what, stream = (kind, ""), "others", ""
        fault = self._faults.get(key)
        if fault is None:
            example = _example(stream, payload) if stream else None
            fault = self._faults[key] = Fault(kind, f"{sort}: {what}" if sort and what else sort or what, 0, example)
        fault.count += 1


def _example(stream: str, payload: bytes) -> Example:
    text = payload[: 4 * EXAMPLE].decode("utf-8", "replace")
    return Example(stream, clean(text, EXAMPLE))


def _market(data: Mapping[str, Any], market: str) -> Iterator[Answer]:
    found = data.get("s")
    if found == market:
        yield Answer("market")
    elif found is None:
        yield Answer("market", "without s")
    else:
        yield Answer("market", "s is another market")
        yield Answer("", "s is another market than that of the stream", clean(str(found), WORD))


def _short(fault: BadPublication) -> str:
    return clean(fault.fault, EXAMPLE)
