"""Which markets there are: those that the operator declares, and those of which something was heard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import succeed

from marketfeed.api.query import BAD_SYMBOL, BadQuery
from marketfeed.model.markets import Market, Markets

__all__ = ["Listing"]


class Listing:
    """The markets of a process. `declared` may be exchanged at any time.

    `heard`: the names of those that were heard of; it returns the same object for as long as they are the same.
    `known`: waits until that is so of all instances, at the start.
    """

    def __init__(
        self,
        declared: Markets,
        heard: Callable[[], frozenset[str]],
        known: Callable[[], Awaitable[None]] = lambda: succeed(None),
    ) -> None:
        self.declared = declared
        self._heard = heard
        self.known = known
        self._version: object = None
        self._all: dict[str, Market] = {}

    def all(self) -> dict[str, Market]:
        """Each of them by its name, in order of names; the same object for as long as they are the same."""
        declared, heard = self.declared, self._heard()
        if self._version != (declared, heard):
            named = {market.name: market for market in declared}
            named.update((name, Market(name)) for name in heard if name not in named)
            self._all = dict(sorted(named.items()))
            self._version = declared, heard
        return self._all

    def resolve(self, symbol: str) -> str:
        """The market that somebody means. Raises `BadQuery` where the operator lists others, and it is not heard of."""
        market = self.declared.resolve(symbol)
        if self.declared and market not in self.all():
            raise BadQuery("Invalid symbol. The markets are listed at /api/v3/exchangeInfo.", BAD_SYMBOL)
        return market
