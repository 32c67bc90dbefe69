"""Clients that come back whenever they are sent away, and find out whether anything is missing or has come twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from tests.system.harness import Harness
from tests.system.lean import HANDSHAKE, LeanClient, LeanClients

__all__ = ["ResumingClient"]

_AGAIN = 1.0
"""Seconds after which one comes back that has been given no moment."""


class _Data(msgspec.Struct):
    e: str = ""
    t: int = 0
    E: int = 0
    reconnectAfter: int = 0


class _Message(msgspec.Struct):
    stream: str = ""
    data: _Data | None = None
    offset: str = ""
    id: int = 0
    recovered: dict[str, bool] = {}
    error: dict[str, Any] | None = None


_DECODER = msgspec.json.Decoder(_Message)


class _Connection(LeanClient):
    """One of a client, from its coming to its going."""

    def __init__(self, client: ResumingClient) -> None:
        super().__init__()
        self._client = client

    def text_received(self, text: bytes) -> None:
        self._client.heard(text)


class ResumingClient:
    """Follows streams of trades whose `t` counts up by one. `offsets`: behind which it begins, by stream; `number`: the
    `t` there.

    `last`: the newest `t` of each; `faults`: what was missing, came twice, or was not as docs/protocol.md has it.
    `visits`: how often it was let in; `refusals`: what it was answered otherwise; `asked`: when it was to come back, in
    seconds since 1970.
    """

    def __init__(
        self,
        harness: Harness,
        connections: LeanClients[_Connection],
        affinity: str,
        offsets: dict[str, str],
        number: int,
    ) -> None:
        self._reactor = harness.reactor
        self._connections = connections
        self._path = f"/stream?affinity={affinity}".encode()
        self._offsets = dict(offsets)
        self._connection: _Connection | None = None
        self._wait = _AGAIN
        self._pause: IDelayedCall | None = None
        self._ended = False
        self.is_in = False
        self.last = dict.fromkeys(offsets, number)
        self.visits = 0
        self.refusals: Counter[int] = Counter()
        self.closes: Counter[int | None] = Counter()
        self.faults: list[str] = []
        self.asked: list[float] = []

    async def run(self) -> None:
        """Stay connected until it is told to end."""
        while not self._ended:
            self._wait = _AGAIN
            self._connection = _Connection(self)
            try:
                await self._visit(self._connection)
            except Exception as fault:
                self.faults.append(repr(fault))
            self.is_in, self._connection = False, None
            if not self._ended:
                paused = Deferred[None]()
                self._pause = self._reactor.callLater(self._wait, paused.callback, None)
                await paused
                self._pause = None

    def end(self) -> None:
        """Come back no more."""
        self._ended = True
        if self._pause is not None:
            self._pause.reset(0)
        if self._connection is not None and self._connection.connected:
            self._connection.abort()

    async def _visit(self, connection: _Connection) -> None:
        await self._connections.connect(connection)
        if self._ended:
            connection.abort()
        connection.transport.write(HANDSHAKE % self._path)
        status = await connection.handshake
        if status == 101:
            self.visits += 1
            for name in ("offsets", "events"):  # of which none is expected
                connection.send({"method": "SET_PROPERTY", "params": [name, True], "id": 1})
            params = list(self._offsets)
            connection.send({"method": "SUBSCRIBE", "params": params, "since": self._offsets, "id": 2})
        else:
            self.refusals[status] += 1
        await connection.lost
        self.closes[connection.close_code] += 1

    def heard(self, text: bytes) -> None:
        """One message."""
        message = _DECODER.decode(text)
        data = message.data
        if data is None:
            self.is_in = self.is_in or message.id == 2
            if message.error or not all(message.recovered.values()):
                self.faults.append(f"not as it should be: {text!r}")
        elif data.e == "serverShutdown":
            self._wait = data.reconnectAfter / 1000
            self.asked.append(data.E / 1000 + self._wait)
        elif data.e == "trade" and data.t == self.last[message.stream] + 1:
            self.last[message.stream] = data.t
            self._offsets[message.stream] = message.offset
        else:
            self.faults.append(f"behind {self.last}: {text!r}")
