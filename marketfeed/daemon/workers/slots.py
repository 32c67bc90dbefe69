"""The workers' slots, the processes in them, and which of these accepts from which queue. Pure.

1. Each worker has a slot of its own, with one process in it: with two while one is to replace the other.
2. Every queue of arriving connections is somebody's: its own worker's while that is ready, and another's while it waits
   to be started, or takes long to start. Where there is one queue, all who are ready accept from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import msgspec

__all__ = ["ADOPTED_SECONDS", "Process", "Slot", "SlotFacts", "State", "shares"]

ADOPTED_SECONDS = 3.0
"""How long a queue waits for a process that starts."""


class State(Enum):
    """Of a slot."""

    STARTING = "starting"
    RUNNING = "running"
    ROLLING = "rolling"
    WAITING = "backing off"
    ENDING = "ending"


class SlotFacts(msgspec.Struct, frozen=True):
    """What operators are told of a worker. `restarts`: processes that have ended by themselves; `due`: in how many
    seconds the next one is started, if it waits; `process`: the one that is there.
    """

    number: int
    state: State
    restarts: int
    due: float | None
    process: int | None


class Process(msgspec.Struct):
    """A process of the worker `number`. `born`: when it was started; `patience`: in how many s it has to be ready;
    `heard`: when it was last heard of; `is_successor`: it was started to replace another one.
    """

    number: int
    born: float
    patience: float
    heard: float
    is_ready: bool = False
    ready_at: float = 0.0
    is_retired: bool = False
    is_killed: bool = False
    is_successor: bool = False
    queues: tuple[int, ...] = ()


class Slot(msgspec.Struct):
    """A worker's place. `main`: its process; `successor`: the one that is to replace that; `failures`: processes that
    ended one soon after the other; `due`: when the next one is started, if that waits.
    """

    number: int
    state: State = State.STARTING
    main: int | None = None
    successor: int | None = None
    failures: int = 0
    restarts: int = 0
    due: float = 0.0


def shares(
    slots: Mapping[int, Slot], processes: Mapping[int, Process], queues: int, now: float
) -> dict[int, tuple[int, ...]]:
    """The queues that each process is to accept from, of those that can accept."""
    accepting = {
        number: slot.main
        for number, slot in slots.items()
        if slot.main is not None and _can_accept(processes[slot.main])
    }
    if queues == 1:
        return dict.fromkeys(accepting.values(), (0,))
    found: dict[int, list[int]] = {process: [number - 1] for number, process in accepting.items()}
    for number, slot in slots.items():
        if number not in accepting and found and _is_abandoned(slot, processes, now):
            heir = min(found, key=lambda process: (len(found[process]), processes[process].number))
            found[heir].append(number - 1)
    return {process: tuple(its_queues) for process, its_queues in found.items()}


def _can_accept(process: Process) -> bool:
    return process.is_ready and not process.is_killed


def _is_abandoned(slot: Slot, processes: Mapping[int, Process], now: float) -> bool:
    """Whether nobody accepts from the queue of this slot, nor will soon."""
    if slot.main is None:
        return True
    process = processes[slot.main]
    return process.is_killed or now - process.born >= ADOPTED_SECONDS
