"""The service that starts the workers and ends them: `supervision` is told what happens, and decides what is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, gatherResults
from twisted.internet.task import LoopingCall
from twisted.logger import LogLevel

from marketfeed.daemon.workers.actions import Action, Assign, End, Kill, Listening, Over, Retire, Say, Spawn
from marketfeed.daemon.workers.messages import (
    Accept,
    Answer,
    Beat,
    Found,
    FromWorker,
    Leave,
    Question,
    Ready,
    Reload,
    Reloaded,
    Role,
    Seek,
    Sought,
    ToWorker,
    decode_pasts,
)
from marketfeed.daemon.workers.process import Program, WorkerProcess
from marketfeed.daemon.workers.slots import SlotFacts
from marketfeed.daemon.workers.supervision import Supervision
from marketfeed.runtime.logs import Log

__all__ = ["Crew", "Member"]

_TICK_SECONDS = 0.5
_STANDSTILL = 1.0
"""Seconds by which a tick is too late, from which on this process is taken to have stood still."""
_ANSWER_SECONDS = 2.0
"""How long a worker has to answer a question of the admin port."""
_PAST_SECONDS = 1.5
"""How long a worker has to say what it has heard, for a client of another one that waits."""
_RELOAD_SECONDS = 30.0


class Member:
    """One process: what it said last, and who waits for it.

    `reasons`: why it should get no clients; `epochs`: what those of its offsets begin with, once it is ready.
    """

    def __init__(self, process: WorkerProcess) -> None:
        self.process = process
        self.is_ready = False
        self.epochs = ""
        self.reasons: list[str] = []
        self.questions: dict[int, Deferred[bytes]] = {}
        self.reloads: list[Deferred[bool]] = []

    @property
    def number(self) -> int:
        return self.process.number

    def lose(self) -> None:
        """The process has ended: whoever waits for an answer of it gets none."""
        questions, self.questions = self.questions, {}
        reloads, self.reloads = self.reloads, []
        for question in questions.values():
            question.cancel()
        for reload in reloads:
            reload.callback(True)  # its successor reads what there is by then


class Crew(Service):
    """`queues`: gives the sockets of each queue, once they are open; `role`: what all workers are; `waits_for`: fires
    when they may start.
    """

    log = Log()

    def __init__(
        self,
        reactor: Any,
        workers: int,
        program: Program,
        role: Role,
        queues: Callable[[], Sequence[Sequence[Any]]],
        waits_for: Callable[[], Deferred[None]] | None = None,
    ) -> None:
        self._reactor = reactor
        self._workers = workers
        self._program = program
        self._role = role
        self._queues = queues
        self._waits_for = waits_for
        self._members: dict[int, Member] = {}
        self._supervision: Supervision
        self._numbers = count(1)
        self._begun = self._ticked = reactor.seconds()
        self._stood_still = 0.0
        self._loop = LoopingCall(self._tick)
        self._loop.clock = reactor
        self._over: Deferred[None] = Deferred()
        self._hurry = False
        self.draining = False
        self.drain_seconds = 0.0
        self.on_listening: Callable[[], None] = lambda: None
        """Called once, when all workers accept."""

    def startService(self) -> None:
        Service.startService(self)
        self._supervision = Supervision(self._workers, len(self._queues()))
        self._reactor.callWhenRunning(self._wait)

    def _wait(self) -> None:
        if self._waits_for is None:
            self._begin()
        else:
            self._waits_for().addCallback(lambda _: self._begin())

    def _begin(self) -> None:
        if self.draining or not self.running:
            return
        self._do(self._supervision.begin(self._now()))
        self._ticked = self._reactor.seconds()
        self._loop.start(_TICK_SECONDS, now=False)

    def stopService(self) -> None:
        Service.stopService(self)
        if self._loop.running:
            self._loop.stop()
        for member in self._members.values():
            member.process.kill()

    def hurry(self) -> None:
        """End a drain that has begun, or make the next one immediate."""
        self._hurry = True
        if self.draining:
            self._do(self._supervision.stop(self._now(), at_once=True))

    async def drain(self) -> None:
        """Let all workers send their clients away, at the same time, and end; done when they have."""
        self.draining = True
        self._do(self._supervision.stop(self._now(), at_once=self._hurry))
        await self._over

    def roll(self) -> None:
        """Replace the workers, one after the other."""
        self._do(self._supervision.roll(self._now()))

    async def reload(self) -> bool:
        """Let all read their settings again, also those that have just started; whether all could."""
        waiting = []
        for member in self._members.values():
            done = Deferred[bool]()
            member.reloads.append(done)
            member.process.tell(Reload())
            waiting.append(done.addTimeout(_RELOAD_SECONDS, self._reactor, lambda *_: False))
        return all([await each for each in waiting])

    @property
    def ready(self) -> list[Member]:
        """The processes that serve clients, by number."""
        found = [self._members[each.process] for each in self.facts if each.process in self._members]
        return [each for each in found if each.is_ready]

    @property
    def facts(self) -> list[SlotFacts]:
        """How each worker is."""
        return self._supervision.facts(self._now())

    @property
    def is_turning(self) -> bool:
        """Whether no process hangs, but for a moment."""
        return self._supervision.is_turning(self._now())

    @property
    def reasons(self) -> list[str]:
        """Why no client should come to any of them."""
        ready = self.ready
        if self.draining:
            return ["draining"]
        if not ready:
            return ["no-worker"]
        return [reason for reason in ready[0].reasons if all(reason in each.reasons for each in ready)]

    async def _ask(self, member: Member, question: Question | Sought, seconds: float) -> bytes | None:
        """What it answers, as JSON; None: it does not, in time. The question's number is given here."""
        number = next(self._numbers)
        answer = Deferred[bytes](lambda _: None)
        member.questions[number] = answer
        member.process.tell(msgspec.structs.replace(question, number=number))
        try:
            return await answer.addTimeout(seconds, self._reactor)
        except (TimeoutError, CancelledError):
            return None
        finally:
            member.questions.pop(number, None)

    def ask_all(self, question: Question) -> Deferred[list[tuple[int, bytes | None]]]:
        """What each of those who serve clients says, by its number, as JSON; None: it has not answered in time."""
        answers = [Deferred.fromCoroutine(self._ask(member, question, _ANSWER_SECONDS)) for member in self.ready]
        numbers = [member.number for member in self.ready]
        return gatherResults(answers).addCallback(lambda found: list(zip(numbers, found, strict=True)))

    async def _seek(self, asking: Member, asked: Seek) -> None:
        """Let each whose epochs are wanted say what it has heard, and pass that on."""
        of = {member.epochs: member for member in self._members.values() if member.epochs and member is not asking}
        wanted: dict[str, list[tuple[str, str]]] = {}
        for stream, epoch in asked.wanted:
            wanted.setdefault(epoch.partition(".")[0], []).append((stream, epoch))
        answers = [
            Deferred.fromCoroutine(self._ask(of[epochs], Sought(0, streams), _PAST_SECONDS))
            for epochs, streams in wanted.items()
            if epochs in of
        ]
        found = [bytes(each) for each in await gatherResults(answers) if each is not None]
        asking.process.tell(Found(asked.number, [decode_pasts(each) for each in found]))

    def _now(self) -> float:
        """The time by which workers are judged: what this process itself stood still is none of their fault."""
        return float(self._reactor.seconds()) - self._stood_still

    def _tick(self) -> None:
        at = self._reactor.seconds()
        late, self._ticked = at - self._ticked - _TICK_SECONDS, at
        if late >= _STANDSTILL:
            self._stood_still += late
        self._do(self._supervision.tick(self._now()))

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            self._do_one(action)

    def _do_one(self, action: Action) -> None:
        match action:
            case Spawn(number, process):
                self._spawn(number, process)
            case Kill(process):
                self._with(process, lambda member: member.process.kill())
            case Assign(process, queues):
                self._tell(process, Accept(queues))
            case Retire(process):
                self._tell(process, Leave(retire=True))
            case End(process, at_once):
                self._tell(process, Leave(at_once=at_once))
            case Say(level, text, facts):
                self.log.emit(LogLevel.lookupByName(level), text, **facts)
            case Listening():
                self.on_listening()
            case Over():
                self._over.callback(None)

    def _with(self, process: int, act: Callable[[Member], None]) -> None:
        member = self._members.get(process)
        if member is not None:
            act(member)

    def _tell(self, process: int, message: ToWorker) -> None:
        self._with(process, lambda member: member.process.tell(message))

    def _spawn(self, number: int, process: int) -> None:
        now = self._reactor.seconds()
        member = Member(
            WorkerProcess(number, lambda said: self._heard(process, said), lambda how: self._gone(process, how), now)
        )
        self._members[process] = member
        role = Role(number, self._workers, self._role.port, [], int(now - self._begun), self._role.server)
        try:
            member.process.start(self._reactor, self._program, role, self._queues())
        except OSError as fault:
            self._reactor.callLater(0, self._gone, process, f"before it began: {fault.strerror}")

    def _heard(self, process: int, said: FromWorker) -> None:
        member, now = self._members[process], self._now()
        match said:
            case Ready(epochs):
                member.is_ready = True
                member.epochs = epochs
                self._do(self._supervision.ready(process, now))
            case Beat(reasons):
                member.reasons = reasons
                self._do(self._supervision.beat(process, now))
            case Reloaded(succeeded):
                if member.reloads:
                    member.reloads.pop(0).callback(succeeded)
            case Answer(number, found):
                answer = member.questions.pop(number, None)
                if answer is not None:
                    answer.callback(bytes(found))
            case Seek():
                Deferred.fromCoroutine(self._seek(member, said))

    def _gone(self, process: int, how: str) -> None:
        self._members.pop(process).lose()
        self._do(self._supervision.ended(process, self._now(), how))
