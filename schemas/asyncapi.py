"""The protocol of the WebSockets as an AsyncAPI 3.0 document (docs/protocol.md#paths-and-dialects)."""

from __future__ import annotations

import inspect
from typing import Any, Literal

from marketfeed import __version__
from marketfeed.wire.close_codes import CLOSE_REASONS
from marketfeed.wire.messages import ErrorCode, Expiring, Gap, Quality, ServerShutdown
from schemas import structs
from schemas.json_schema import components, draft_07
from schemas.structs import METHODS, Error, HouseError, HouseReply, Publication, Reply

__all__ = ["HOUSE", "PATHS", "asyncapi", "messages"]

HOUSE = "house"
PATHS = {
    HOUSE: ("/", "What the platform's front ends speak: every message is in an envelope."),
    "combined": ("/stream", "As Binance's combined streams. `?streams=a/b` names the first ones."),
    "raw": ("/ws", "As Binance's raw streams: the data alone."),
    "rawNamed": ("/ws/{streams}", "As Binance's raw streams, which the path names."),
}
"""The channels, each with its address."""
_EVENTS = (Gap, Quality, ServerShutdown, Expiring)
_MADE: dict[str, Any] = {
    "aggTrade": structs.AggTrade,
    "bookTicker": structs.BookTicker,
    "partialDepth": structs.PartialDepth,
    "kline": structs.Kline,
    "miniTicker": structs.MiniTicker,
    "allMiniTickers": list[structs.MiniTicker],
    "declared": dict[str, Any],
}
_OF_ENGINE: dict[str, Any] = {
    "trade": structs.EngineTrade,
    "depth": structs.EngineDepth,
    "ticker": structs.EngineTicker,
}
_MADE_GOOD: dict[str, Any] = {"trade": structs.Trade, "depth": structs.Depth, "ticker": structs.Ticker}


def messages(channel: str) -> dict[str, Any]:
    """What passes on a channel, by name, each with its type: `request…`, `reply…`, `error`, `event…`, and kinds.

    In envelopes, and with `…Data` behind the name the data alone, which the property `combined` decides on.
    """
    is_house = channel == HOUSE
    found: dict[str, Any] = {f"request{each.__name__}": each for each in METHODS}
    results = {"Done": None, "List": list[str], "Bool": bool, "History": list[structs.Past], "Pong": Literal["PONG"]}
    for name, result in results.items():
        found[f"reply{name}"] = (HouseReply if is_house else Reply)[result]
    found["error"] = HouseError if is_house else Error
    data = {**(_OF_ENGINE if is_house else _MADE_GOOD), **_MADE}
    data |= {f"event{each.__name__}": each for each in _EVENTS}
    for name, kind in data.items():
        found[name] = Publication[kind]  # type: ignore[valid-type]
        if not is_house:
            found[f"{name}Data"] = kind
    return found


def asyncapi() -> dict[str, Any]:
    """The document."""
    channels = {channel: messages(channel) for channel in PATHS}
    types = {(channel == HOUSE, name): kind for channel, all_ in channels.items() for name, kind in all_.items()}
    schemas, named = components(list(types.values()))
    payloads = dict(zip(types, schemas, strict=True))
    described = {
        _message(is_house, name): {"name": name, "contentType": "application/json", "payload": draft_07(payload)}
        for (is_house, name), payload in payloads.items()
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "marketfeed", "version": __version__, "description": _about(), "license": {"name": "MIT"}},
        "defaultContentType": "application/json",
        "servers": {
            protocol: {
                "host": "{host}",
                "protocol": protocol,
                "variables": {"host": {"description": "Where the daemon listens.", "default": "localhost:8080"}},
            }
            for protocol in ("ws", "wss")
        },
        "channels": {channel: _channel(channel, all_) for channel, all_ in channels.items()},
        "operations": {name: made for channel, all_ in channels.items() for name, made in _operations(channel, all_)},
        "components": {"messages": described, "schemas": draft_07(named)},
    }


def _about() -> str:
    errors = "\n".join(f"- {int(code)}: {code.name}" for code in ErrorCode)
    closes = "\n".join(f"- {each.code}: {each.meaning}; {each.advice}" for each in CLOSE_REASONS)
    return (
        "Live market data over WebSocket. Fields that are not described may be added by later versions.\n\n"
        "A token stands in the header Authorization, in the subprotocol `bearer.<token>`, or in `?token=`.\n"
        "With `--payloads engine`, trades, depth and tickers are everywhere as on `/`; "
        "with `--validate warn` they may be any objects.\n\n"
        f"Codes of errors:\n\n{errors}\n\nCodes of closes, and what a client should do:\n\n{closes}\n"
    )


def _message(is_house: bool, name: str) -> str:
    return f"{HOUSE}.{name}" if is_house else name


def _channel(channel: str, all_: dict[str, Any]) -> dict[str, Any]:
    address, about = PATHS[channel]
    query: dict[str, Any] = {"token": {"type": "string"}, "affinity": {"type": "string"}}
    if channel == "combined":
        query["streams"] = {"type": "string", "description": "Names of streams, with a slash between them."}
    made: dict[str, Any] = {
        "address": address,
        "description": about,
        "messages": {name: {"$ref": f"#/components/messages/{_message(channel == HOUSE, name)}"} for name in all_},
        "bindings": {"ws": {"query": {"type": "object", "properties": query}, "bindingVersion": "0.1.0"}},
    }
    if "{streams}" in address:
        made["parameters"] = {"streams": {"description": "Names of streams, with a slash between them."}}
    return made


def _operations(channel: str, all_: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What the daemon receives, with the reply to it, and what it sends by itself."""
    here = {"$ref": f"#/channels/{channel}"}

    def some(*names: str) -> list[dict[str, str]]:
        return [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names]

    replies = {list[str]: "List", bool: "Bool", list[structs.Past]: "History", Literal["PONG"]: "Pong"}
    made: list[tuple[str, dict[str, Any]]] = []
    for request, result in METHODS.items():
        tag = request.__struct_config__.tag
        operation = {
            "action": "receive",
            "channel": here,
            "summary": f"{tag}: {inspect.getdoc(request)}",
            "messages": some(f"request{request.__name__}"),
            "reply": {"channel": here, "messages": some(f"reply{replies.get(result, 'Done')}", "error")},
        }
        made.append((f"{channel}{request.__name__}", operation))
    events = [name for name in all_ if name.startswith("event")]
    streams = [name for name in all_ if not name.startswith(("event", "request", "reply")) and name != "error"]
    for name, summary, sent in (
        ("Publish", "What is published on the streams of a client.", streams),
        ("Tell", "What the daemon has to say itself, and errors without an id.", [*events, "error"]),
    ):
        made.append((channel + name, {"action": "send", "channel": here, "summary": summary, "messages": some(*sent)}))
    return made
