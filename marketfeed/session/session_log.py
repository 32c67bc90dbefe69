"""What the log says of conversations: changes of subscription, and for debugging, what clients ask.

1. No line holds what may be a token: the params of AUTH, or anything of a method that is none of ours.
2. Lines are bounded, whatever a client sends, and those for debugging cost nothing while nobody reads them.
"""

from __future__ import annotations

import msgspec
from twisted.python.failure import Failure

from marketfeed.runtime.logs import Log
from marketfeed.wire.messages import Request

__all__ = ["log_change", "log_failure", "log_request"]

_log = Log()

_LONGEST_LOGGED = 200
_FEW_STREAMS = 5  # of one change, the most that the log names


def log_request(client_id: str, request: Request, is_known: bool) -> None:
    """A request has come; `is_known`: its method is one of ours."""
    if Log.debugging and is_known:
        is_shown = request.method != "AUTH" and request.params is not msgspec.UNSET
        params = f" {str(request.params)[:_LONGEST_LOGGED]}" if is_shown else ""
        _log.debug("client {client} asks {method}{params}", client=client_id, method=request.method, params=params)


def log_failure(client_id: str, failure: Failure) -> None:
    """An answer has failed through a fault of ours."""
    _log.failure("client {client}: internal error", failure, client=client_id)


def log_change(client_id: str, verb: str, spellings: list[str]) -> None:
    """`verb`: what the client has done, such as "subscribed to", with these streams."""
    few = ", ".join(spellings[:_FEW_STREAMS]) + (", …" if len(spellings) > _FEW_STREAMS else "")
    _log.info(
        "client {client} {verb} {count} streams: {streams}",
        client=client_id,
        verb=verb,
        count=len(spellings),
        streams=few,
    )
