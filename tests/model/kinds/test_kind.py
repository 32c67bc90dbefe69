"""A kind of stream is one description: a new one is checked, kept, merged and shown without a word anywhere else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import pytest

from marketfeed.commands.messages import Publication, read_message
from marketfeed.commands.watch.display import show_publication
from marketfeed.hub.counted_history import CountedHistory
from marketfeed.hub.histories import Histories
from marketfeed.hub.stream import LiveStream
from marketfeed.model.kinds import BUILT_IN, EVENTS, by_event
from marketfeed.model.kinds.columns import Column, word
from marketfeed.model.kinds.fields import Plain, Shape, ShortLevel
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from marketfeed.model.kinds.values import are_good_decimals
from marketfeed.model.publications import BadPublication, DropReason
from marketfeed.model.sequence import new_reader
from marketfeed.model.streams import StreamKinds
from marketfeed.websocket.backlog import Backlog, Thinned
from marketfeed.wire.dialects import Shape as Envelope

# What would be a module.


class _Ladder(Plain, gc=True):
    e: Literal["ladder"]
    rungs: int
    a: list[ShortLevel]
    b: list[ShortLevel]


def _is_good(ladder: _Ladder) -> bool:
    return are_good_decimals(ladder.a) and are_good_decimals(ladder.b)


def _columns(data: Mapping[str, Any]) -> list[Column]:
    return [Column(word(data.get("rungs")), "buy", "rungs "), Column("up")]


LADDER = StreamKind(
    "ladder",
    LossPolicy.MERGE,
    ids="n",
    shape=Shape.of(_Ladder, _is_good),
    columns=_columns,
)

# And the line in the table.

KINDS = (*BUILT_IN, LADDER)


def ladder(number: int = 1, /, **changed: object) -> bytes:
    return json.dumps(
        {"e": "ladder", "n": number, "rungs": 3, "a": [[f"{number}.5", "1"]], "b": [], "U": number, "u": number}
        | changed
    ).encode()


def live() -> LiveStream:
    """A stream of it, as the hub makes one."""
    name = StreamKinds(KINDS).parse("a@ladder@1000ms")
    reader = new_reader(name, (str(name),), 1 << 20)
    return LiveStream(str(name), reader, name.kind, CountedHistory(Histories(1000, 300, 1 << 20), "epoch"))


def test_a_new_kind_is_checked() -> None:
    """By what it requires, and by its ids."""
    read = live().reader.read
    assert read(ladder()) == ladder()
    assert read(b'{"stream":"ladder@A","data":%b}' % ladder()) == ladder()
    for field, bad in (("rungs", 0.5), ("rungs", "3"), ("a", [["x", "1"]]), ("b", [[1]]), ("n", "one")):
        with pytest.raises(BadPublication, match=rf"`\$\.{field}[`\[]") as caught:
            read(ladder(**{field: bad}))
        assert caught.value.reason == DropReason.BAD_FIELD


def test_a_new_kind_is_kept() -> None:
    """For those who come late there is what its loss policy keeps, until something is missing."""
    stream = live()
    assert stream.record is not None
    assert stream.state is not None
    assert [stream.record(ladder(1, snapshot=True)), stream.record(ladder(2))] == [False, False]
    snapshot = json.loads(stream.state.snapshot() or b"")
    assert (snapshot["a"], snapshot["rungs"], snapshot["u"]) == ([["1.5", "1"], ["2.5", "1"]], 3, 2)
    assert stream.record(ladder(4))
    assert stream.state.snapshot() is None


def test_a_new_kind_is_merged_for_who_is_slow() -> None:
    """As its loss policy says."""
    group = live().group("ladder@A", Envelope.DATA, 0, False)
    thinned = Thinned()
    backlog = Backlog(thinned)
    for number in (1, 2, 3):
        assert backlog.add(group, group.framed(ladder(number), ""), 1 << 20)
    assert thinned.merged == 2
    merged = json.loads(backlog.take(1)[2:])
    assert (merged["U"], merged["u"], len(merged["a"])) == (1, 3, 3)


def test_a_new_kind_is_shown() -> None:
    """In its own columns; where watch does not know it, as it is."""
    message = read_message(b'{"stream":"a@ladder","data":%b}' % ladder())
    assert isinstance(message, Publication)
    now = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
    assert show_publication(message, now, kinds=by_event(KINDS)) == "03:04:05.678  A             ladder  rungs 3  up"
    coloured = show_publication(message, now, kinds=by_event(KINDS), colour=True)
    assert coloured.endswith("rungs \x1b[32m3\x1b[0m  up")
    assert show_publication(message, now).endswith("}")


def test_the_table() -> None:
    """Each kind is there once, and what stands in `e` belongs to one of them, its own name to itself."""
    engines = [kind for kind in BUILT_IN if kind.is_published]
    assert [kind.name for kind in engines] == ["trade", "depth", "ticker"]
    assert all(EVENTS[kind.name] is kind and kind.shape.events[0] == kind.name for kind in engines)
    assert all(kind.columns is not None and kind.shape.plain is not None for kind in engines)
    assert [kind.name for kind in BUILT_IN if kind.from_book] == ["bookTicker", "depth5", "depth10", "depth20"]
