"""The part of txredisapi that the daemon uses."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

class SubscriberProtocol(Protocol):
    transport: Any
    replyQueue: Any
    def __init__(
        self,
        charset: str | None = ...,
        errors: str = ...,
        replyTimeout: float | None = ...,
        password: str | None = ...,
        dbid: int | None = ...,
        convertNumbers: bool = ...,
        username: str | None = ...,
    ) -> None: ...
    def execute_command(self, *args: str | bytes | int, **kwargs: Any) -> Deferred[Any]: ...
    def replyReceived(self, reply: Any) -> None: ...
    def messageReceived(self, pattern: bytes | None, channel: bytes, message: bytes) -> None: ...
    def connectionMade(self) -> None: ...
