"""Fan-out: a flush's bytes on their way to every member, whatever becomes of some of them."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from marketfeed.boundaries import Subscriber
from marketfeed.hub.counts import Traffic
from marketfeed.hub.fanout import send_group, send_groups
from marketfeed.hub.faults import Faults
from marketfeed.hub.groups import Audience, Audiences, Group
from marketfeed.wire.dialects import Shape
from marketfeed.wire.frames import text_frame
from tests.conftest import LogCapture
from tests.fakes import AT, FakeSubscriber, make_group
from tests.strategies import property_test

AUDIENCES = Audiences()
"""Of the groups that the tests make: none of them meets another's."""
TRAFFIC = Traffic()

Send = Callable[[list[Group]], list[Subscriber]]


def group_of(*members: FakeSubscriber, name: str = "trade@A", shape: Shape = Shape.DATA, window: int = 0) -> Group:
    group = make_group(name, shape=shape, window=window)
    for member in members:
        AUDIENCES.change(member, [group], [])
    return group


def publish(group: Group, *data: bytes) -> bytes:
    """Add publications to a group; returns the bytes that its members are to get."""
    group.frames += [group.framed(each, AT) for each in data]
    return b"".join(group.frames)


def send_only(groups: list[Group]) -> list[Subscriber]:
    (group,) = groups
    return send_group(group, TRAFFIC, Faults(Clock()))


def send_together(groups: list[Group]) -> list[Subscriber]:
    return send_groups(groups, TRAFFIC, Faults(Clock()))


either_way = pytest.mark.parametrize("send", [send_only, send_together])
"""One group alone takes a shorter way; what its members see is the same."""


def refuses(error: type[OSError]) -> FakeSubscriber:
    subscriber = FakeSubscriber()
    subscriber.takes.append(error(errno.ECONNRESET, "the peer is gone"))
    return subscriber


def takes(count: int) -> FakeSubscriber:
    subscriber = FakeSubscriber()
    subscriber.takes.append(count)
    return subscriber


def backlogged(limit: int = 1 << 20) -> FakeSubscriber:
    subscriber = FakeSubscriber(limit)
    subscriber.stall()
    return subscriber


# Sending.


@pytest.mark.parametrize("count", [1, 2])
def test_a_frame_is_read_once_in_a_flush_and_not_kept(count: int) -> None:
    """All members who are behind share what was read; when they have it, nothing of it stays."""
    shared: list[object] = []

    class Reader(FakeSubscriber):
        def wait(self, group: object, frames: list[bytes]) -> bool:
            assert isinstance(group, Group)
            shared.append(group.depth(frames[0]))
            return super().wait(group, frames)

    groups = [make_group(f"depth@{number}") for number in range(count)]
    for group in groups:
        for member in (Reader(), Reader(), Reader()):
            member.stall()
            AUDIENCES.change(member, [group], [])
        publish(group, b'{"e":"depth","a":[],"b":[]}')
    (send_only if count == 1 else send_together)(groups)
    assert [id(depth) for depth in shared] == [id(shared[at // 3 * 3]) for at in range(3 * count)]
    assert None not in shared
    assert not any(group.depths for group in groups)


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
def test_a_member_for_whom_too_much_is_left_is_named(send: Send) -> None:
    """Not only what comes behind a backlog has to fit: what begins one has to, too."""
    first, slow, last = FakeSubscriber(), FakeSubscriber(limit=4), FakeSubscriber()
    slow.takes.append(1)
    group = group_of(first, slow, last)
    sent = publish(group, b"1", b"2")
    assert send([group]) == [slow]
    assert slow.overflows == 0
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
    first, slow, last = FakeSubscriber(), backlogged(limit=1), FakeSubscriber()
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
    assert send_together([left, right]) == []
    assert both.writes == [one + two]
    assert left_only.writes == [one]
    assert right_only.writes == [two]
    assert not any(audience.batch for audience in left.audiences)


def test_a_cut_batch_of_several_groups_keeps_its_rest() -> None:
    """The rest of a batch waits as a whole, whichever group it was for."""
    member = takes(4)
    left, right = group_of(member), group_of(member, name="trade@B")
    sent = publish(left, b"1", b"2") + publish(right, b"3")
    send_together([left, right])
    assert member.waiting == [(None, sent[4:])]
    assert not any(audience.batch for audience in left.audiences)


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
            return backlogged(limit=0)
        case _:
            return FakeSubscriber()


@property_test
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
    slow = send_only(dirty) if len(dirty) == 1 else send_together(dirty)
    for member, kind, share in zip(members, behaviour, expected, strict=True):
        assert member.audience is None or not member.audience.batch
        assert (member in slow) == (kind == "no room" and share != b"")
        assert member.failures == (kind == "broken" and share != b"")
        if kind == "healthy":
            assert member.writes == [share] * (share != b"")
        elif kind in ("full", "cut", "backlogged"):
            member.drain()
            assert b"".join(member.writes) == share


# Audiences.


def test_those_who_watch_the_same_share_what_is_put_together() -> None:
    """The very same bytes go to all of an audience, also when they are those of several groups."""
    first, second, other = FakeSubscriber(), FakeSubscriber(), FakeSubscriber()
    left, right = group_of(first, second, other), group_of(first, second, name="trade@B")
    assert isinstance(first.audience, Audience)
    assert first.audience is second.audience is not other.audience
    publish(left, b"1")
    publish(right, b"2")
    assert send_together([left, right]) == []
    assert first.writes == second.writes
    assert first.writes[0] is second.writes[0]


# Whatever a member raises.


class Raising(FakeSubscriber):
    """Raises at one point of what is done with it."""

    def __init__(self, point: str) -> None:
        super().__init__()
        self.point = point
        if point == "send":
            self.send = self._raise
        elif point == "stalled":
            self.takes.append(1)
        elif point == "failed":
            self.takes.append(OSError(errno.EPIPE, "the peer is gone"))
        else:
            self.stall()

    def _raise(self, data: bytes) -> int:
        raise ZeroDivisionError

    def stalled(self, data: bytes, sent: int) -> None:
        raise ZeroDivisionError

    def wait(self, group: object, frames: list[bytes]) -> bool:
        raise ZeroDivisionError

    def failed(self) -> None:
        super().failed()
        if self.point == "failed":
            raise ZeroDivisionError


@either_way
@pytest.mark.parametrize("point", ["send", "stalled", "failed", "wait"])
def test_whatever_a_member_raises_ends_that_member_only(send: Send, point: str, logged: LogCapture) -> None:
    """Those before and behind it get everything, and the group is sent again the next time."""
    first, broken, last = FakeSubscriber(), Raising(point), FakeSubscriber()
    group = group_of(first, broken, last)
    for _ in range(2):
        sent = publish(group, b"1", b"2")
        assert send([group]) == []
        assert not group.frames
        assert not group.leaving
        assert not any(audience.batch for audience in group.audiences)
        assert first.writes.pop() == last.writes.pop() == sent
        assert broken.failures
        AUDIENCES.change(broken, [], [group])
    assert logged.flush_failures(ZeroDivisionError)


def test_what_cannot_be_put_together_is_not_sent_again_and_again() -> None:
    """Whatever a flush raises, no group is left that would never be sent any more, or would be sent twice."""
    member, other = FakeSubscriber(), FakeSubscriber()
    group, fine = group_of(member, other), group_of(member, name="trade@B")
    publish(fine, b"1")
    group.frames = ["no bytes", "either"]  # type: ignore[list-item]
    for dirty in ([fine, group], [group]):
        with pytest.raises(TypeError):
            (send_together if len(dirty) > 1 else send_only)(dirty)
        assert not any((each.frames, each.leaving, each.data) for each in (group, fine)) or group.frames == []
        assert not any(audience.batch for each in (group, fine) for audience in each.audiences)
        group.frames = ["no bytes", "either"]  # type: ignore[list-item]
    group.frames = []
    sent = publish(group, b"2") + publish(fine, b"3")
    send_together([group, fine])
    assert member.writes == [sent]
