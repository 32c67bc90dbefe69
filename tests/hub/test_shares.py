"""Who pays for a stream, and that nobody pays for what others have as well, nor for what it has left."""

from __future__ import annotations

import gc

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from marketfeed.boundaries import TooManyStreams
from marketfeed.hub.shares import Share, Shares
from tests.rooms import LINGER, Client, Room
from tests.strategies import machine_test


def client_of(room: Room, share: Share | None) -> Client:
    client = Client(room)
    client.outbox.share = share
    return client


def turns(room: Room) -> None:
    while any(time <= room.clock.seconds() for time in room.timers):
        room.turn()


def test_an_address_has_a_share_as_long_as_it_has_clients() -> None:
    """All its clients have the same one; without an address, or without a limit, there is none."""
    shares = Shares(3)
    first, other = shares.of("192.0.2.1"), shares.of("192.0.2.2")
    assert first is shares.of("192.0.2.1")
    assert first is not None
    assert first is not other
    assert len(shares) == 2
    del first, other
    gc.collect()
    assert len(shares) == 0
    assert shares.of(None) is None
    assert Shares(0).of("192.0.2.1") is None


@pytest.mark.parametrize("many", [0, 100])
def test_one_address_takes_no_more_than_its_share(many: int) -> None:
    """With however many connections, and all at once too; the others have the rest, and the error says which it is."""
    room = Room(max_distinct_streams=1000)
    share, other = Share(many + 3), Share(many + 3)
    one, two, third = client_of(room, share), client_of(room, share), client_of(room, other)
    one.join(*[f"trade@A{number}" for number in range(many + 2)])
    with pytest.raises(TooManyStreams, match=rf"^clients of one address may have {many + 3} streams that nobody else"):
        two.join("trade@B", "trade@C")
    turns(room)
    room.source.confirm()
    assert share.paid == many + 2
    assert not share.reserved
    with pytest.raises(TooManyStreams, match="clients of one address"):
        two.join(*[f"trade@B{number}" for number in range(many + 2)])
    two.join("trade@B", "b@trade", "trade@A0")
    with pytest.raises(TooManyStreams):
        client_of(room, share).join("trade@C")
    third.join("trade@C", "trade@D")
    client_of(room, None).join(*[f"trade@E{number}" for number in range(90)])
    room.source.confirm()
    one.unsubscribe("trade@A1")
    turns(room)
    two.join("trade@C", "trade@F")
    assert share.paid == many + 3


def test_what_is_asked_for_by_many_is_paid_once_by_each_in_turn() -> None:
    """Who comes later and has paid for less takes over; when it leaves, the first one pays again."""
    room = Room()
    share, other = Share(10), Share(10)
    one, two = client_of(room, share).join("trade@A", "trade@B", "trade@C"), client_of(room, other)
    room.source.confirm()
    two.join("trade@A", "trade@B", "trade@C")
    assert (share.paid, other.paid) == (2, 1)
    two.end()
    assert (share.paid, other.paid) == (3, 0)
    one.end()
    assert (share.paid, other.paid) == (0, 0)
    room.clock.advance(LINGER)
    room.assert_empty()


def test_who_was_on_its_way_pays_when_it_is_in() -> None:
    """It was in no group as the one who paid left."""
    room = Room()
    share, other = Share(10), Share(10)
    one, two = client_of(room, share).join("trade@A"), client_of(room, other).join("trade@A", "trade@B")
    one.end()
    room.source.confirm()
    assert (share.paid, other.paid) == (0, 2)
    two.end()


def test_what_is_kept_ready_costs_nobody() -> None:
    """The operator has it."""
    room = Room()
    share = Share(1)
    room.hub.discovered("trade@A")
    room.source.confirm()
    client_of(room, share).join("trade@A", "trade@B")
    room.source.confirm()
    assert share.paid == 1


@pytest.mark.parametrize("count", range(1, 7))
def test_who_joins_takes_over_until_both_pay_alike(count: int) -> None:
    """And not more: otherwise a stream would go from one to the other with each who joins."""
    room = Room()
    share, other = Share(10), Share(10)
    names = [f"trade@{number}" for number in range(count)]
    one, two = client_of(room, share).join(*names), client_of(room, other)
    room.source.confirm()
    two.join(*names)
    assert (share.paid, other.paid) == ((count + 1) // 2, count // 2)
    for client in (one, two):
        client.end()


def test_who_goes_before_all_of_many_is_asked_for_gives_it_back() -> None:
    """What was set aside for it, of the room and of its share."""
    room = Room(max_distinct_streams=200)
    share = Share(200)
    client = client_of(room, share).join(*[f"trade@{number}" for number in range(200)])
    room.turn()
    assert share.paid > 0
    client.end()
    room.clock.advance(LINGER)
    assert (share.paid, len(share.reserved)) == (0, 0)
    room.assert_empty()


NAMES = [f"trade@{letter}" for letter in "ABCDE"]
slots = st.integers(0, 4)


class ShareMachine(RuleBasedStateMachine):
    """Five clients, of two addresses and of none, who join and leave."""

    MOST = 3

    def __init__(self) -> None:
        super().__init__()
        self.room = Room(linger=0.0)
        self.shares = [Share(self.MOST), Share(self.MOST)]
        self.clients = [self.client(slot) for slot in range(5)]

    def client(self, slot: int) -> Client:
        return client_of(self.room, None if slot == 4 else self.shares[slot % 2])

    @rule(slot=slots, names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    def join(self, slot: int, names: list[str]) -> None:
        client = self.clients[slot]
        new = [name for name in names if name not in client.groups]
        if client.waiting is not None or not new:
            return
        share, before = client.outbox.share, self.room.hub.streams
        fresh = set(new) - before
        if share is not None and share.paid + len(fresh) > share.most:
            with pytest.raises(TooManyStreams):
                client.join(*new)
        else:
            client.join(*new)

    @rule()
    def confirm(self) -> None:
        self.room.source.confirm()

    @rule(slot=slots, name=st.sampled_from(NAMES))
    def leave(self, slot: int, name: str) -> None:
        if name in self.clients[slot].groups:
            self.clients[slot].unsubscribe(name)

    @rule(slot=slots)
    def end(self, slot: int) -> None:
        self.clients[slot].end()
        self.clients[slot] = self.client(slot)

    @invariant()
    def every_stream_is_paid_by_one_who_has_it(self) -> None:
        streams = [stream for stream in self.room.hub._registry.all if stream.holders]
        for share in self.shares:
            assert share.paid == len([stream for stream in streams if stream.share is share])
            assert not share.reserved
        for stream in streams:
            members = [client.outbox for client in self.clients if stream.name in client.groups]
            waiting = [c.outbox for c in self.clients if c.waiting is not None and stream.name in c.waiting.streams]
            assert stream.payer in [*members, *waiting] or not members
            assert stream.payer is None or stream.share is stream.payer.share

    def teardown(self) -> None:
        for client in self.clients:
            client.end()
        assert [share.paid for share in self.shares] == [0, 0]
        self.room.hub.stopService()


def test_shares_whoever_comes_and_goes() -> None:
    """The sum of what is paid is what is held, and all of it is given back."""
    run_state_machine_as_test(ShareMachine, settings=machine_test(1, 30))
