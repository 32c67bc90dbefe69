"""A server and the network in memory: every byte, every answer and every failure is the test's to decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hiredis
from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectingCancelledError, ConnectionAborted, ConnectionLost
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["PONG", "Connection", "Endpoint", "commands_in", "resp", "stop"]

PONG = b"+PONG\r\n"


def stop(service: IService, clock: Clock) -> None:
    """Stop it, and see that nothing is left."""
    ended: list[object] = []
    service.stopService().addBoth(ended.append)
    clock.advance(0)
    (result,) = ended
    assert not isinstance(result, Failure), result
    assert clock.getDelayedCalls() == []


def resp(reply: Any) -> bytes:
    """A reply as the server writes it; a text is an error."""
    if isinstance(reply, list):
        return b"*%d\r\n" % len(reply) + b"".join(map(resp, reply))
    if isinstance(reply, str):
        return b"-%b\r\n" % reply.encode()
    return b":%d\r\n" % reply if isinstance(reply, int) else b"$%d\r\n%b\r\n" % (len(reply), reply)


def commands_in(data: bytes) -> list[tuple[bytes, ...]]:
    """The commands that were sent. Fails where they are not whole commands."""
    reader = hiredis.Reader()
    reader.feed(data)
    commands = []
    while (command := reader.gets()) is not False:
        commands.append(tuple(command))
    assert not reader.has_data(), "the last command is cut"
    return commands


class Connection(StringTransport):
    """The server's side of one connection. Like a real one, it is gone a turn of the reactor after it was aborted."""

    def __init__(self, clock: Clock, protocol: Protocol) -> None:
        super().__init__()
        self._clock = clock
        self._protocol = protocol
        self.is_open = True

    def asked(self) -> list[tuple[bytes, ...]]:
        """The commands that have come since this was last called."""
        commands = commands_in(self.value())
        self.clear()
        return commands

    def say(self, data: bytes) -> None:
        """Send some bytes, which arrive in one read."""
        assert self.is_open
        self._protocol.dataReceived(data)

    def answer(self, *answers: bytes) -> None:
        """Wait for as many commands, and send each its answer."""
        for answer in answers:
            assert len(self.asked()) == 1
            self.say(answer)

    def cut(self, fault: Exception | None = None) -> None:
        """End the connection."""
        if self.is_open:
            self.is_open = False
            self._protocol.connectionLost(Failure(fault or ConnectionLost()))

    def loseConnection(self) -> None:
        self._clock.callLater(0, self.cut, ConnectionAborted())

    abortConnection = loseConnection


@implementer(IStreamClientEndpoint)
class Endpoint:
    """Where nobody answers before the test does. `attempts`: when each was made, by the clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: tuple[Factory, Deferred[Any]] | None = None
        self.attempts: list[float] = []
        self.connections: list[Connection] = []

    def connect(self, protocolFactory: Factory) -> Deferred[Any]:
        assert self._waiting is None, "a second attempt while the first one waits"
        self.attempts.append(self._clock.seconds())
        done: Deferred[Any] = Deferred(self._cancelled)
        self._waiting = protocolFactory, done
        return done

    @property
    def is_waiting(self) -> bool:
        """Whether somebody waits for an answer."""
        return self._waiting is not None

    def refuse(self, fault: Exception) -> None:
        """Let the attempt fail."""
        self._take()[1].errback(fault)

    def accept(self, at_once: Callable[[Connection], None] | None = None) -> Connection:
        """Let the attempt succeed. `at_once`: what happens to the connection before anybody hears of it."""
        factory, done = self._take()
        protocol = factory.buildProtocol(None)
        assert protocol is not None
        connection = Connection(self._clock, protocol)
        self.connections.append(connection)
        protocol.makeConnection(connection)
        if at_once is not None:
            at_once(connection)
        done.callback(protocol)
        return connection

    def link(self, *answers: bytes) -> Connection:
        """The next attempt succeeds; its login gets these answers, or that to a PING."""
        while not self.is_waiting:
            self._clock.advance(0.05)
        connection = self.accept()
        connection.answer(*(answers or (PONG,)))
        return connection

    def _take(self) -> tuple[Factory, Deferred[Any]]:
        assert self._waiting is not None, "nobody tries to connect"
        waiting, self._waiting = self._waiting, None
        return waiting

    def _cancelled(self, done: Deferred[Any]) -> None:
        self._waiting = None
        done.errback(ConnectingCancelledError(None))  # as the endpoints of Twisted do
