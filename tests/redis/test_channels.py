"""The channels that are wanted: against a model of the server, whatever order wishes, answers and losses come in."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from marketfeed.redis.channels import Batch, DesiredChannels, Verb
from tests.strategies import machine_test

A, B, C = b"trade@A", b"trade@B", b"trade@C"
MOST_IN_A_BATCH = 512


def names(count: int) -> list[bytes]:
    return [b"trade@M%05d" % number for number in range(count)]


def linked(*wanted: bytes) -> DesiredChannels:
    """Wishes that a new link finds."""
    desired = DesiredChannels()
    for channel in wanted:
        desired.want(channel)
    desired.linked()
    return desired


def settled(*wanted: bytes) -> DesiredChannels:
    """Wishes that are all confirmed."""
    desired = linked(*wanted)
    serve(desired)
    return desired


def confirm(desired: DesiredChannels, batch: Batch | None) -> list[bytes]:
    """Answer a whole batch; the channels that are confirmed and still wanted."""
    assert batch is not None
    return [channel for channel in batch.channels if desired.answered(batch.verb, channel)]


def serve(desired: DesiredChannels, forbidden: Iterable[bytes] = ()) -> tuple[list[Batch], list[bytes]]:
    """Answer until nothing differs; the batches that it took, and the channels reported as refused."""
    batches, refused = [], []
    while (batch := desired.next_batch()) is not None:
        batches.append(batch)
        if batch.verb is Verb.SUBSCRIBE and not set(forbidden).isdisjoint(batch.channels):
            channel = desired.denied()
            if channel is not None:
                refused.append(channel)
        else:
            confirm(desired, batch)
    return batches, refused


# One step at a time.


def test_nothing_is_sent_without_a_link() -> None:
    """Wishes wait for a link, and the first batch on it has all that are left."""
    desired = DesiredChannels()
    desired.want(A)
    desired.want(B)
    desired.unwant(B)
    assert desired.next_batch() is None
    desired.linked()
    assert desired.next_batch() == Batch(Verb.SUBSCRIBE, [A])


def test_a_confirmation_says_whether_the_channel_is_still_wanted() -> None:
    """The answer to a subscription is news only for a channel that nobody has given up meanwhile."""
    desired = linked(A, B)
    batch = desired.next_batch()
    desired.unwant(B)
    assert confirm(desired, batch) == [A]
    assert desired.next_batch() == Batch(Verb.UNSUBSCRIBE, [B])


def test_one_batch_is_in_flight_at_a_time() -> None:
    """While any channel of a batch is unanswered nothing else is sent."""
    desired = linked(A, B)
    desired.next_batch()
    desired.want(C)
    assert desired.next_batch() is None
    assert desired.answered(Verb.SUBSCRIBE, A)
    assert desired.next_batch() is None
    assert desired.answered(Verb.SUBSCRIBE, B)
    assert desired.next_batch() == Batch(Verb.SUBSCRIBE, [C])


def test_a_wish_taken_back_in_time_costs_nothing() -> None:
    """Of wishes that cancel each other out while a batch is in flight nothing is sent."""
    desired = linked(A)
    batch = desired.next_batch()
    desired.want(B)
    desired.unwant(B)
    confirm(desired, batch)
    assert desired.next_batch() is None


def test_a_batch_has_one_verb_and_the_oldest_wishes_first() -> None:
    """Subscriptions and their ends go in turn, in the order of the wishes."""
    desired = settled(A)
    desired.want(B)
    first = desired.next_batch()
    desired.unwant(A)
    desired.want(C)
    confirm(desired, first)
    assert [(batch.verb, batch.channels) for batch in serve(desired)[0]] == [
        (Verb.UNSUBSCRIBE, [A]),
        (Verb.SUBSCRIBE, [C]),
    ]


def test_a_channel_wanted_again_before_its_end_was_sent_is_there_at_once() -> None:
    """No answer will come for it, so the wish itself says that it is subscribed."""
    desired = settled(A)
    desired.want(B)
    batch = desired.next_batch()
    desired.unwant(A)
    assert desired.want(A)
    confirm(desired, batch)
    assert desired.next_batch() is None
    assert desired.confirmed == {A, B}


def test_a_channel_wanted_again_while_it_ends_is_subscribed_anew() -> None:
    """An UNSUBSCRIBE on its way cannot be called back: there may be a hole, so the new confirmation counts."""
    desired = settled(A)
    desired.unwant(A)
    end = desired.next_batch()
    assert not desired.want(A)
    confirm(desired, end)
    assert desired.next_batch() == Batch(Verb.SUBSCRIBE, [A])


def test_a_loss_forgets_what_was_confirmed_and_what_was_in_flight() -> None:
    """A new link starts from nothing."""
    desired = settled(A)
    desired.want(B)
    desired.next_batch()
    desired.lost()
    assert desired.confirmed == set()
    assert desired.next_batch() is None
    desired.linked()
    assert desired.next_batch() == Batch(Verb.SUBSCRIBE, [A, B])


def test_a_refused_channel_is_left_alone() -> None:
    """What the server does not permit is reported once, and not asked for again on this link."""
    desired = linked(A)
    assert serve(desired, forbidden=[A])[1] == [A]
    desired.want(B)
    assert serve(desired, forbidden=[A]) == ([Batch(Verb.SUBSCRIBE, [B])], [])


def test_a_refused_channel_is_asked_for_when_it_is_wanted_anew_and_on_a_new_link() -> None:
    """Permissions change; the next client, or the next link, finds out."""
    desired = linked(A)
    serve(desired, forbidden=[A])
    desired.unwant(A)
    assert not desired.want(A)
    assert serve(desired, forbidden=[A])[1] == [A]
    desired.lost()
    desired.linked()
    assert serve(desired)[1] == []
    assert desired.confirmed == {A}


def test_a_refused_channel_is_tried_again() -> None:
    """So many at a time, each in its turn, and apart from what was never refused; it is news when it is confirmed."""
    desired = linked(A, B, C)
    assert sorted(serve(desired, forbidden=[A, B])[1]) == [A, B]
    desired.retry(1)
    first = desired.next_batch()
    assert first is not None
    assert len(first.channels) == 1
    assert desired.denied() is None, "that is known"
    assert desired.next_batch() is None
    desired.retry(1)
    second = desired.next_batch()
    assert second is not None
    assert {*first.channels, *second.channels} == {A, B}
    assert confirm(desired, second) == second.channels
    assert set(desired.refused) == set(first.channels)
    desired.retry(5)
    desired.want(b"trade@D")
    assert serve(desired) == ([Batch(Verb.SUBSCRIBE, first.channels), Batch(Verb.SUBSCRIBE, [b"trade@D"])], [])
    assert set(desired.refused) == set()
    desired.retry(5)
    assert desired.next_batch() is None


def test_a_channel_given_up_while_it_is_refused_is_not_reported() -> None:
    """Nobody is left to hear of it."""
    desired = linked(A)
    desired.next_batch()
    desired.unwant(A)
    assert desired.denied() is None
    assert desired.next_batch() is None


def test_a_channel_given_up_is_left_out_of_the_halves_that_wait() -> None:
    """A refused batch is tried again only as far as it is still wanted."""
    desired = linked(A, B, C)
    desired.next_batch()
    desired.unwant(B)
    desired.unwant(C)
    assert desired.denied() is None
    assert serve(desired, forbidden=[B, C]) == ([Batch(Verb.SUBSCRIBE, [A])], [])


def test_an_end_that_the_server_does_not_permit_is_not_asked_for_again() -> None:
    """A user without UNSUBSCRIBE keeps the subscription: a waste, but no loop."""
    desired = settled(A, B)
    desired.unwant(A)
    desired.unwant(B)
    desired.next_batch()
    assert desired.denied() is None
    assert desired.next_batch() is None
    assert desired.want(A)


def test_an_end_that_nobody_asked_for_is_made_good() -> None:
    """A server that ends a subscription by itself is asked for it again."""
    desired = settled(A, B)
    assert not desired.answered(Verb.UNSUBSCRIBE, A)
    assert desired.next_batch() == Batch(Verb.SUBSCRIBE, [A])


def test_an_error_with_nothing_in_flight_is_nobody_s() -> None:
    """There is no channel that it could be about."""
    assert linked().denied() is None


def test_a_large_set_goes_in_batches() -> None:
    """No command is longer than a server takes in one go, and each channel is in one of them."""
    desired = linked(*names(1300))
    batches, _ = serve(desired)
    assert [len(batch.channels) for batch in batches] == [MOST_IN_A_BATCH, MOST_IN_A_BATCH, 1300 - 2 * MOST_IN_A_BATCH]
    assert desired.confirmed == set(names(1300))


def test_wishes_that_come_and_go_without_a_link_leave_nothing_behind() -> None:
    """During a long outage clients may ask for any number of names."""
    desired = DesiredChannels()
    channel = b"trade@" + b"X" * 40
    references = sys.getrefcount(channel)
    desired.want(channel)
    desired.unwant(channel)
    assert sys.getrefcount(channel) == references
    desired.linked()
    desired.want(channel)
    desired.unwant(channel)
    desired.lost()
    assert sys.getrefcount(channel) == references


@settings(deadline=None, max_examples=50)
@given(count=st.integers(1, MOST_IN_A_BATCH), data=st.data())
def test_each_refused_channel_costs_a_logarithm_of_the_batch(count: int, data: st.DataObject) -> None:
    """Halving finds the forbidden channels, all of them and no others, in few commands."""
    channels = names(count)
    forbidden = data.draw(st.sets(st.sampled_from(channels), max_size=8))
    desired = linked(*channels)
    batches, refused = serve(desired, forbidden)
    assert sorted(refused) == sorted(forbidden)
    assert set(desired.refused) == forbidden
    assert desired.confirmed == set(channels) - forbidden
    assert len(batches) <= 1 + 2 * len(forbidden) * math.ceil(math.log2(count) if count > 1 else 0)


# Everything at any time.

POOL = names(14)


def slot_of(channel: bytes) -> int:
    return int(channel[-1:]) % 3


class Server:
    """What Redis does with one connection: it takes commands in order, and answers each channel of a permitted one.

    `moved`: the slots that it has no longer.
    """

    def __init__(self, forbidden: frozenset[bytes]) -> None:
        self.forbidden = forbidden
        self.moved: set[int] = set()
        self.subscribed: set[bytes] = set()
        self.commands: deque[Batch] = deque()
        self.answers: deque[tuple[Verb, bytes] | int | None] = deque()

    def move(self, slot: int) -> None:
        """It ends the subscriptions of this slot without being asked."""
        self.moved.add(slot)
        for channel in sorted(each for each in self.subscribed if slot_of(each) == slot):
            self.subscribed.discard(channel)
            self.answers.append((Verb.UNSUBSCRIBE, channel))

    def work(self) -> None:
        """Take the oldest command; among the answers None is a refusal, and a slot one that is elsewhere."""
        batch = self.commands.popleft()
        if self.moved and slot_of(batch.channels[0]) in self.moved:
            self.answers.append(slot_of(batch.channels[0]))
            return
        if batch.verb is Verb.UNSUBSCRIBE:
            self.subscribed.difference_update(batch.channels)
        elif self.forbidden.isdisjoint(batch.channels):
            self.subscribed.update(batch.channels)
        else:
            self.answers.append(None)
            return
        self.answers.extend((batch.verb, channel) for channel in batch.channels)


class DesiredAgainstServer(RuleBasedStateMachine):
    """Wishes, answers and losses in any order; `told` and `refused` are what the hub would believe."""

    window = 1

    def make(self) -> DesiredChannels:
        return DesiredChannels()

    @initialize(forbidden=st.frozensets(st.sampled_from(POOL), max_size=5))
    def begin(self, forbidden: frozenset[bytes]) -> None:
        self.desired = self.make()
        self.forbidden = forbidden
        self.server: Server | None = None
        self.wanted: set[bytes] = set()
        self.told: set[bytes] = set()
        self.refused: set[bytes] = set()

    @rule(channels=st.lists(st.sampled_from(POOL), min_size=1, max_size=6, unique=True))
    def want(self, channels: list[bytes]) -> None:
        for channel in channels:
            if channel not in self.wanted:
                self.wanted.add(channel)
                if self.desired.want(channel):
                    self.told.add(channel)

    @rule(channels=st.lists(st.sampled_from(POOL), min_size=1, max_size=6, unique=True))
    def unwant(self, channels: list[bytes]) -> None:
        for channel in channels:
            if channel in self.wanted:
                self.wanted.discard(channel)
                self.told.discard(channel)
                self.refused.discard(channel)
                self.desired.unwant(channel)

    @rule()
    def link(self) -> None:
        """There is a new link, perhaps before the loss of the old one was noticed."""
        self.server = Server(self.forbidden)
        self.told.clear()
        self.refused.clear()
        self.desired.linked()

    @precondition(lambda self: self.server is not None)
    @rule()
    def lose(self) -> None:
        self.server = None
        self.told.clear()
        self.refused.clear()
        self.desired.lost()

    @rule()
    def send(self) -> None:
        batch = self.desired.next_batch()
        if batch is None:
            return
        assert self.server is not None, "something is sent without a link"
        if self.window == 1:
            assert not self.server.commands, "a second batch is in flight"
            assert not self.server.answers, "a second batch is in flight"
        assert 0 < len(set(batch.channels)) == len(batch.channels)
        self.server.commands.append(batch)

    @rule(most=st.integers(0, 3))
    def retry(self, most: int) -> None:
        self.desired.retry(most)

    @precondition(lambda self: self.server is not None)
    @rule(channel=st.sampled_from(POOL))
    def permit(self, channel: bytes) -> None:
        """The server permits a channel from now on."""
        assert self.server is not None
        self.server.forbidden = self.forbidden = self.forbidden - {channel}

    @precondition(lambda self: self.server is not None and self.server.commands)
    @rule()
    def work(self) -> None:
        assert self.server is not None
        self.server.work()

    @precondition(lambda self: self.server is not None and self.server.answers)
    @rule()
    def answer(self) -> None:
        assert self.server is not None
        answer = self.server.answers.popleft()
        if isinstance(answer, int):
            self.elsewhere(answer)
            return
        if answer is not None:
            if self.desired.answered(*answer):
                self.told.add(answer[1])
                self.refused.discard(answer[1])
            elif answer[0] is Verb.UNSUBSCRIBE:
                self.told.discard(answer[1])
            return
        channel = self.desired.denied()
        if channel is not None:
            assert channel in self.wanted, "a channel that nobody wants is reported as refused"
            assert channel not in self.refused, "a channel is reported as refused twice"
            self.refused.add(channel)

    def elsewhere(self, slot: int) -> None:
        raise AssertionError("nothing moves here")

    @rule()
    def settle(self) -> None:
        """Answer everything: what the server has is what is wanted and permitted, and nobody was left in the dark."""
        if self.server is None:
            self.link()
        server = self.server
        assert server is not None
        self.answer_all(server)
        self.desired.retry(len(POOL))
        self.desired.ask_again()
        self.answer_all(server)
        assert server.subscribed == self.wanted - self.forbidden
        assert self.desired.confirmed == server.subscribed
        assert self.told == self.wanted - self.forbidden, "a client waits for a confirmation that never comes"
        assert self.refused == self.wanted & self.forbidden
        assert set(self.desired.refused) == self.refused

    def answer_all(self, server: Server) -> None:
        server.moved.clear()
        for _ in range(8 * len(POOL)):
            if server.commands:
                self.work()
            elif server.answers:
                self.answer()
            else:
                self.send()
                if not server.commands:
                    break
        else:
            raise AssertionError("no end of batches")

    @invariant()
    def nothing_told_is_missed(self) -> None:
        """What the hub takes for confirmed is subscribed on the server, or the server has said that it is no more."""
        if hasattr(self, "desired"):
            subscribed: set[bytes] = set()
            if self.server is not None:
                ended = [each[1] for each in self.server.answers if isinstance(each, tuple)]
                subscribed = self.server.subscribed.union(ended if self.server.moved or self.window > 1 else ())
            assert self.told <= subscribed
            assert self.desired.wanted == self.wanted

    def teardown(self) -> None:
        if hasattr(self, "desired"):
            self.settle()


TestDesiredAgainstServer = DesiredAgainstServer.TestCase
TestDesiredAgainstServer.settings = machine_test(1.5, 50)


class SlotsAgainstServer(DesiredAgainstServer):
    """The same with several batches in flight, where channels have slots that move away and come back."""

    window = 3

    def make(self) -> DesiredChannels:
        return DesiredChannels(slot_of, self.window)

    @precondition(lambda self: self.server is not None)
    @rule(slot=st.integers(0, 2))
    def move(self, slot: int) -> None:
        assert self.server is not None
        self.server.move(slot)

    @precondition(lambda self: self.server is not None)
    @rule(slot=st.integers(0, 2))
    def come_back(self, slot: int) -> None:
        assert self.server is not None
        self.server.moved.discard(slot)

    @rule()
    def ask_again(self) -> None:
        self.desired.ask_again()

    def elsewhere(self, slot: int) -> None:
        """An end that nobody asked for may have been taken for an answer; then this one is nobody's."""
        oldest = self.desired.oldest
        if oldest is not None and slot_of(oldest.channels[0]) == slot:
            self.desired.misplace()

    @rule()
    def send(self) -> None:
        super().send()
        if self.server is not None:
            for batch in self.server.commands:
                assert len({slot_of(channel) for channel in batch.channels}) == 1


TestSlotsAgainstServer = SlotsAgainstServer.TestCase
TestSlotsAgainstServer.settings = machine_test(1.5, 50)
