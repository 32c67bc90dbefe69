"""What clients are told about publications that may be missing: once, in order, in full."""

from __future__ import annotations

import msgspec
import pytest
from twisted.internet.task import Clock

from marketfeed.hub.faults import Faults
from marketfeed.hub.gaps import Gaps, gap_frame, tell_open
from marketfeed.hub.groups import Audiences
from marketfeed.hub.stream import LiveStream
from marketfeed.wire.dialects import Shape
from tests.fakes import FakeSubscriber, make_stream, payloads

Told = list[tuple[list[str], str, int, int | None]]


class Audience:
    """Two streams, and clients who are in some of them."""

    def __init__(self) -> None:
        self.gaps = Gaps(Faults(Clock()))
        self.audiences = Audiences()
        self.streams = [make_stream("depth@A"), make_stream("depth@B")]

    def member(self, *spellings: str, shape: Shape = Shape.ENVELOPE) -> FakeSubscriber:
        member = FakeSubscriber()
        groups = [self.streams["b" in spelling.lower()].group(spelling, shape, 0, False) for spelling in spellings]
        self.audiences.change(member, groups, [])
        return member


def told(member: FakeSubscriber) -> Told:
    """The gap events since the last call."""
    assert member.writes == member.events
    events = [message.get("data", message) for message in member.messages]
    member.writes.clear()
    member.events.clear()
    return [(event["streams"], event["reason"], event["from"], event["to"]) for event in events]


def open_gaps(audience: Audience, since: int, *streams: LiveStream) -> None:
    audience.gaps.opened([stream for stream in streams if stream.lose(since)])


def heal(audience: Audience, stream: LiveStream) -> None:
    gap = stream.confirm(0.0, None)
    if gap is not None:
        audience.gaps.closed(stream, gap)


@pytest.fixture
def audience() -> Audience:
    return Audience()


@pytest.mark.parametrize("is_enveloped", [False, True])
def test_a_gap_is_one_text_in_the_clients_dialect(is_enveloped: bool) -> None:
    """The shape of docs/protocol.md#gaps."""
    (text,) = payloads(gap_frame(["a@depth"], "sequence", 5, None, is_enveloped))
    data = {"e": "gap", "streams": ["a@depth"], "reason": "sequence", "from": 5, "to": None}
    assert msgspec.json.decode(text) == ({"stream": "!gap", "data": data} if is_enveloped else data)


def test_an_open_gap_is_told_once_for_all_streams_and_healed_with_the_same_beginning(audience: Audience) -> None:
    """Each client hears of its own streams, as it spells them; who hears of nothing new is told nothing."""
    first, second = audience.streams
    both, one = audience.member("depth@A", "a@depth", "depth@B"), audience.member("depth@B", shape=Shape.DATA)
    assert not audience.gaps
    open_gaps(audience, 5, first, second)
    assert first.gap == second.gap == ("source-down", 5)
    assert [(sorted(streams), *rest) for streams, *rest in told(both)] == [
        (["a@depth", "depth@A", "depth@B"], "source-down", 5, None)
    ]
    assert told(one) == [(["depth@B"], "source-down", 5, None)]
    heal(audience, first)
    assert first.gap is None
    assert audience.gaps
    assert told(both) == []
    audience.gaps.tell_over(9)
    assert [(sorted(streams), *rest) for streams, *rest in told(both)] == [
        (["a@depth", "depth@A"], "source-down", 5, 9)
    ]
    assert told(one) == []
    audience.gaps.tell_over(10)
    heal(audience, first)
    audience.gaps.tell_over(11)
    assert not audience.gaps
    assert told(both) == []


def test_gaps_of_different_beginnings_are_different_events(audience: Audience) -> None:
    """So are those of different reasons."""
    first, second = audience.streams
    member = audience.member("depth@A", "depth@B")
    open_gaps(audience, 5, first)
    open_gaps(audience, 6, second)
    told(member)
    heal(audience, first)
    heal(audience, second)
    audience.gaps.tell_over(9)
    assert told(member) == [(["depth@A"], "source-down", 5, 9), (["depth@B"], "source-down", 6, 9)]


def test_a_client_ended_by_one_event_is_not_told_the_next(audience: Audience) -> None:
    """Nor is one whom the end of another takes along."""
    first, second = audience.streams
    members = [audience.member("depth@A", "depth@B") for _ in range(2)]
    groups = [group for stream in audience.streams for group in stream.groups.values()]

    def tell(event: bytes) -> None:
        members[0].events.append(event)
        for member in members:
            audience.audiences.change(member, [], groups)

    members[0].tell = tell  # type: ignore[method-assign]
    open_gaps(audience, 5, first)
    open_gaps(audience, 6, second)
    assert len(members[0].events) == 1
    assert not members[1].events


def test_a_jump_is_told_at_once_and_then_once_a_second_in_full(audience: Audience) -> None:
    """From the beginning of the first that is untold to the end of the last; other streams have their own second."""
    first, second = audience.streams
    member, other = audience.member("depth@A"), audience.member("depth@B")
    audience.gaps.jumped(first, 1000, 1100, 10.0)
    assert told(member) == [(["depth@A"], "sequence", 1000, 1100)]
    audience.gaps.jumped(first, 1200, 1300, 10.3)
    audience.gaps.jumped(first, 1400, 1500, 10.5)
    audience.gaps.jumped(second, 1400, 1500, 10.5)
    assert told(member) == []
    assert told(other) == [(["depth@B"], "sequence", 1400, 1500)]
    assert audience.gaps
    audience.gaps.tell_jumps(1900, 10.9)
    assert told(member) == []
    audience.gaps.tell_jumps(2000, 11.0)
    assert told(member) == [(["depth@A"], "sequence", 1200, 2000)]
    assert not audience.gaps
    audience.gaps.tell_jumps(3000, 12.0)
    assert told(member) == []


def test_of_a_stream_that_is_wanted_no_longer_nothing_is_told(audience: Audience) -> None:
    """Neither that its gap is over, nor that it jumped."""
    first, second = audience.streams
    member = audience.member("depth@A", "depth@B")
    open_gaps(audience, 5, first)
    audience.gaps.jumped(second, 1000, 1100, 10.0)
    audience.gaps.jumped(second, 1200, 1300, 10.3)
    heal(audience, first)
    told(member)
    streams: list[LiveStream] = [first, second]
    for stream in streams:
        audience.gaps.forget(stream)
        audience.gaps.forget(stream)
    assert not audience.gaps
    audience.gaps.tell_over(9)
    audience.gaps.tell_jumps(9000, 20.0)
    assert told(member) == []


def test_who_joins_hears_of_the_gaps_that_are_open(audience: Audience) -> None:
    """In one event for each reason and beginning; one that its end comes before hears no more."""
    first, second = audience.streams
    first.lose(5)
    second.refuse(5)
    member = audience.member("depth@A", "a@depth", "depth@B")
    groups = [group for stream in audience.streams for group in stream.groups.values()]
    tell_open(member, groups)
    assert told(member) == [
        (["depth@A", "a@depth"], "source-down", 5, None),
        (["depth@B"], "source-refused", 5, None),
    ]

    def tell(event: bytes) -> None:
        member.events.append(event)
        audience.audiences.change(member, [], groups)

    member.tell = tell  # type: ignore[method-assign]
    tell_open(member, groups)
    assert len(member.events) == 1
    for stream in audience.streams:
        stream.confirm(0.0, None)
    tell_open(member, groups)
    assert len(member.events) == 1
