"""What this process tells others of the streams to which it gave offsets: see `translations`, which asks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from twisted.internet.defer import Deferred

from marketfeed import __version__
from marketfeed.boundaries import Past
from marketfeed.hub.alignment import DIGESTS
from marketfeed.hub.counted_history import CountedHistory
from marketfeed.hub.upstream import HubLimits, Upstream

__all__ = ["MOST_ASKED", "OwnPasts"]

MOST_ASKED = 200
"""Streams of one question."""


class OwnPasts:
    """A `Pasts`: of the streams that are followed here. What is not, or not in that epoch, takes no work."""

    def __init__(self, upstream: Upstream, limits: HubLimits) -> None:
        self._upstream = upstream
        self._rules = f"{__version__} {limits.strict} {limits.max_payload} {limits.channel_prefix}"

    def of(self, wanted: Sequence[tuple[str, str]]) -> Deferred[list[Past]]:
        return Deferred.fromCoroutine(self._of(list(islice(wanted, MOST_ASKED))))

    def origin(self, server: str) -> str:
        """Where publications are from that this server has told, and what of them is passed on."""
        return f"{server} {self._rules}"

    def flowing(self, stream: str, epoch: str) -> CountedHistory | None:
        """The history of a stream, if that is its epoch, in which nothing has been missed up to now."""
        live = self._upstream.registry.find(stream)
        if live is None or not live.confirmed or not isinstance(live.history, CountedHistory):
            return None
        return live.history if live.history.epoch == epoch else None

    async def _of(self, wanted: Sequence[tuple[str, str]]) -> list[Past]:
        known = [each for each in wanted if self.flowing(*each) is not None]
        servers = [self._upstream.source.caught_up(stream) for stream, _ in known]
        found = []
        for (stream, epoch), waiting in zip(known, servers, strict=True):
            server = await waiting
            history = self.flowing(stream, epoch)  # as it is now, which is at least as far
            if server is not None and history is not None:
                found.append(Past(stream, epoch, history.count, history.newest_digests(DIGESTS), self.origin(server)))
        return found
