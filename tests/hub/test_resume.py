"""Resume from every offset: whoever comes back has exactly what it missed, in order, once, or is told that it has not.

The model is a plain list: everything that a stream has published, whether a client saw it or not.
"""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import marketfeed.hub.join
from marketfeed.wire.dialects import Shape
from tests.fakes import FakeArchive
from tests.rooms import Client, Room, trade
from tests.strategies import machine_test

STREAM = "trade@A"
BAD = b"bad"


class Reading:
    """A client of the stream. `got`: the numbers of what has come; each has one offset, whoever gets it."""

    def __init__(self, machine: ResumeMachine, *, queue: int) -> None:
        self.machine = machine
        self.client = Client(machine.room, shape=Shape.OFFSET, queue=queue)
        self.got: list[int] = []

    def read(self) -> None:
        messages = self.client.outbox.messages
        self.client.outbox.writes.clear()
        for message in messages:
            if isinstance(message, dict) and message["stream"] == STREAM:
                number = message["data"]["t"]
                self.got.append(number)
                assert self.machine.offsets.setdefault(number, message["offset"]) == message["offset"]


class Resuming(Reading):
    """A client that knows where it was cut off, and checks what it gets from there on."""

    def __init__(self, machine: ResumeMachine, since: tuple[str, int] | None, *, queue: int) -> None:
        super().__init__(machine, queue=queue)
        self.has_little_room = queue < 1000
        self.since = since  # an offset, and how many had been published up to there
        self.joined_at: int | None = None
        offset = None if since is None else {STREAM: since[0]}
        self.client.join(STREAM, since=offset, wants_state=True)

    def check(self) -> None:
        """All that it has got is a piece of what was published, which ends where the stream ends."""
        self.read()
        if not self.client.answers or self.client.ended:
            assert not self.got
            return
        published = self.machine.published
        if self.joined_at is None:
            recovered = self.client.recovered
            assert (recovered is None) == (self.since is None)
            if recovered is not None and recovered[STREAM]:
                assert self.since is not None
                assert self.machine.may_recover(self.since)
                self.joined_at = self.since[1]
            else:
                assert self.since is None or self.has_little_room or not self.machine.must_recover(self.since)
                self.joined_at = self.machine.got - len(self.got)
                assert len(self.got) <= self.machine.fresh, "something from before the answer"
        assert self.got == published[self.joined_at : self.machine.got]


class ResumeMachine(RuleBasedStateMachine):
    """A hub with a small ring and clients that are cut off anywhere, and come back from anywhere."""

    HISTORY = 4

    def __init__(self) -> None:
        super().__init__()
        self.archive = self.make_archive()
        self.room = Room(self.archive, history=self.HISTORY, history_bytes=1000)
        self.published: list[int] = []
        self.offsets: dict[int, str] = {}
        self.fresh = 0  # of those, how many the hub has got since the last check
        self.got = 0  # and in all
        self.count = 0
        self.begun = 0  # of `published`, how many were there when the epoch began
        self.flows = False
        self.clients: list[Resuming] = []

    def make_archive(self) -> FakeArchive | None:
        return None

    # What must be.

    def may_recover(self, since: tuple[str, int]) -> bool:
        """Nothing behind that offset may have been missed."""
        return since[1] > self.begun

    def must_recover(self, since: tuple[str, int]) -> bool:
        """It is in the ring for certain."""
        return self.flows and self.may_recover(since) and len(self.published) - since[1] <= self.HISTORY

    # What happens.

    @initialize()
    def begin(self) -> None:
        self.clients.append(Resuming(self, None, queue=1 << 20))
        self.confirm()

    @rule(count=st.integers(1, 3))
    def publish(self, count: int) -> None:
        if self.flows:
            for _ in range(count):
                self._publish()
            self.room.hub.flush()

    def _publish(self) -> None:
        self.count += 1
        self.published.append(self.count)
        self.deliver(trade(self.count))

    def deliver(self, payload: bytes) -> None:
        self._deliver(payload)

    def _deliver(self, payload: bytes, offset: str | None = None) -> None:
        if payload is not BAD:
            self.fresh += 1
            self.got += 1
        self.room.hub.publish(STREAM, payload, offset)

    @rule()
    def publish_badly(self) -> None:
        if self.flows:
            self.deliver(BAD)

    @rule()
    def lose(self) -> None:
        self.flows = False
        self.room.source.lose(5)

    @rule()
    def confirm(self) -> None:
        if not self.flows:
            self.flows = True
            self.begun = len(self.published)
            self.room.source.confirm(STREAM)

    @rule(back=st.integers(0, 12), queue=st.sampled_from([1 << 20, 1 << 20, 400]))
    def come(self, back: int, queue: int) -> None:
        """A client that was cut off some publications ago comes back."""
        at = max(len(self.published) - back, 0)
        offset = self.offsets.get(self.published[at - 1]) if at else None
        if offset is not None:
            self.clients.append(Resuming(self, (offset, at), queue=queue))

    @rule()
    def come_fresh(self) -> None:
        self.clients.append(Resuming(self, None, queue=1 << 20))

    @rule(pick=st.integers(0, 9))
    def cut_off(self, pick: int) -> None:
        others = self.clients[1:]
        if others:
            client = others[pick % len(others)]
            client.client.end()
            self.clients.remove(client)

    @rule()
    def turn(self) -> None:
        """What is framed in turns of its own goes on."""
        self.room.turn()

    @invariant()
    def everybody_has_what_is_due(self) -> None:
        self.room.hub.flush()
        for client in self.clients:
            client.check()
        self.fresh = 0

    def teardown(self) -> None:
        if self.archive is not None:
            self.archive.answer()
        while len(self.room.hub.portions):
            self.room.turn()
        for client in self.clients:
            client.check()
            client.client.end()
        self.room.clock.advance(10)
        self.room.assert_empty()


class ArchiveMachine(ResumeMachine):
    """The same with an archive, which goes on while the source is lost, is trimmed, and answers when it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = 0  # the newest
        self.read = 0  # the newest that the source has delivered

    def make_archive(self) -> FakeArchive:
        return FakeArchive(most=2)

    @property
    def store(self) -> FakeArchive:
        assert self.archive is not None
        return self.archive

    def may_recover(self, since: tuple[str, int]) -> bool:
        return True

    def must_recover(self, since: tuple[str, int]) -> bool:
        return False  # a small queue, a trimmed archive

    def deliver(self, payload: bytes) -> None:
        self.entry += 1
        offset = f"{self.entry}-0"
        if payload is not BAD:
            self.offsets[self.count] = offset
        self.store.add(STREAM, offset, payload)
        if self.flows:
            self.read = self.entry
            self._deliver(payload, offset)

    @rule(count=st.integers(1, 6))
    def miss(self, count: int) -> None:
        """The engine goes on while nobody listens; other processes may."""
        if not self.flows:
            for _ in range(count):
                self._publish()

    @rule()
    def confirm(self) -> None:
        """The source goes on where it was; if that is trimmed, who is in has been told of the gap, and is cut off."""
        if self.flows:
            return
        if self.store.floors.get(STREAM, (0, 0))[0] > self.read:
            for client in self.clients:
                client.check()
                client.client.end()
            self.clients.clear()
            self.read, self.got = self.entry, len(self.published)
        self.flows = True
        self.room.source.confirm(STREAM, after=f"{self.read}-0")
        for offset, payload in list(self.store.entries.get(STREAM, [])):
            if int(offset.partition("-")[0]) > self.read:
                self._deliver(BAD if payload == BAD else payload, offset)
        self.read = self.entry
        self.room.hub.flush()

    @rule(kept=st.integers(1, 12))
    def trim(self, kept: int) -> None:
        self.store.trim(STREAM, kept)

    @rule(count=st.integers(2, 6), kept=st.integers(0, 2))
    def miss_for_good(self, count: int, kept: int) -> None:
        """What was published while the source was lost is trimmed before it is back."""
        self.lose()
        self.miss(count)
        self.trim(kept)
        self.confirm()

    @rule(late=st.booleans())
    def hesitate(self, late: bool) -> None:
        self.store.late = late
        if not late:
            self.store.answer()

    @rule(count=st.integers(1, 3))
    def answer(self, count: int) -> None:
        self.store.answer(count)


@pytest.fixture(params=["at once", "in turns"], autouse=True)
def slowness(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missed is framed at once, or each publication in a turn of its own, between which everything happens."""
    if request.param == "in turns":
        monkeypatch.setattr(marketfeed.hub.join, "_TOGETHER", 1)
        monkeypatch.setattr(marketfeed.hub.join, "_EACH_IN_US", 5000)


def run(machine: type[ResumeMachine]) -> None:
    run_state_machine_as_test(machine, settings=machine_test(1.5, 40))


def test_resume_from_every_offset_of_one_process() -> None:
    """Without an archive: what the ring has, in its epoch."""
    run(ResumeMachine)


def test_resume_from_every_offset_of_an_archive() -> None:
    """With one: whatever has not been trimmed, at whatever moment it is told."""
    run(ArchiveMachine)
