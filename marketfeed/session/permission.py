"""Which streams a client may have, as its token says (docs/protocol.md#tokens); the errors are for it to read.

1. A request for streams is permitted as a whole, or refused with the first stream that is not.
2. Where a token has patterns that have to be tried, that is done a few streams at a time: both are `Work`.
3. A user stays the same: a new token may be narrower, wider or later, but not another user's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

from marketfeed.access.tokens import BadToken
from marketfeed.hub.portions import Work
from marketfeed.model.identity import Identity
from marketfeed.model.streams import StreamKinds, StreamName
from marketfeed.wire.messages import ErrorCode, RequestError

__all__ = ["check_in_portions", "check_permission", "lost_streams", "renewed", "streams_lost"]

_Item = TypeVar("_Item")
_PORTION = 200
"""µs."""


def check_permission(identity: Identity, streams: Iterable[tuple[str, StreamName]]) -> None:
    """Raises `RequestError` unless `identity` may have all of `streams`, each with its spelling before it."""
    permits = identity.permits
    for spelling, stream in streams:
        if not permits(stream):
            fault = f"the token does not cover {spelling}" if identity.user else f"{spelling} needs a token"
            raise RequestError(ErrorCode.NOT_PERMITTED, f"not permitted: {fault}")


def check_in_portions(identity: Identity, streams: Iterable[tuple[str, StreamName]]) -> Work:
    """The same, for a token with patterns that have to be tried."""
    for few in _portions(identity, list(streams)):
        yield _cost(identity) * len(few)
        check_permission(identity, few)


def renewed(identity: Identity, token: str, verify: Callable[[str], Identity]) -> Identity:
    """Who a client with another token is. Raises `RequestError` when the token is no good for it."""
    try:
        other = verify(token)
    except BadToken as fault:
        raise RequestError(ErrorCode.AUTHENTICATION_FAILED, f"authentication failed: {fault}") from None
    if identity.user not in ("", other.user):
        raise RequestError(ErrorCode.AUTHENTICATION_FAILED, "authentication failed: the token is another user's")
    return other


def lost_streams(
    identity: Identity, streams: Iterable[tuple[str, str]], kinds: StreamKinds
) -> Generator[int, None, list[str]]:
    """Those of a client's streams that `identity` may not have: their spellings, of pairs of these and the names."""
    lost = []
    for few in _portions(identity, list(streams)):
        yield _cost(identity) * len(few)
        lost += [spelling for spelling, name in few if not identity.permits(kinds.parse(name))]
    return lost


def _portions(identity: Identity, items: list[_Item]) -> Iterator[list[_Item]]:
    """A few at a time: what they cost is about the same, whatever the token."""
    size = max(1, _PORTION // _cost(identity))
    return (items[at : at + size] for at in range(0, len(items), size))


def _cost(identity: Identity) -> int:
    """µs for one stream, about."""
    return 1 + identity.tried


def streams_lost(lost: list[str]) -> RequestError:
    """What a client is told of streams that its new token does not cover."""
    return RequestError(ErrorCode.NOT_PERMITTED, f"not permitted: the token does not cover {', '.join(lost)}")
