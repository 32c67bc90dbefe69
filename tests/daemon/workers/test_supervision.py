"""When workers are started, rolled and ended: each rule by itself, then all of them whatever happens in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.daemon.workers.actions import Action, Assign, End, Kill, Listening, Over, Retire, Say, Spawn
from marketfeed.daemon.workers.slots import ADOPTED_SECONDS, State
from marketfeed.daemon.workers.supervision import READY_SECONDS, ROLL_SECONDS, SILENT_SECONDS, Supervision
from tests.strategies import property_test


class Crew:
    """Workers as their processes would be: what was done to each, and what is said of all."""

    def __init__(self, count: int = 2, queues: int | None = None) -> None:
        self.now = 0.0
        self.count = count
        self.queue_count = count if queues is None else queues
        self.supervision = Supervision(count, self.queue_count)
        self.number: dict[int, int] = {}
        self.born: dict[int, float] = {}
        self.alive: set[int] = set()
        self.ready_ones: set[int] = set()
        self.queues: dict[int, tuple[int, ...]] = {}
        self.retired: list[int] = []
        self.killed: list[int] = []
        self.said: list[str] = []
        self.ends: list[tuple[int, bool]] = []
        self.is_listening = self.is_over = False
        self.is_ending = False
        self.do(self.supervision.begin(0.0))

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Spawn(number, process):
                    assert process not in self.number, "the same process twice"
                    assert not self.is_ending, "started while all ends"
                    self.number[process], self.born[process] = number, self.now
                    self.alive.add(process)
                case Kill(process):
                    self.killed.append(process)
                case Retire(process):
                    self.retired.append(process)
                    self.queues.pop(process)
                case Assign(process, queues):
                    assert process in self.ready_ones
                    self.queues[process] = queues
                case End(process, at_once):
                    self.ends.append((process, at_once))
                case Say(_, text, facts):
                    self.said.append(text.format_map(facts))
                case Listening():
                    assert not self.is_listening
                    self.is_listening = True
                case Over():
                    assert not self.is_over
                    self.is_over = True

    def ready(self, *processes: int) -> None:
        for process in processes:
            self.ready_ones.add(process)
            self.do(self.supervision.ready(process, self.now))

    def die(self, process: int, how: str = "by signal 9") -> None:
        self.alive.discard(process)
        self.ready_ones.discard(process)
        self.queues.pop(process, None)
        self.do(self.supervision.ended(process, self.now, how))

    def wait(self, seconds: float, *, all_beat: bool = True) -> None:
        self.now += seconds
        for process in self.alive if all_beat else ():
            self.do(self.supervision.beat(process, self.now))
        self.do(self.supervision.tick(self.now))

    def beat(self, process: int) -> None:
        self.do(self.supervision.beat(process, self.now))

    def roll(self) -> None:
        self.do(self.supervision.roll(self.now))

    def stop(self, *, at_once: bool = False) -> None:
        self.is_ending = True
        self.do(self.supervision.stop(self.now, at_once=at_once))

    def state(self, number: int) -> State:
        return self.supervision.facts(self.now)[number - 1].state

    def newest(self, number: int) -> int:
        return max(process for process in self.number if self.number[process] == number)


def running(count: int = 2, queues: int | None = None) -> Crew:
    crew = Crew(count, queues)
    crew.ready(*sorted(crew.alive))
    return crew


class TestStart:
    def test_all_are_started_and_accept_from_their_own_queue(self) -> None:
        crew = Crew(3)
        assert crew.number == {1: 1, 2: 2, 3: 3}
        crew.ready(2, 1)
        assert not crew.is_listening
        crew.ready(3)
        assert crew.is_listening
        assert crew.queues == {1: (0,), 2: (1,), 3: (2,)}

    def test_one_queue_is_for_all(self) -> None:
        assert running(3, 1).queues == {1: (0,), 2: (0,), 3: (0,)}

    def test_one_worker(self) -> None:
        crew = running(1)
        assert crew.is_listening
        crew.die(1)
        assert crew.alive == {2}

    def test_one_that_is_not_ready_in_time_is_killed(self) -> None:
        crew = Crew(2)
        crew.ready(1)
        crew.wait(READY_SECONDS - 0.1)
        assert crew.killed == []
        crew.wait(0.1)
        assert crew.killed == [2]
        crew.wait(1)
        assert crew.killed == [2], "killed twice"
        assert "worker 2 is not ready within 60 s, and is killed" in crew.said


class TestEnd:
    def test_its_successor_is_started_at_once_and_nobody_takes_its_queue(self) -> None:
        crew = running()
        crew.die(1)
        assert crew.number[3] == 1
        assert crew.queues == {2: (1,)}
        crew.ready(3)
        assert crew.queues == {2: (1,), 3: (0,)}
        assert crew.said == ["worker 1 ended by signal 9; it is started again"]

    def test_who_takes_long_to_start_has_no_queue_meanwhile(self) -> None:
        crew = running()
        crew.die(1)
        crew.wait(ADOPTED_SECONDS - 0.1)
        assert crew.queues == {2: (1,)}
        crew.wait(0.1)
        assert crew.queues == {2: (1, 0)}
        crew.ready(3)
        assert crew.queues == {2: (1,), 3: (0,)}

    def test_who_ends_again_and_again_waits_longer_each_time_and_its_queue_is_anothers(self) -> None:
        crew = running(3)
        waits = []
        for _ in range(9):
            crew.die(crew.newest(1))
            begun = crew.now
            while crew.state(1) is State.WAITING:
                assert crew.queues == {2: (1, 0), 3: (2,)}
                crew.wait(0.5)
            waits.append(crew.now - begun)
        assert waits == [0, 1, 2, 4, 8, 16, 30, 30, 30]
        assert crew.supervision.facts(crew.now)[0].restarts == 9

    def test_who_has_run_for_long_has_not_failed_before(self) -> None:
        crew = running()
        for _ in range(3):
            crew.die(crew.newest(1))
            assert crew.state(1) is State.STARTING
            crew.ready(crew.newest(1))
            for _ in range(60):
                crew.wait(1)

    def test_who_is_not_heard_of_is_killed_and_replaced(self) -> None:
        crew = running()
        for _ in range(int(SILENT_SECONDS)):
            crew.wait(1, all_beat=False)
            crew.beat(2)
        assert crew.killed == [1]
        assert crew.queues == {1: (0,), 2: (1, 0)}
        assert crew.supervision.is_turning(crew.now)
        crew.wait(SILENT_SECONDS, all_beat=False)
        assert not crew.supervision.is_turning(crew.now)
        crew.die(1)
        crew.die(2)
        assert crew.supervision.is_turning(crew.now)


class TestRoll:
    def test_one_after_the_other(self) -> None:
        crew = running()
        crew.roll()
        assert crew.alive == {1, 2, 3}
        assert crew.retired == []
        assert crew.state(1) is State.ROLLING
        crew.ready(3)
        assert crew.queues == {3: (0,), 2: (1,)}
        assert crew.retired == [1]
        assert crew.alive == {1, 2, 3}, "the next roll waits until the old one is gone"
        crew.wait(30)
        crew.die(1, "with status 0")
        assert crew.number[4] == 2
        crew.ready(4)
        crew.die(2, "with status 0")
        assert crew.alive == {3, 4}
        assert crew.queues == {3: (0,), 4: (1,)}
        assert crew.said == ["replacing the workers, one after the other", "the workers have been replaced"]
        crew.roll()
        assert crew.number[5] == 1

    def test_the_old_one_stays_where_the_new_one_is_not_ready_in_time(self) -> None:
        crew = running()
        crew.roll()
        crew.wait(ROLL_SECONDS)
        assert crew.killed == [3]
        crew.ready(3)
        assert crew.retired == []
        assert crew.queues == {1: (0,), 2: (1,)}
        crew.die(3)
        assert crew.alive == {1, 2}
        assert crew.said[-1] == (
            "worker 1 could not be replaced: it was not ready within 10 s; the old one stays; the roll has ended"
        )
        crew.roll()
        assert crew.number[4] == 1

    def test_the_old_one_stays_where_the_new_one_ends(self) -> None:
        crew = running()
        crew.roll()
        crew.die(3, "with status 1")
        assert crew.alive == {1, 2}
        assert crew.state(1) is State.RUNNING
        assert "it ended with status 1" in crew.said[-1]

    def test_two_at_a_time_is_one(self) -> None:
        crew = running()
        crew.roll()
        crew.roll()
        assert crew.said[-1] == "the workers are being replaced already"
        assert crew.alive == {1, 2, 3}

    def test_who_ends_while_its_successor_starts_has_it(self) -> None:
        crew = running()
        crew.roll()
        crew.die(1)
        assert crew.alive == {2, 3}
        crew.ready(3)
        assert crew.queues == {2: (1,), 3: (0,)}
        assert crew.number[4] == 2, "the roll goes on"

    def test_who_waits_is_new_anyway(self) -> None:
        crew = running()
        crew.die(1)
        crew.die(3)
        assert crew.state(1) is State.WAITING
        crew.roll()
        assert crew.state(2) is State.ROLLING


class TestStop:
    def test_all_are_told_at_the_same_time(self) -> None:
        crew = running()
        crew.stop()
        assert crew.ends == [(1, False), (2, False)]
        crew.die(1, "with status 0")
        assert not crew.is_over
        crew.stop(at_once=True)
        assert crew.ends[2:] == [(2, True)]
        crew.die(2, "with status 0")
        assert crew.is_over

    def test_who_is_not_ready_has_nobody_to_send_away(self) -> None:
        crew = running()
        crew.roll()
        crew.stop()
        assert crew.killed == [3]
        assert crew.ends == [(1, False), (2, False)]

    def test_who_does_not_end_at_once_is_killed(self) -> None:
        crew = running()
        crew.stop(at_once=True)
        crew.wait(4.9)
        assert crew.killed == []
        crew.wait(0.1)
        assert crew.killed == [1, 2]

    def test_with_nobody_there(self) -> None:
        crew = running(1)
        crew.die(1)
        crew.die(2)
        crew.stop()
        assert crew.is_over
        crew.wait(60)
        crew.roll()
        assert crew.alive == set()


_EVENTS = ("ready", "die", "wait", "long wait", "roll", "stop", "silent")


@property_test
@given(
    st.integers(1, 4),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(_EVENTS), st.integers(0, 5)), max_size=60),
)
def test_whatever_happens(count: int, shared: bool, events: list[tuple[str, int]]) -> None:
    """Each queue is somebody's while anybody is ready; no worker has two processes that accept; nobody is retired but
    for one who is ready; a roll replaces one at a time; and all comes to an end.
    """
    crew = Crew(count, 1 if shared else count)
    for event, which in events:
        _happen(crew, event, which)
        _check(crew)
    crew.stop()
    for process in sorted(crew.alive):
        crew.die(process)
    assert crew.is_over


def _happen(crew: Crew, event: str, which: int) -> None:
    alive = sorted(crew.alive)
    waits: dict[str, Callable[[], Any]] = {
        "wait": lambda: crew.wait(1),
        "long wait": lambda: crew.wait(20),
        "silent": lambda: crew.wait(5, all_beat=False),
        "roll": crew.roll,
        "stop": lambda: crew.stop(at_once=which == 0),
    }
    if event in waits:
        if event != "stop" or which < 2:  # or too few tests would go on for long
            waits[event]()
        return
    processes = [each for each in alive if each not in crew.ready_ones] if event == "ready" else alive
    processes = [each for each in processes if event == "die" or each not in crew.killed]
    if processes:
        process = processes[which % len(processes)]
        crew.ready(process) if event == "ready" else crew.die(process)


def _check(crew: Crew) -> None:
    leaving = [process for process in crew.retired if process in crew.alive]
    assert len(leaving) <= 1
    assert len(crew.alive - set(leaving) - set(crew.killed)) <= crew.count + 1, "more than one is replaced at a time"
    if crew.is_ending:
        return
    serving = {process for process in crew.ready_ones if process not in crew.retired and process not in crew.killed}
    owners = [queue for process in serving for queue in crew.queues[process]]
    if crew.queue_count == 1:
        assert owners == [0] * len(serving)
        return
    assert len(owners) == len(set(owners)), "two accept from one queue"
    numbers = [crew.number[process] for process in serving]
    assert len(numbers) == len(set(numbers)), "two processes of one worker"
    for process in serving:
        assert crew.number[process] - 1 in crew.queues[process], "its own queue is its own"
    for number in range(1, crew.count + 1):
        if serving and crew.state(number) is State.WAITING:
            assert number - 1 in owners, "nobody accepts from a queue that is left alone"


@pytest.mark.parametrize("shared", [False, True])
def test_a_queue_that_is_left_alone_goes_to_who_has_fewest(shared: bool) -> None:
    crew = running(4, 1 if shared else None)
    for number in (1, 2):
        crew.die(crew.newest(number))
        crew.die(crew.newest(number))
    assert crew.queues == ({3: (0,), 4: (0,)} if shared else {3: (2, 0), 4: (3, 1)})
