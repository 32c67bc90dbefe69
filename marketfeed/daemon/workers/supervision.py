"""When worker processes are started, rolled and ended. Pure: it is told what happens, and says what is to be done.

1. Each worker has a slot of its own. A process that ends has a successor at once; one that ends again soon after waits,
   longer each time.
2. Who accepts from which queue is looked at after each event (see `slots`).
3. A roll replaces one process after the other: the successor is ready before the old one is retired, and the old one is
   gone before the next roll begins. A successor that is not ready in time ends the roll, and the old one stays.
4. A process that has not been heard of is killed, whatever it does: so is one that takes too long to be ready.

The states of a slot, and what happens in them:

| state | event | becomes | because |
|---|---|---|---|
| starting | ready | running | it accepts from its queue |
| starting, running | ended | starting or waiting | its successor is started: the first time at once |
| waiting | due | starting | |
| running | roll | rolling | a successor is started beside it |
| rolling | successor ready | running | the old process is retired |
| rolling | successor ended, or late | running | the roll ends |
| rolling | ended | starting | the successor is there already |
| any | stop | ending | nothing is started any more |
"""

from __future__ import annotations

from collections import deque
from typing import Any

from marketfeed.daemon.workers.actions import Action, Assign, End, Kill, Listening, Over, Retire, Say, Spawn
from marketfeed.daemon.workers.slots import Process, Slot, SlotFacts, State, shares

__all__ = ["READY_SECONDS", "ROLL_SECONDS", "SILENT_SECONDS", "Supervision"]

READY_SECONDS = 60.0
"""How long a process may take to be ready."""
ROLL_SECONDS = 10.0
"""The same, for one that is to replace another."""
SILENT_SECONDS = 10.0
"""How long nothing may be heard of a process that is ready."""
_STABLE_SECONDS = 60.0
"""Whoever was ready for so long has not failed before."""
_LONGEST_WAIT = 30.0
_HURRY_SECONDS = 5.0
"""How long a process has to end at once."""


class Supervision:
    """Of `count` workers, numbered from 1, and `queues` of connections: one for each worker, or one for all.

    Each method is an event, at the time `now`, and returns what is to be done.
    """

    def __init__(self, count: int, queues: int) -> None:
        self._slots = {number: Slot(number) for number in range(1, count + 1)}
        self._queues = queues
        self._processes: dict[int, Process] = {}
        self._next = 1
        self._roll: deque[int] = deque()
        self._leaving: int | None = None  # the process whose end the roll waits for
        self._has_replaced = False
        self._is_listening = False
        self._is_ending = False
        self._is_over = False
        self._hurry_until: float | None = None
        self._actions: list[Action] = []

    def begin(self, now: float) -> list[Action]:
        """Start all of them."""
        for slot in self._slots.values():
            self._start(slot, now)
        return self._done(now)

    def ready(self, process: int, now: float) -> list[Action]:
        """It can accept."""
        found = self._processes.get(process)
        if found is not None and not (found.is_ready or found.is_killed or self._is_ending):
            found.is_ready, found.ready_at, found.heard = True, now, now
            slot = self._slots[found.number]
            if slot.state is State.ROLLING and slot.successor == process:
                self._replace(slot)
            else:
                slot.state = State.RUNNING
                if found.is_successor and self._roll and self._roll[0] == slot.number:
                    self._roll.popleft()
                self._go_on_rolling(now)
        return self._done(now)

    def beat(self, process: int, now: float) -> list[Action]:
        """It has said that it lives."""
        if process in self._processes:
            self._processes[process].heard = now
        return self._done(now)

    def ended(self, process: int, now: float, how: str) -> list[Action]:
        """It is there no longer. `how`: with which status, or by which signal."""
        found = self._processes.pop(process, None)
        if found is None:
            return []
        slot = self._slots[found.number]
        if slot.successor == process:
            self._stop_rolling(slot, f"it ended {how}")
        elif slot.main == process:
            slot.main = None
            if not self._is_ending:
                self._restart(slot, found, now, how)
        elif self._leaving == process:
            self._leaving = None
            self._go_on_rolling(now)
        return self._done(now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed. To be called about once a second."""
        for name, process in list(self._processes.items()):
            if not process.is_killed:
                self._look_at(name, process, now)
        for slot in self._slots.values():
            if slot.state is State.WAITING and slot.due <= now:
                self._start(slot, now)
        return self._done(now)

    def roll(self, now: float) -> list[Action]:
        """Replace all processes, one after the other."""
        if self._is_ending:
            return []
        if self._roll or self._leaving is not None:
            self._say("warn", "the workers are being replaced already")
        else:
            self._say("info", "replacing the workers, one after the other")
            self._roll.extend(self._slots)
            self._go_on_rolling(now)
        return self._done(now)

    def stop(self, now: float, *, at_once: bool) -> list[Action]:
        """End all of them. May be called again, to end them at once."""
        self._is_ending = True
        self._roll.clear()
        if at_once and self._hurry_until is None:
            self._hurry_until = now + _HURRY_SECONDS
        for slot in self._slots.values():
            slot.state = State.ENDING
        for name, process in self._processes.items():
            if process.is_killed:
                continue
            if process.is_ready:
                self._actions.append(End(name, at_once))
            else:
                self._kill(name, process)
        return self._done(now)

    def is_turning(self, now: float) -> bool:
        """Whether everything that should be heard of is, or was ended in time."""
        return all(now - each.heard < 2 * SILENT_SECONDS for each in self._processes.values() if each.is_ready)

    def facts(self, now: float) -> list[SlotFacts]:
        """What operators are told of each worker."""
        return [
            SlotFacts(
                slot.number,
                slot.state,
                slot.restarts,
                max(0.0, slot.due - now) if slot.state is State.WAITING else None,
                slot.main,
            )
            for slot in self._slots.values()
        ]

    def _done(self, now: float) -> list[Action]:
        """What is to be done, with what follows from the present states."""
        if not self._is_ending:
            self._assign(now)
            if not self._is_listening and all(slot.state is not State.STARTING for slot in self._slots.values()):
                self._is_listening = all(slot.state is State.RUNNING for slot in self._slots.values())
                if self._is_listening:
                    self._actions.append(Listening())
        elif not self._processes and not self._is_over:
            self._is_over = True
            self._actions.append(Over())
        actions, self._actions = self._actions, []
        return actions

    def _start(self, slot: Slot, now: float, *, is_successor: bool = False) -> None:
        process, self._next = self._next, self._next + 1
        patience = ROLL_SECONDS if is_successor else READY_SECONDS
        self._processes[process] = Process(slot.number, now, patience, now, is_successor=is_successor)
        if is_successor:
            slot.successor, slot.state = process, State.ROLLING
        else:
            slot.main, slot.state = process, State.STARTING
        self._actions.append(Spawn(slot.number, process))

    def _restart(self, slot: Slot, ended: Process, now: float, how: str) -> None:
        slot.restarts += 1
        if ended.is_ready and now - ended.ready_at >= _STABLE_SECONDS:
            slot.failures = 0
        slot.failures += 1
        if slot.successor is not None:
            slot.main, slot.successor, slot.state = slot.successor, None, State.STARTING
            self._say("error", "worker {worker} ended {how}; its successor is starting", worker=slot.number, how=how)
            return
        if ended.is_successor and self._roll and self._roll[0] == slot.number and not ended.is_ready:
            self._stop_rolling(slot, f"it ended {how}")
        wait = 0.0 if slot.failures == 1 else min(_LONGEST_WAIT, 2.0 ** (slot.failures - 2))
        if wait:
            slot.state, slot.due = State.WAITING, now + wait
            text = "worker {worker} ended {how}; it is started again in {wait:g} s"
            self._say("error", text, worker=slot.number, how=how, wait=wait)
        else:
            self._say("error", "worker {worker} ended {how}; it is started again", worker=slot.number, how=how)
            self._start(slot, now)
        self._go_on_rolling(now)

    def _look_at(self, name: int, process: Process, now: float) -> None:
        slot = self._slots[process.number]
        if self._hurry_until is not None and now >= self._hurry_until:
            self._kill(name, process)
        elif process.is_ready and now - process.heard >= SILENT_SECONDS:
            text = "worker {worker} has not been heard of for {seconds:g} s, and is killed"
            self._say("error", text, worker=slot.number, seconds=now - process.heard)
            self._kill(name, process)
        elif not process.is_ready and now - process.born >= process.patience:
            text = "worker {worker} is not ready within {seconds:g} s, and is killed"
            self._say("error", text, worker=slot.number, seconds=process.patience)
            self._kill(name, process)
            if slot.successor == name:
                self._stop_rolling(slot, f"it was not ready within {process.patience:g} s")

    def _kill(self, name: int, process: Process) -> None:
        process.is_killed = True
        self._actions.append(Kill(name))

    def _go_on_rolling(self, now: float) -> None:
        """Replace the next one, unless that has to wait."""
        while self._roll and self._leaving is None and not self._is_ending:
            slot = self._slots[self._roll[0]]
            if slot.state is State.WAITING:  # its next process is a new one
                self._roll.popleft()
            else:
                if slot.state is State.RUNNING:
                    self._start(slot, now, is_successor=True)
                return
        if self._has_replaced and not self._roll and self._leaving is None and not self._is_ending:
            self._has_replaced = False
            self._say("info", "the workers have been replaced")

    def _replace(self, slot: Slot) -> None:
        """The successor takes over."""
        old = slot.main
        slot.main, slot.successor, slot.state = slot.successor, None, State.RUNNING
        slot.failures = 0
        if self._roll and self._roll[0] == slot.number:
            self._roll.popleft()
        self._has_replaced = True
        self._leaving = old

    def _stop_rolling(self, slot: Slot, why: str) -> None:
        slot.successor = None
        if slot.state is State.ROLLING:
            slot.state = State.RUNNING
        self._roll.clear()
        self._has_replaced = False
        if not self._is_ending:
            old = "" if slot.main is None else "; the old one stays"
            text = "worker {worker} could not be replaced: {why}{old}; the roll has ended"
            self._say("error", text, worker=slot.number, why=why, old=old)

    def _assign(self, now: float) -> None:
        """Tell each whose share has changed, before any old one is told that it has none."""
        for name, queues in shares(self._slots, self._processes, self._queues, now).items():
            process = self._processes[name]
            if process.queues != queues:
                process.queues = queues
                self._actions.append(Assign(name, queues))
        if self._leaving is not None and not self._processes[self._leaving].is_retired:
            self._processes[self._leaving].is_retired = True
            self._actions.append(Retire(self._leaving))

    def _say(self, level: str, text: str, **facts: Any) -> None:
        self._actions.append(Say(level, text, facts))
