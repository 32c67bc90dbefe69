"""Fan-out: a flush's bytes on their way to every member, whatever becomes of some of them."""

from __future__ import annotations

import errno
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.boundaries import Subscriber
from marketfeed.fanout import Group, LiveStream, send_group, send_groups
from marketfeed.model.frames import text_frame
from marketfeed.model.publications import PublicationReader
from marketfeed.model.streams import StreamKinds
from tests.fakes import FakeSubscriber, payloads

Send = Callable[[list[Group]], list[Subscriber]]


def stream(name: str = "trade@A") -> LiveStream:
    return LiveStream(name, PublicationReader(StreamKinds().parse(name), (name,), 1 << 20))


def group_of(*members: FakeSubscriber, name: str = "trade@A", enveloped: bool = False) -> Group:
    group = stream(name).group(name, enveloped)
    group.members.update(dict.fromkeys(members))
    return group


def publish(group: Group, *data: bytes) -> bytes:
    """Add publications to a group; returns the bytes that its members are to get."""
    for each in data:
        group.add(each)
    return b"".join(group.frames)


def send_only(groups: list[Group]) -> list[Subscriber]:
    (group,) = groups
    return send_group(group)


either_way = pytest.mark.parametrize("send", [send_only, send_groups])
"""One group alone takes a shorter way; what its members see is the same."""


def refuses(error: type[OSError]) -> FakeSubscriber:
    subscriber = FakeSubscriber()
    subscriber.takes.append(error(errno.ECONNRESET, "the peer is gone"))
    return subscriber


def takes(count: int) -> FakeSubscriber:
    subscriber = FakeSubscriber()
    subscriber.takes.append(count)
    return subscriber


def backlogged(room: int = 1 << 20) -> FakeSubscriber:
    subscriber = FakeSubscriber(room)
    subscriber.stall()
    return subscriber


# Groups and frames.


def test_a_stream_has_one_group_for_each_spelling_and_shape() -> None:
    """Who spells a stream alike and wants the same shape shares a group."""
    live = stream("depth@A")
    asked = [("depth@A", True), ("depth@A", False), ("a@depth", True), ("depth@A", True)]
    groups = [live.group(spelling, enveloped) for spelling, enveloped in asked]
    assert groups[0] is groups[3]
    assert len(set(groups)) == 3
    assert live.groups == {(group.spelling, group.enveloped): group for group in groups}


@pytest.mark.parametrize("size", [2, 60, 125, 126, 200, 65_535, 65_536, 70_000])
def test_a_publication_is_framed_as_its_group_wants_it(size: int) -> None:
    """The data alone, or in an envelope that echoes the client's spelling; the data's bytes are the engine's."""
    data = b'"' + b"x" * (size - 2) + b'"'
    live = stream()
    for enveloped, expected in ((False, data), (True, b'{"stream":"a@trade","data":' + data + b"}")):
        group = live.group("a@trade", enveloped)
        group.add(data)
        assert payloads(b"".join(group.frames)) == [expected]
        msgspec.json.decode(expected)


# Sending.


@either_way
def test_every_member_gets_all_of_a_flush_in_one_write(send: Send) -> None:
    """However many publications there are, each client has one write, and they are in order of arrival."""
    members = [FakeSubscriber() for _ in range(3)]
    group = group_of(*members)
    sent = publish(group, b"1", b"2", b"3")
    assert send([group]) == []
    assert [member.writes for member in members] == [[sent]] * 3
    assert not group.frames


@either_way
def test_one_publication_is_the_same_object_for_everyone(send: Send) -> None:
    """Nothing is copied for a client: all sockets are given the very same bytes."""
    given_out: list[bytes] = []

    def take(data: bytes) -> int:
        given_out.append(data)
        return len(data)

    members = [FakeSubscriber() for _ in range(3)]
    for member in members:
        member.send = take
    group = group_of(*members)
    publish(group, b"1")
    (frame,) = group.frames
    send([group])
    assert len(given_out) == 3
    assert all(data is frame for data in given_out)


@either_way
def test_a_member_that_fails_is_alone_in_it(send: Send) -> None:
    """A socket that is gone ends its own client; those before and behind it get everything."""
    first, broken, last = FakeSubscriber(), refuses(ConnectionResetError), FakeSubscriber()
    group = group_of(first, broken, last)
    sent = publish(group, b"1", b"2")
    assert send([group]) == []
    assert broken.failures == 1
    assert first.writes == last.writes == [sent]
    assert first.failures == last.failures == 0
    assert not broken.batch


@either_way
@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_member_whose_socket_is_full_keeps_the_rest(send: Send, count: int) -> None:
    """What the socket did not take waits with its client; the others are not held up."""
    first, slow, last = FakeSubscriber(), takes(count), FakeSubscriber()
    group = group_of(first, slow, last)
    sent = publish(group, b"1", b"2")
    assert send([group]) == []
    assert not slow.direct
    assert b"".join(frame for _, frame in slow.waiting) == sent[count:]
    slow.drain()
    assert b"".join(slow.writes) == sent
    assert first.writes == last.writes == [sent]


@either_way
def test_for_a_backlogged_member_each_frame_waits_under_its_group(send: Send) -> None:
    """Behind a backlog publications wait one by one, so that those of one group can be dropped."""
    member = backlogged()
    group = group_of(member)
    publish(group, b"1", b"2")
    assert send([group]) == []
    assert member.waiting == [(group, text_frame(b"1")), (group, text_frame(b"2"))]
    assert not member.writes


@either_way
def test_a_member_without_room_is_named_and_the_others_are_served(send: Send) -> None:
    """Fan-out ends nobody itself: it says who is too slow."""
    first, slow, last = FakeSubscriber(), backlogged(room=1), FakeSubscriber()
    group = group_of(first, slow, last)
    sent = publish(group, b"1")
    assert send([group]) == [slow]
    assert slow.overflows == 0
    assert first.writes == last.writes == [sent]


@either_way
def test_a_group_whose_members_have_left_is_sent_to_nobody(send: Send) -> None:
    """A group may have lost its last member since the publication arrived."""
    group = group_of()
    publish(group, b"1")
    assert send([group]) == []
    assert not group.frames


def test_a_member_of_several_groups_gets_them_in_one_write() -> None:
    """One write per client and turn, also over several streams; each client gets what it is a member of."""
    both, left_only, right_only = FakeSubscriber(), FakeSubscriber(), FakeSubscriber()
    left, right = group_of(both, left_only), group_of(both, right_only, name="trade@B")
    one, two = publish(left, b"1", b"2"), publish(right, b"3")
    assert send_groups([left, right]) == []
    assert both.writes == [one + two]
    assert left_only.writes == [one]
    assert right_only.writes == [two]
    assert not both.batch


def test_a_cut_batch_of_several_groups_keeps_its_rest() -> None:
    """The rest of a batch waits as a whole, whichever group it was for."""
    member = takes(4)
    left, right = group_of(member), group_of(member, name="trade@B")
    sent = publish(left, b"1", b"2") + publish(right, b"3")
    send_groups([left, right])
    assert member.waiting == [(None, sent[4:])]
    assert not member.batch


# Any mixture.

behaviours = st.sampled_from(["healthy", "full", "cut", "broken", "backlogged", "no room"])


def member_that_is(behaviour: str) -> FakeSubscriber:
    match behaviour:
        case "full":
            return takes(0)
        case "cut":
            return takes(3)
        case "broken":
            return refuses(BrokenPipeError)
        case "backlogged":
            return backlogged()
        case "no room":
            return backlogged(room=0)
        case _:
            return FakeSubscriber()


@settings(deadline=None)
@given(
    behaviour=st.lists(behaviours, min_size=1, max_size=6),
    groups=st.lists(
        st.tuples(
            st.sets(st.integers(0, 5), max_size=6), st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=3)
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_each_member_gets_its_share_whatever_the_others_do(
    behaviour: list[str], groups: list[tuple[set[int], list[bytes]]]
) -> None:
    """Any members in any groups: who keeps up gets all of its groups in order, in one write; nobody else matters."""
    members = [member_that_is(each) for each in behaviour]
    expected = [b""] * len(members)
    dirty = []
    for number, (indices, data) in enumerate(groups):
        joined = sorted(index for index in indices if index < len(members))
        dirty.append(group_of(*(members[index] for index in joined), name=f"trade@{number}"))
        sent = publish(dirty[-1], *data)
        for index in joined:
            expected[index] += sent
    slow = send_only(dirty) if len(dirty) == 1 else send_groups(dirty)
    for member, kind, share in zip(members, behaviour, expected, strict=True):
        assert not member.batch
        assert (member in slow) == (kind == "no room" and share != b"")
        assert member.failures == (kind == "broken" and share != b"")
        if kind == "healthy":
            assert member.writes == [share] * (share != b"")
        elif kind in ("full", "cut", "backlogged"):
            member.drain()
            assert b"".join(member.writes) == share
