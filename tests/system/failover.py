"""An engine that follows the master, and one who counts what of it a client was told, or told that it was lost."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import hiredis
from twisted.internet.threads import deferToThread

from tests.redis_servers.client import Connection
from tests.redis_servers.process import ServerProcess
from tests.system.harness import Client, trade
from tests.system.witness import Witness

__all__ = ["STREAM", "Engine", "Follower", "held", "in_thread"]

STREAM = "trade@A_INR"
_PAUSE = 0.01
_ASK_EVERY = 10
in_thread = deferToThread


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Engine:
    """Publishes numbered trades on one stream, in a thread, at the server that `master` names, which it asks again
    and again.

    `sent`: by number, when the server was asked for it, and when it had acknowledged it, in ms since 1970.
    """

    def __init__(self, source: str, master: Callable[[], ServerProcess]) -> None:
        self._words = ("PUBLISH", STREAM) if source == "pubsub" else ("XADD", STREAM, "*", "d")
        self._master = master
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sent: dict[int, tuple[int, int]] = {}
        self.number = 0
        self.is_at: ServerProcess | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def has_gone_on(self, number: int, seconds: float) -> bool:
        """Whether it has published for so long since it had come to this number."""
        times = [asked for each, (asked, _) in list(self.sent.items()) if each > number]
        return bool(times) and max(times) - min(times) >= 1000 * seconds

    def _has_moved(self) -> bool:
        """Whether it is told of another master than it publishes at; where nobody tells, or dies over it, it stays."""
        try:
            return self._master() is not self.is_at
        except (OSError, hiredis.HiredisError, StopIteration):
            return False

    def _run(self) -> None:
        connection: Connection | None = None
        while not self._ended.wait(_PAUSE):
            try:
                if self.number % _ASK_EVERY == 0 and connection is not None and self._has_moved():
                    connection.close()
                    connection = None
                if connection is None:
                    self.is_at = self._master()
                    connection = self.is_at.connect()
                self.number += 1
                before = now_ms()
                connection.command(*self._words, trade("A_INR", self.number))
                self.sent[self.number] = before, now_ms()
            except (OSError, hiredis.HiredisError, StopIteration):
                if connection is not None:
                    connection.close()
                connection = None


class Follower:
    """A client of that stream. `got`: the numbers that it was told."""

    def __init__(self, client: Client) -> None:
        self.got: set[int] = set()
        self.witness = Witness(client)
        client.on_message = self._take

    def _take(self, payload: bytes) -> None:
        data = json.loads(payload).get("data", {})
        if data.get("e") == "trade":
            self.got.add(data["t"])
        self.witness.take(payload)

    @property
    def faults(self) -> list[str]:
        """What it was told against the protocol. What is missing is a matter of `unexplained`: a number whose
        publication failed may never have been one.
        """
        return [fault for fault in self.witness.faults if "not a word" not in fault]

    @property
    def newest(self) -> int:
        return max(self.got, default=0)

    def unexplained(self, sent: dict[int, tuple[int, int]]) -> list[Any]:
        """What was acknowledged since the first that it got, and was neither got nor lost within a gap."""
        gaps = [(gap["from"], gap["to"]) for gap in self.witness.gaps]
        gaps += [(begin, None) for begin in self.witness.open.values()]
        return [
            (number, times, gaps)
            for number, times in sent.items()
            if number > min(self.got)
            and number not in self.got
            and not any(begin <= times[1] and (end is None or times[0] <= end) for begin, end in gaps)
        ]


def held(server: ServerProcess) -> set[int]:
    """The numbers that a server still has of it."""
    with server.connect() as connection:
        entries = connection.command("XRANGE", STREAM, "-", "+")
    assert isinstance(entries, list)
    return {json.loads(fields[1])["t"] for _, fields in entries}
