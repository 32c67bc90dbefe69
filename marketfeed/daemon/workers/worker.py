"""A process that is a worker: what it was told to be, what its parent says, and what it answers.

1. It takes no signals: what a terminal or systemd sends to all processes is for the parent, which says what comes of
   it.
2. When the parent is gone the sockets are closed at once, so that another daemon can have the port, and the clients
   are sent away.
3. Who was accepted before the sockets were closed is answered as ever: a worker that is replaced refuses nobody.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping, Sequence
from itertools import count
from typing import Any, Protocol

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from marketfeed.boundaries import Past, Pasts
from marketfeed.config.settings import Settings
from marketfeed.daemon.redis_side import declared_markets, demo_globs
from marketfeed.daemon.reload import Reload
from marketfeed.daemon.workers import messages
from marketfeed.daemon.workers.answers import Answers
from marketfeed.daemon.workers.messages import (
    VARIABLE,
    Accept,
    Answer,
    Beat,
    Found,
    FromWorker,
    Leave,
    Lines,
    Question,
    Ready,
    Reloaded,
    Role,
    Seek,
    Sought,
    decode_role,
    decode_to_worker,
    encode,
)
from marketfeed.daemon.workers.sockets import Inherited
from marketfeed.redis.address import RedisAddress
from marketfeed.runtime.log_relay import make_relay
from marketfeed.runtime.logs import Log, LogOutput

__all__ = ["Control", "Place", "take_place"]

_BEAT_SECONDS = 1.0
_LOOK_SECONDS = 0.05


class Place(msgspec.Struct, frozen=True):
    """Where this process stands among the workers. `to_parent`, `from_parent`: the files of its pipes."""

    role: Role
    sockets: Inherited
    observer: LogOutput
    from_parent: int
    to_parent: int

    def settle(self, settings: Settings) -> Settings:
        """The settings as they are for a worker: what there is once for all is its parent's."""
        if settings.demo:
            warm = (*settings.warm, *demo_globs())
            markets = declared_markets(settings)
            settings = msgspec.structs.replace(settings, demo=False, warm=warm, markets=markets, drain_seconds=0.0)
        settings = msgspec.structs.replace(settings, candles=False)
        if self.role.server is not None:
            settings = msgspec.structs.replace(settings, redis=RedisAddress(path=self.role.server))
        return msgspec.structs.replace(settings, port=self.role.port)


def take_place(reactor: Any, environment: MutableMapping[str, str], log_level: str) -> Place | None:
    """What this process is told to be by who started it; None: it is no worker."""
    files = environment.pop(VARIABLE, "")
    if not files:
        return None
    from_parent, to_parent, log = map(int, files.split(","))
    for each in (from_parent, to_parent, log):
        os.set_inheritable(each, False)
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(from_parent, 1)
        if not byte:
            raise SystemExit("marketfeed: the process that started this one is gone")
        line += byte
    role = decode_role(line)
    return Place(role, Inherited(reactor, role.queues), make_relay(reactor, log, log_level), from_parent, to_parent)


class Ending(Protocol):
    """The daemon, as far as it can be ended."""

    def end(self, *, at_once: bool) -> None: ...


class Unanswered(Protocol):
    """Connections on which somebody has asked for something, or may still."""

    def __len__(self) -> int:
        """How many are not answered yet."""

    def keep_no_more(self) -> None:
        """End those that are answered, and the others behind their answer."""


class Control(Service, TwistedProtocol):
    """The conversation with the parent. `handshakes`: connections that are no clients', for which a worker that is
    replaced waits until they are answered, `patience` seconds at most. `notes`: what is to be said besides the
    settings' own warnings.

    `pasts`: what other workers may ask, of the epochs that begin with `epochs`. What they answer, it has itself.
    """

    log = Log()

    def __init__(
        self,
        reactor: Any,
        place: Place,
        daemon: Ending,
        answers: Answers,
        pasts: Pasts,
        epochs: str,
        reload: Reload,
        handshakes: Unanswered,
        patience: float,
        notes: list[str],
    ) -> None:
        self._reactor = reactor
        self._place = place
        self._daemon = daemon
        self._answers = answers
        self._pasts = pasts
        self._epochs = epochs
        self._reload = reload
        self._handshakes = handshakes
        self._patience = patience
        self._notes = notes
        self._lines = Lines()
        self._beats = LoopingCall(self._beat)
        self._beats.clock = reactor
        self._leaving: IDelayedCall | None = None
        self._is_leaving = False
        self._sought: dict[int, Deferred[list[Past]]] = {}
        self._numbers = count(1)

    def of(self, wanted: Sequence[tuple[str, str]]) -> Deferred[list[Past]]:
        """What other workers have heard, as `Pasts` has it."""
        if self.transport is None:
            return succeed([])
        number = next(self._numbers)
        found = self._sought[number] = Deferred[list[Past]](lambda _: self._sought.__delitem__(number))
        self._tell(Seek(number, list(wanted)))
        return found

    def startService(self) -> None:
        Service.startService(self)
        for note in self._notes:
            self.log.warn("{note}", note=note)
        stdio: Any = StandardIO
        stdio(self, self._place.from_parent, self._place.to_parent, self._reactor)
        self._reactor.callWhenRunning(self._ready)

    def stopService(self) -> None:
        Service.stopService(self)
        if self._leaving is not None and self._leaving.active():
            self._leaving.cancel()
        if self._beats.running:
            self._beats.stop()
        if self.transport is not None:
            self.transport.loseConnection()

    def _ready(self) -> None:
        self._tell(Ready(self._epochs))
        self._beats.start(_BEAT_SECONDS)

    def _beat(self) -> None:
        self._tell(Beat(self._answers.reasons))

    def _tell(self, message: FromWorker) -> None:
        if self.transport is not None:
            self.transport.write(encode(message))

    def dataReceived(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            try:
                self._hear(line)
            except Exception:
                self.log.failure("what the parent says: internal error")

    def _hear(self, line: bytes) -> None:
        match decode_to_worker(line):
            case Accept(queues):
                self._place.sockets.accept(queues)
            case messages.Reload():
                self._reload()
                self._tell(Reloaded(self._reload.succeeded))
            case Leave(retire, at_once):
                self._leave(retire=retire, at_once=at_once)
            case Question(number) as question:
                self._answer(number, maybeDeferred(self._answers.to, question))
            case Sought(number, wanted):
                self._answer(number, self._pasts.of(wanted))
            case Found(number, found):
                seeking = self._sought.pop(number, None)
                if seeking is not None:
                    seeking.callback([past for each in found for past in each])

    def _answer(self, number: int, answer: Deferred[Any]) -> None:
        answer.addCallbacks(
            lambda found: self._tell(Answer(number, msgspec.Raw(msgspec.json.encode(found)))),
            lambda failure: self.log.failure("a question: internal error", failure=failure),
        )

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.transport = None
        sought, self._sought = self._sought, {}
        for each in sought.values():
            each.callback([])
        if self.running and not self._is_leaving:
            self.log.warn("the parent process is gone: this worker ends")
            self._leave(retire=True, at_once=False)

    def _leave(self, *, retire: bool, at_once: bool) -> None:
        if retire and not self._is_leaving:
            self._place.sockets.close()
            self._handshakes.keep_no_more()
            self._end_once_all_are_answered(self._reactor.seconds() + self._patience)
        elif not retire:
            self._daemon.end(at_once=at_once)
        self._is_leaving = True

    def _end_once_all_are_answered(self, latest: float) -> None:
        if len(self._handshakes) and self._reactor.seconds() < latest:
            self._leaving = self._reactor.callLater(_LOOK_SECONDS, self._end_once_all_are_answered, latest)
        else:
            self._daemon.end(at_once=False)
