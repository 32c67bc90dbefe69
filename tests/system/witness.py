"""A client that checks what it is told as it comes: order, and that nothing is missing without a word about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.system.harness import Client

__all__ = ["Witness"]


class Witness:
    """What one client was told. It expects trades whose `t` counts up by one within a stream.

    `last`: stream, as the client spells it → the newest `t`. `open`: stream → the `from` of its gap, while that lasts.
    `replies`: id → result, and `on_reply` is called with the id.
    `faults`: what the server did against docs/protocol.md, as lines for the test's report.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.last: dict[str, int] = {}
        self.open: dict[str, int] = {}
        self.gaps: list[dict[str, Any]] = []
        self.replies: dict[Any, Any] = {}
        self.faults: list[str] = []
        self.on_reply: Callable[[Any], None] = lambda _: None
        self._told: set[str] = set()  # streams with a gap that has ended since their last publication
        client.on_message = self.take

    def take(self, payload: bytes) -> None:
        message = json.loads(payload)
        data = message.get("data", message)
        match data.get("e"):
            case "gap":
                self._gap(data)
            case "reply" | None:
                self._reply(data)
            case "trade":
                self._publication(message.get("stream") or f"trade@{data['s']}", data["t"])
            case other:
                self.faults.append(f"{other} was not expected: {message}")

    def forget(self, stream: str) -> None:
        """The client has unsubscribed from this stream."""
        self.last.pop(stream, None)
        self.open.pop(stream, None)
        self._told.discard(stream)

    def _reply(self, data: dict[str, Any]) -> None:
        if "error" in data or data["id"] in self.replies:
            self.faults.append(f"not the one good reply: {data}")
        self.replies[data["id"]] = data.get("result")
        self.on_reply(data["id"])

    def _gap(self, gap: dict[str, Any]) -> None:
        self.gaps.append(gap)
        for stream in gap["streams"]:
            if gap["reason"] == "sequence":  # told when it is over
                self._told.add(stream)
            elif gap["to"] is None:
                if stream in self.open and gap["reason"] == "source-down":
                    self.faults.append(f"{stream}: a second gap begins in a gap: {gap}")
                self.open[stream] = gap["from"]
            else:
                if self.open.pop(stream, None) != gap["from"]:
                    self.faults.append(f"{stream}: a gap ends that never began: {gap}")
                if gap["to"] < gap["from"]:
                    self.faults.append(f"{stream}: a gap ends before it began: {gap}")
                self._told.add(stream)

    def _publication(self, stream: str, number: int) -> None:
        last = self.last.get(stream)
        if stream in self.open:
            self.faults.append(f"{stream}: {number} inside of a gap")
        if last is not None and number <= last:
            self.faults.append(f"{stream}: {number} after {last}")
        if last is not None and number > last + 1 and stream not in self._told:
            self.faults.append(f"{stream}: {number} after {last}, and not a word about those between")
        self.last[stream] = number
        self._told.discard(stream)
