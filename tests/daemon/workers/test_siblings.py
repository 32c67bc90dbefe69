"""What workers ask each other, through their parent: who is asked, and what comes of it when somebody is gone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from marketfeed.boundaries import Past
from marketfeed.daemon.workers.crew import Crew, Member
from marketfeed.daemon.workers.messages import Answer, Found, Ready, Role, Seek, Sought, decode_from_worker, encode
from marketfeed.daemon.workers.worker import Control

A, B = "trade@A", "trade@B"
PAST = Past(A, "0000000a.1", 7, [b"\0\n"], "server")


class FakeProcess:
    """Keeps what it is told."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.told: list[Any] = []

    def tell(self, message: Any) -> None:
        self.told.append(message)


class Parent:
    """A crew of so many processes, which are ready; the epochs of process 10 begin with `0000000a`, and so on."""

    def __init__(self, count: int) -> None:
        self.clock = Clock()
        program: Any = None
        self.crew = Crew(self.clock, count, program, Role(0, count, "80", [], 0, None), lambda: [[]])
        self.processes = {}
        for number in range(10, 10 + count):
            process: Any = FakeProcess(number)
            self.processes[number] = process
            self.crew._members[number] = member = Member(process)
            member.epochs = f"{number:08x}"

    def hears(self, number: int, message: Any) -> None:
        self.crew._heard(number, decode_from_worker(encode(message)))

    def told(self, number: int) -> list[Any]:
        told, self.processes[number].told = self.processes[number].told, []
        return list(told)


def answer(to: Sought, *pasts: Past) -> Answer:
    return Answer(to.number, msgspec.Raw(msgspec.json.encode(list(pasts))))


class TestParent:
    def test_each_is_asked_for_its_own_epochs_and_nobody_for_those_that_nobody_has(self) -> None:
        parent = Parent(3)
        wanted = [(A, "0000000a.1"), (B, "0000000c.2"), (A, "0000000b.1"), (B, "0badc0de.1"), (B, "0000000a.9")]
        parent.hears(11, Seek(5, wanted))
        (first,), (second,) = parent.told(10), parent.told(12)
        assert first.wanted == [(A, "0000000a.1"), (B, "0000000a.9")]
        assert second.wanted == [(B, "0000000c.2")]
        assert not parent.told(11)
        parent.hears(10, answer(first, PAST))
        assert not parent.told(11)
        parent.hears(12, answer(second))
        assert parent.told(11) == [Found(5, [[PAST], []])]
        assert not parent.clock.getDelayedCalls()

    def test_what_nobody_can_know_is_answered_at_once(self) -> None:
        parent = Parent(2)
        parent.hears(11, Seek(5, [(A, "0badc0de.1"), (A, "0000000b.1"), (A, ".")]))
        assert parent.told(11) == [Found(5, [])]
        assert not parent.told(10)

    def test_one_that_hangs_is_left_out(self) -> None:
        """And what it says afterwards is nobody's."""
        parent = Parent(3)
        parent.hears(11, Seek(5, [(A, "0000000a.1"), (B, "0000000c.2")]))
        (first,), (second,) = parent.told(10), parent.told(12)
        parent.hears(10, answer(first, PAST))
        parent.clock.advance(1.5)
        assert parent.told(11) == [Found(5, [[PAST]])]
        parent.hears(12, answer(second, PAST))
        assert not parent.told(11)

    def test_one_that_ends_is_not_waited_for(self) -> None:
        parent = Parent(2)
        parent.hears(11, Seek(5, [(A, "0000000a.1")]))
        parent.crew._members.pop(10).lose()
        assert parent.told(11) == [Found(5, [])]

    def test_the_epochs_are_known_from_the_moment_at_which_it_is_ready(self, monkeypatch: pytest.MonkeyPatch) -> None:
        parent = Parent(1)

        class Nothing:
            def ready(self, *_: object) -> list[Any]:
                return []

        monkeypatch.setattr(parent.crew, "_supervision", Nothing(), raising=False)
        parent.crew._members[10].epochs = ""
        parent.hears(10, Ready("0badc0de"))
        assert parent.crew._members[10].epochs == "0badc0de"


class FakePipe:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said = b""

    def write(self, data: bytes) -> None:
        self.said += data

    def loseConnection(self) -> None:
        pass

    def take(self) -> list[Any]:
        said, self.said = self.said, b""
        return [decode_from_worker(line) for line in said.splitlines()]


class OwnPasts:
    def __init__(self) -> None:
        self.asked: list[Any] = []

    def of(self, wanted: Any) -> Deferred[list[Past]]:
        self.asked.append(wanted)
        return succeed([PAST])


class TestWorker:
    @pytest.fixture
    def own(self) -> OwnPasts:
        return OwnPasts()

    @pytest.fixture
    def control(self, own: OwnPasts) -> Any:
        nothing: Any = None
        control: Any = Control(Clock(), nothing, nothing, nothing, own, "0000000b", nothing, (), 5.0, [])
        control.transport = FakePipe()
        return control

    def test_it_asks_and_is_told(self, control: Any) -> None:
        found = control.of([(A, "0000000a.1"), (B, "0000000a.2")])
        (seek,) = control.transport.take()
        assert seek == Seek(1, [(A, "0000000a.1"), (B, "0000000a.2")])
        control.dataReceived(encode(Found(2, [[PAST]])))
        assert not found.called
        control.dataReceived(encode(Found(1, [[PAST], [], [PAST]])))
        assert found.result == [PAST, PAST]

    def test_it_answers_of_its_own(self, control: Any, own: OwnPasts) -> None:
        control.dataReceived(encode(Sought(3, [(A, "0000000b.1")])))
        (said,) = control.transport.take()
        assert own.asked == [[(A, "0000000b.1")]]
        assert (said.number, bytes(said.found)) == (3, encode([PAST]).strip())

    def test_one_who_does_not_wait_any_longer_is_forgotten(self, control: Any) -> None:
        found = control.of([(A, "0000000a.1")])
        found.addErrback(lambda _: None)
        found.cancel()
        control.dataReceived(encode(Found(1, [[PAST]])))
        assert not control._sought

    def test_without_a_parent_nothing_is_known(self, control: Any) -> None:
        found = control.of([(A, "0000000a.1")])
        control.connectionLost()
        assert found.result == []
        assert control.of([(A, "0000000a.1")]).result == []
