"""What goes wrong here with one client: its end, nobody else's, and told at a bounded rate."""

from __future__ import annotations

from marketfeed.boundaries import Clock, Subscriber
from marketfeed.runtime.bounded_log import BoundedLog
from marketfeed.runtime.logs import Log

__all__ = ["Faults"]


class Faults:
    """Those of one hub. None of its methods raises."""

    log = Log()

    def __init__(self, clock: Clock) -> None:
        self._lines = BoundedLog(clock, self.log)

    def end(self, subscriber: Subscriber, fault: str = "a client failed as it was sent something") -> None:
        """Something of `subscriber` has raised, which is being handled: end it. `fault`: what the log says."""
        try:
            self.tell(fault)
            subscriber.failed()
        except Exception:
            self.tell("a client failed as it was ended")

    def tell(self, fault: str) -> None:
        """An exception is being handled."""
        self._lines.failure(fault, fault)

    def close(self) -> None:
        """Tell what has not been told yet."""
        self._lines.close()
