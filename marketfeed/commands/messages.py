"""What a server of any dialect says, read as far as it is shown or counted (docs/protocol.md#paths-and-dialects). Pure.

The server is not trusted: any bytes are read as some message, without an exception. Numbers are texts, as they were
spelled.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from marketfeed.model.kinds.columns import number

__all__ = ["Event", "Message", "Publication", "Refusal", "Reply", "read_message"]

_EVENTS = ("gap", "quality", "serverShutdown", "expiring")


class Publication(msgspec.Struct, frozen=True):
    """What was published on a stream, or anything else that is none of the other messages.

    `stream` is empty where the dialect names none. `data` has every number as text. `text`: the message as it came.
    `rows`: of what is told of several markets at once, each as `data`, which is empty then.
    """

    stream: str
    data: dict[str, Any]
    text: str
    rows: tuple[dict[str, Any], ...] = ()

    @property
    def each(self) -> tuple[Publication, ...]:
        """One for each market."""
        return tuple([Publication("", row, "") for row in self.rows]) or (self,)


class Reply(msgspec.Struct, frozen=True):
    """A request has succeeded."""


class Refusal(msgspec.Struct, frozen=True):
    """A request has failed."""

    code: Any
    message: Any


class Event(msgspec.Struct, frozen=True):
    """A control event (docs/protocol.md#gaps)."""

    name: str
    data: dict[str, Any]
    text: str

    @property
    def reconnect_after(self) -> float | None:
        """Seconds that the server asks to stay away, where it does."""
        milliseconds = number(self.data.get("reconnectAfter"))
        return None if milliseconds is None else float(milliseconds) / 1000


Message = Publication | Reply | Refusal | Event

_read_json = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).decode


def read_message(payload: bytes) -> Message:
    """Read one message of any dialect."""
    text = payload.decode("utf-8", "replace")
    try:
        fields = _read_json(text)
    except (ValueError, RecursionError):
        return Publication("", {}, text)
    if not isinstance(fields, dict):
        return Publication("", {}, text, _rows(fields))
    stream, data = fields.get("stream"), fields.get("data")
    if isinstance(stream, str) and isinstance(data, dict):
        return _read_envelope(stream, data, text)
    if isinstance(stream, str) and (rows := _rows(data)):
        return Publication(stream, {}, text, rows)
    name = fields.get("e")
    if name in _EVENTS:
        return Event(name, fields, text)
    if name is None and isinstance(fields.get("error"), dict):
        return Refusal(fields["error"].get("code"), fields["error"].get("msg"))
    if name is None and "result" in fields:
        return Reply()
    return Publication("", fields, text)


def _read_envelope(stream: str, data: dict[str, Any], text: str) -> Message:
    if stream == "!reply":
        return Reply()
    if stream == "!error":
        return Refusal(data.get("code"), data.get("msg"))
    if stream.startswith("!") and "@" not in stream:
        return Event(stream[1:], data, text)
    return Publication(stream, data, text)


def _rows(data: Any) -> tuple[dict[str, Any], ...]:
    """The objects of which a list consists; of anything else none."""
    if isinstance(data, list) and all(isinstance(row, dict) and "e" in row for row in data):
        return tuple(data)
    return ()
