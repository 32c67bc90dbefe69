"""What operators are shown of clients: of those who are here, and of the last who have gone."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import Protocol

import msgspec

from marketfeed.boundaries import Subscriber

__all__ = ["ClientFacts", "Departed", "Register", "Visitor"]


class ClientFacts(msgspec.Struct, frozen=True):
    """One client at one moment. `age` and `rtt`, of its last ping, in s; `waiting`: bytes; `limit`: the most that may
    be. `conflated`: publications that were left out for it, or merged. `streams`: how many it watches.
    """

    client: str
    peer: str
    user: str
    age: float
    waiting: int
    limit: int
    conflated: int
    rtt: float | None
    streams: int


class Departed(msgspec.Struct, frozen=True):
    """A client that has gone. `at`: ms since 1970; `age`: s; `waiting`: bytes that it did not take."""

    at: int
    client: str
    peer: str
    user: str
    age: float
    code: int
    by: str
    reason: str
    streams: int
    waiting: int


class Visitor(Protocol):
    """A client who is here."""

    @property
    def outbox(self) -> Subscriber: ...

    def backlog(self) -> tuple[int, int]:
        """The bytes that wait for it, and the publications that were left out for it, or merged."""

    def facts(self) -> ClientFacts:
        """What an operator is shown of it."""

    def streams(self) -> list[str]:
        """The streams that it watches, as it spelled them."""


class Register(Protocol):
    """Of the clients. `closes`: how many have gone, by code and by whom; `departed`: the last of them, oldest first."""

    max_connections: int
    opened: int
    closes: Counter[tuple[str, str]]
    draining: bool
    departed: deque[Departed]

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Visitor]: ...

    def find(self, client: str) -> Visitor | None:
        """The one that the log calls so; None: it is not here."""
