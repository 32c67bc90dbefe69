"""Which streams a client may have, as its token says (PROTOCOL.md, sections 4 and 6); the errors are for it to read.

1. A request for streams is permitted as a whole, or refused with the first stream that is not.
2. A user stays the same: a new token may be narrower, wider or later, but not another user's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from marketfeed.client.auth import BadToken
from marketfeed.client.context import SessionContext
from marketfeed.model.identity import Identity
from marketfeed.model.messages import ErrorCode, RequestError
from marketfeed.model.streams import StreamKinds, StreamName

__all__ = ["check_permission", "lost_streams", "renewed", "streams_lost"]


def check_permission(identity: Identity, streams: Mapping[str, StreamName]) -> None:
    """Raises `RequestError` unless `identity` may have all of `streams` (spelling → stream)."""
    for spelling, stream in streams.items():
        if not identity.permits(stream):
            fault = f"the token does not cover {spelling}" if identity.user else f"{spelling} needs a token"
            raise RequestError(ErrorCode.NOT_PERMITTED, f"not permitted: {fault}")


def renewed(identity: Identity, token: str, context: SessionContext) -> Identity:
    """Who a client with another token is. Raises `RequestError` when the token is no good for it."""
    try:
        other = context.verify(token)
    except BadToken as fault:
        raise RequestError(ErrorCode.AUTHENTICATION_FAILED, f"authentication failed: {fault}") from None
    if identity.user not in ("", other.user):
        raise RequestError(ErrorCode.AUTHENTICATION_FAILED, "authentication failed: the token is another user's")
    return other


def lost_streams(identity: Identity, spellings: Iterable[str], kinds: StreamKinds) -> list[str]:
    """Those of a client's streams that `identity` may not have."""
    return [spelling for spelling in spellings if not identity.permits(kinds.parse(spelling))]


def streams_lost(lost: list[str]) -> RequestError:
    """What a client is told of streams that its new token does not cover."""
    return RequestError(ErrorCode.NOT_PERMITTED, f"not permitted: the token does not cover {', '.join(lost)}")
