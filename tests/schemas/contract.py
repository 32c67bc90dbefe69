"""Holds messages and answers against the Structs that describe them, in the strict form: nothing but what is told.

A message may be an example of the documentation: what an ellipsis stands for there is not looked at.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from schemas.asyncapi import HOUSE, messages
from schemas.json_schema import components
from schemas.structs import ANSWERS, Refusal
from tests.docs_runner import Number, read_message

__all__ = ["KINDS", "channel_of", "fault_of_answer", "fault_of_message", "fault_of_request"]

KINDS = {
    "trade": "trade",
    "depth": "depth",
    "depthUpdate": "depth",
    "ticker": "ticker",
    "24hrTicker": "ticker",
    "aggTrade": "aggTrade",
    "bookTicker": "bookTicker",
    "depth5": "partialDepth",
    "depth10": "partialDepth",
    "depth20": "partialDepth",
    "kline": "kline",
    "24hrMiniTicker": "miniTicker",
}
_EVENTS = ("gap", "quality", "serverShutdown", "expiring")


class _Part(dict[str, Any]):
    """An object of which a part is shown."""


def channel_of(path: str) -> str:
    """The channel that a client is on who has connected to this path."""
    return {"": HOUSE, "stream": "combined"}.get(path.partition("?")[0].split("/")[1], "raw")


def fault_of_message(text: str, channel: str, *, is_engines: bool = False) -> str | None:
    """What is wrong with a message that a client gets. `is_engines`: trades, depth and tickers are not made good."""
    message = _plain(read_message(text))
    name = _name(message)
    is_kind = name.removesuffix("Data") in ("trade", "depth", "ticker")
    if channel != HOUSE and is_engines and is_kind:
        channel, message = HOUSE, message if "stream" in message else {"stream": "", "data": message}
        name = name.removesuffix("Data")
    return _fault(messages(channel)[name], message)


def fault_of_request(text: str) -> str | None:
    """What is wrong with a request."""
    request = _plain(read_message(text))
    words = [word.capitalize() for word in str(request.get("method")).split("_")]
    kind = messages(HOUSE).get(f"request{''.join(words)}")
    return "no such method" if kind is None else _fault(kind, request)


def fault_of_answer(text: str, path: str, status: int) -> str | None:
    """What is wrong with an answer in JSON to what is behind `/api/v3/`."""
    kinds = ANSWERS[path] if status == 200 else (Refusal,)
    faults = [_fault(kind, _plain(read_message(text))) for kind in kinds]
    return None if None in faults else "; ".join(map(str, faults))


def _name(message: Any) -> str:
    if isinstance(message, dict) and "stream" in message:
        data = message["data"]
        if str(message["stream"]).startswith("!") and isinstance(data, dict):
            event = data["e"]
            return _reply(data["result"]) if event == "reply" else _said(event)
        return _kind(data)
    if isinstance(message, dict) and "result" in message:
        return _reply(message["result"])
    if isinstance(message, dict) and "error" in message:
        return "error"
    if isinstance(message, dict) and message.get("e") in _EVENTS:
        return f"{_said(message['e'])}Data"
    return f"{_kind(message)}Data"


def _said(event: str) -> str:
    return "error" if event == "error" else f"event{event[0].upper()}{event[1:]}"


def _kind(data: Any) -> str:
    return "allMiniTickers" if isinstance(data, list) else KINDS.get(data.get("e"), "declared")


def _reply(result: Any) -> str:
    if isinstance(result, list):
        return "replyHistory" if any(isinstance(each, dict) for each in result) else "replyList"
    return {type(None): "replyDone", bool: "replyBool", str: "replyPong"}[type(result)]


def _plain(value: Any) -> Any:
    """A message of `read_message` as the validator takes it."""
    if isinstance(value, Number):
        number = float(value.text)
        return int(value.text) if value.text.lstrip("-").isdigit() else number
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        kind: type[dict[str, Any]] = _Part if "…" in value else dict
        return kind({name: _plain(each) for name, each in value.items() if name != "…"})
    return value


@cache
def _validator(kind: Any) -> Draft202012Validator:
    (schema,), named = components([kind], strict=True)
    return Draft202012Validator({**schema, "components": {"schemas": named}})


def _fault(kind: Any, message: Any) -> str | None:
    for error in _validator(kind).iter_errors(message):
        is_shown = error.instance is None or isinstance(error.instance, dict | list | str | int | float)
        if is_shown and not (error.validator == "required" and isinstance(error.instance, _Part)):
            return f"{error.json_path}: {error.message}"
    return None
