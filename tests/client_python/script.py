"""A core whose clock, chance and server are the test's."""

from __future__ import annotations

from typing import Any

import msgspec
from marketfeed_client.core import Close, Connect, Core, Send
from marketfeed_client.events import Event
from marketfeed_client.session import Envelope
from marketfeed_client.settings import Times


class Script:
    """A feed of which every moment is in hand; it is also the reader of its streams."""

    def __init__(self, *, can_renew: bool = False, random: float = 0.5) -> None:
        self.time = 1_790_000_000_000.0
        self.log: list[Any] = []
        self.sent: list[dict[str, Any]] = []
        self.attempt = 0
        self.is_closed = False
        self.core = Core(Times(), self, lambda: random, self.emit, can_renew)

    def now(self) -> float:
        return self.time

    def ticks(self) -> float:
        return self.time

    def emit(self, event: Event) -> None:
        self.log.append(msgspec.to_builtins(event))

    def take(self, envelope: Envelope, past: bool) -> None:
        self.log.append(msgspec.json.decode(envelope.data)["t"])

    def want(self, stream: str, rewind: int = 0) -> None:
        self.core.session.want(stream, rewind).readers = (self,)
        self.core.session.flush()
        self.work()

    def work(self) -> None:
        """Do what there is to do."""
        while self.core.actions:
            match self.core.actions.popleft():
                case Connect(attempt=attempt):
                    self.attempt, self.is_closed = attempt, False
                case Send(text=text):
                    self.sent.append(msgspec.json.decode(text))
                case Close():
                    self.is_closed = True

    def open(self) -> None:
        self.core.opened(self.attempt)
        self.work()

    def start(self) -> None:
        self.core.start()
        self.work()
        self.open()
        self.answer_all()

    def hear(self, stream: str, data: Any, offset: str | None = None) -> None:
        message = {"stream": stream, "data": data} | ({} if offset is None else {"offset": offset})
        self.core.received(self.attempt, [msgspec.json.encode(message)])
        self.work()

    def trade(self, number: int, epoch: int = 0) -> None:
        self.hear("trade@A", {"e": "trade", "t": number}, f"{epoch}-{number}")

    def reply(self, request: dict[str, Any], **more: Any) -> None:
        self.hear("!reply", {"e": "reply", "id": request["id"], "result": None, **more})

    def answer_all(self) -> None:
        while self.sent:
            self.reply(self.sent.pop(0))

    def close(self, code: int = 1006, reason: str = "") -> None:
        self.core.closed(self.attempt, code, reason)
        self.work()

    def wait(self) -> float:
        """Until the deadline; how many ms that was."""
        assert self.core.deadline is not None
        pause = self.core.deadline - self.time
        self.time = self.core.deadline
        self.core.tick()
        self.work()
        return pause

    def events(self, *names: str) -> list[Any]:
        """Of the log, publications by their number and the events of these names."""
        return [each for each in self.log if isinstance(each, int) or each["e"] in names]
