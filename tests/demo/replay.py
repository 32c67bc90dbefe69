"""What a client makes of publications: their data, and the book that follows from them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from marketfeed.demo.market import Publication

__all__ = ["Replay", "read"]


def read(publications: list[Publication], kind: str) -> list[dict[str, Any]]:
    """The data of one kind, decoded."""
    return [msgspec.json.decode(payload) for stream, payload in publications if stream.startswith(f"{kind}@")]


class Replay:
    """A client's book: price → quantity a side, both as decimals."""

    def __init__(self) -> None:
        self.last_update = 0
        self.sides: dict[str, dict[Decimal, Decimal]] = {"b": {}, "a": {}}

    def apply(self, depth: dict[str, Any]) -> None:
        for side, levels in self.sides.items():
            if depth.get("snapshot"):
                levels.clear()
            for price, quantity in depth[side]:
                levels[Decimal(price)] = Decimal(quantity)
                if not Decimal(quantity):
                    del levels[Decimal(price)]
        self.last_update = depth["u"]

    @property
    def best_bid(self) -> Decimal:
        return max(self.sides["b"])

    @property
    def best_ask(self) -> Decimal:
        return min(self.sides["a"])
