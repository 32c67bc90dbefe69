"""The feed without I/O: what happened goes in, what is to be done comes out, and there is nothing else.

Whoever has the socket calls ``start``, ``opened``, ``received``, ``closed``, ``failed`` and ``tick`` as these happen,
then does what is in ``actions``, and calls ``tick`` again at ``deadline``. The clock and chance are given. So a test
or another framework can have every moment of it in hand.

1. One attempt or connection at a time, by its number; whatever an earlier one has yet to say is not listened to.
2. One deadline: while connecting the time-out, while open the next look for signs of life, while waiting the next
   attempt; and beside it the pause that the server asked for by refusing requests.
3. ``closed`` is final: no deadline, no action but the last Close, and nobody is told anything any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from marketfeed_client.backoff import Backoff
from marketfeed_client.errors import FeedError, closed_with, weight_of
from marketfeed_client.events import Error, Event, Reconnecting, State, StateName
from marketfeed_client.session import Session
from marketfeed_client.settings import Times

__all__ = ["Action", "Clock", "Close", "Connect", "Core", "Renew", "Send"]

_GRACE = 100.0  # ms, for what has come already and waits behind a timer that was late
_UNREAD = 1000.0


class Clock(Protocol):
    """The time, in ms."""

    def now(self) -> float:
        """Since 1970."""

    def ticks(self) -> float:
        """By a clock that is never set."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Ask for address and token, and connect. Answer with ``opened`` or ``failed``, and with this number."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Send:
    """Send a text message on the open connection."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Give up the attempt or the connection, if there is one; nothing that it says counts any more."""


@dataclass(frozen=True, slots=True)
class Renew:
    """Ask for another token, and answer with ``renewed`` or ``failed_to_renew``."""

    attempt: int


Action = Connect | Send | Close | Renew


class Core:
    """One feed. `emit` is called with each event, in order; `can_renew`: whether a function gives the token."""

    def __init__(
        self,
        times: Times,
        clock: Clock,
        random: Callable[[], float],
        emit: Callable[[Event], None],
        can_renew: bool,
    ) -> None:
        self._clock = clock
        self._random = random
        self._tell = emit
        self._can_renew = can_renew
        self._most = times.backoff_most * 1000
        self._connect_timeout = times.connect_timeout * 1000
        self._ping_interval = times.ping_interval * 1000
        self._ping_timeout = times.ping_timeout * 1000
        self._backoff = Backoff(times.backoff_base * 1000, self._most, times.stable_after * 1000, random)
        self.session = Session(self)
        self.actions: deque[Action] = deque()
        self.state: StateName = "connecting"
        self.error: FeedError | None = None
        """The final error that closed it."""
        self.is_started = False
        self._attempt = 0  # tells an attempt from those before it
        self._at: float | None = None  # when `_due` is to be called, by the clock's ticks
        self._due: Callable[[], None] = self._look
        self._resume_at: float | None = None
        self._hint: float | None = None
        self._opened_at = 0.0
        self._heard_at = 0.0  # since 1970
        self._heard_ticks = 0.0
        self._is_heard = False
        self._signs = 0  # 0: nothing is asked for; 1: a sign of life is; 2: its time is over

    # What happens.

    def start(self) -> None:
        """Connect for the first time."""
        if not self.is_started and self.state != "closed":
            self.is_started = True
            self._connect()

    def opened(self, attempt: int) -> None:
        """The connection is open."""
        if attempt == self._attempt:
            self._hear()
            self.session.opened()

    def received(self, attempt: int, texts: Sequence[bytes | str]) -> None:
        """Messages have come."""
        if attempt != self._attempt:
            return
        self._hear()
        message = self.session.message
        for text in texts:
            message(text)
            if attempt != self._attempt:
                return

    def heard(self, attempt: int) -> None:
        """Something has come, though not a whole message."""
        if attempt == self._attempt:
            self._hear()

    def closed(self, attempt: int, code: int, reason: str) -> None:
        """The connection is gone, with a close code; 1006 if there was none."""
        if attempt == self._attempt:
            self._ended(closed_with(code, reason, self._can_renew))

    def failed(self, attempt: int, error: FeedError, hint: float | None = None) -> None:
        """The attempt came to nothing. `hint`: after how many ms the server asks for the next one."""
        if attempt == self._attempt:
            self._hint = hint
            self._ended(error)

    def renewed(self, attempt: int, token: str | None) -> None:
        """There is another token for the open connection."""

        def answered(_: object, error: FeedError | None) -> None:
            if error is not None and attempt == self._attempt:
                self.failed_to_renew(attempt, FeedError("token", f"token: {error.message}", code=error.code))

        if attempt == self._attempt and token:
            self.session.auth(token, answered)

    def failed_to_renew(self, attempt: int, error: FeedError) -> None:
        """There is none. A final error ends the feed."""
        if attempt != self._attempt:
            return
        if error.final:
            self._ended(error)
        else:
            self.emit(Error.of(error))

    def tick(self) -> None:
        """The time is `deadline`, or later."""
        ticks = self._clock.ticks()
        if self._resume_at is not None and self._resume_at <= ticks:
            self._resume_at = None
            self.session.resume()
        if self._at is not None and self._at <= ticks:
            self._at = None
            self._due()

    def chance(self) -> float:
        """From 0 to 1, without 1."""
        return self._random()

    def close(self) -> None:
        """End it for good."""
        if self.state != "closed":
            self._finish(None)

    @property
    def deadline(self) -> float | None:
        """When to call `tick`, by the clock's `ticks`."""
        if self._at is None or self._resume_at is None:
            return self._at if self._resume_at is None else self._resume_at
        return min(self._at, self._resume_at)

    # What the session asks for.

    def now(self) -> float:
        return self._clock.now()

    def ticks(self) -> float:
        return self._clock.ticks()

    def send(self, text: bytes) -> None:
        self.actions.append(Send(text))

    def emit(self, event: Event) -> None:
        self._tell(event)

    def ready(self) -> None:
        self._opened_at = self._clock.ticks()
        self._signs = 0
        self._after(self._ping_interval, self._look)
        self._become("open")

    def later(self, refusals: int) -> None:
        pause = min(self._most, _UNREAD * 2.0 ** min(refusals, 1000)) * (0.5 + self._random() / 2)
        self._resume_at = self._clock.ticks() + pause

    def fail(self, error: FeedError) -> None:
        self._ended(error)

    def shutdown(self, hint: float) -> None:
        self._hint = hint

    def expiring(self) -> None:
        if self._can_renew:
            self.actions.append(Renew(self._attempt))

    # Attempts and connections.

    def _connect(self) -> None:
        self._attempt += 1
        timeout = self._connect_timeout
        error = FeedError("timeout", f"not connected within {timeout:.0f} ms")
        self._after(timeout, lambda: self._ended(error))
        self.actions.append(Connect(self._attempt))

    def _hear(self) -> None:
        self._heard_at = self._clock.now()
        self._heard_ticks = self._clock.ticks()
        self._is_heard = True

    def _look(self) -> None:
        """Look for signs of life, and ask for one when there was none."""
        ticks = self._clock.ticks()
        since = self.session.waiting_since
        unanswered = 0.0 if since is None else ticks - since
        pause = _GRACE
        if unanswered > 2 * (self._ping_interval + self._ping_timeout):
            self._ended(FeedError("dead", f"a request was not answered within {unanswered:.0f} ms"))
            return
        if self._is_heard:
            self._signs = 0
            self._is_heard = False
            pause = min(self._ping_interval, max(_GRACE, self._ping_interval - (ticks - self._heard_ticks)))
        elif self._signs == 0:
            self._signs = 1
            self.session.ping()
            pause = self._ping_timeout
        elif self._signs == 1:
            self._signs = 2
        else:
            self._ended(FeedError("dead", f"no sign of life within {self._ping_timeout:.0f} ms"))
            return
        self._after(pause, self._look)

    def _retry(self) -> None:
        self._become("connecting")
        if self.state == "connecting":
            self._connect()

    def _ended(self, error: FeedError) -> None:
        """The attempt or the connection is over."""
        lasted = self._clock.ticks() - self._opened_at if self.state == "open" else 0.0
        hint, self._hint = self._hint, None
        self._let_go()
        if error.final:
            self._finish(error)
            return
        self._backoff.failed(lasted, weight_of(error))
        delay = self._backoff.pause(hint)
        self._after(delay, self._retry)
        self._become("waiting")
        self.emit(Error.of(error))
        self.emit(Reconnecting(delay, self._backoff.failures, hint is not None))

    def failed_request(self, error: FeedError) -> None:
        self.emit(Error.of(error))

    def _let_go(self) -> None:
        """Of the connection, and of what belongs to it."""
        self._attempt += 1
        self._at = self._resume_at = None
        self.actions.clear()
        self.actions.append(Close())
        self.session.lost(self._heard_at)

    def _finish(self, error: FeedError | None) -> None:
        self._let_go()
        self.error = error
        self._become("closed")
        if error is not None:
            self.emit(Error.of(error))

    def _after(self, pause: float, due: Callable[[], None]) -> None:
        self._at = self._clock.ticks() + pause
        self._due = due

    def _become(self, state: StateName) -> None:
        previous = self.state
        if previous not in (state, "closed"):
            self.state = state
            self.emit(State(state, previous))
