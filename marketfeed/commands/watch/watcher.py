"""Watching streams of one server: connect, subscribe, show, and connect again when the connection is lost.

1. There is at most one attempt, one connection, and one timer; what a timer is for follows from the other two.
2. Each connection carries one SUBSCRIBE. A refusal of it ends the watching: there is nothing to watch. Behind it may
   come the wish to hear events, which a server that knows none refuses: that is no news.
3. Between attempts the wait grows, at random between half of its length and all of it, until the server confirms a
   SUBSCRIBE. A server that says how long to stay away is heeded once.
4. A server that does not complete the handshake, or gives no sign of life and answers no ping, is lost.
5. The end is asked for once; from then on nothing is shown, and it comes when the connection is gone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from marketfeed.boundaries import Clock
from marketfeed.commands.messages import Event, Message, Refusal, Reply, read_message
from marketfeed.commands.watch.display import show_refusal
from marketfeed.model.kinds.columns import clean

__all__ = ["Backoff", "Link", "Loss", "Screen", "Watcher"]

HANDSHAKE_SECONDS = 10.0
SILENCE_SECONDS = 20.0
"""After one to two of these without a byte the server is pinged, after one more it is lost."""
GOODBYE_SECONDS = 1.0
"""How long a server has to answer our close."""
_EVENTS = msgspec.json.encode({"method": "SET_PROPERTY", "params": ["events", True], "id": 2})
FIRST_WAIT, LONGEST_WAIT, LONGEST_HINT = 0.5, 10.0, 60.0


class Loss(msgspec.Struct, frozen=True):
    """Why there is no connection any more.

    `is_refusal`: the server answered the handshake, with something else than a WebSocket. `is_final`: another attempt
    would end the same. `after`: seconds that the server asks to stay away.
    """

    why: str
    is_refusal: bool = False
    is_final: bool = False
    after: float | None = None


class Link(Protocol):
    """A connection, as the watcher sees it. When it is gone, and not before, it calls `Watcher.lost`.

    `leave`: with a close frame, as far as there is a WebSocket already; `abort`: without a word.
    """

    def send(self, text: bytes) -> None: ...
    def ping(self) -> None: ...
    def leave(self) -> None: ...
    def abort(self) -> None: ...


class Screen(Protocol):
    """Where is shown what comes, as it came and as it was read, and what there is to `note` about the watching itself.

    `message` raises OSError when nobody can be shown anything any more.
    """

    def message(self, payload: bytes, message: Message) -> None: ...
    def note(self, line: str) -> None: ...


class Backoff:
    """How long to wait before the next attempt."""

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._longest = FIRST_WAIT

    def next(self) -> float:
        """Seconds."""
        longest = self._longest
        self._longest = min(LONGEST_WAIT, 2 * longest)
        return longest * (1 + self._jitter()) / 2

    def reset(self) -> None:
        self._longest = FIRST_WAIT


class Watcher:
    """Watches `streams`, named as the server accepts them.

    `dial` makes one attempt: its Deferred fires with a `Link` that knows this watcher, or fails; it can be cancelled.
    `url` is for the notes. `asks_for_events`: the server tells them only to who has asked.
    """

    def __init__(
        self,
        clock: Clock,
        dial: Callable[[Watcher], Deferred[Link]],
        screen: Screen,
        url: str,
        streams: Sequence[str],
        backoff: Backoff,
        *,
        asks_for_events: bool = False,
    ) -> None:
        self._clock = clock
        self._dial = dial
        self._screen = screen
        self._url = clean(url)
        self._subscribe = msgspec.json.encode({"method": "SUBSCRIBE", "params": list(streams), "id": 1})
        self._backoff = backoff
        self._asks_for_events = asks_for_events
        self._awaits_events = False
        self._attempt: Deferred[Any] | None = None
        self._link: Link | None = None
        self._timer: IDelayedCall | None = None
        self._is_open = self._is_confirmed = False
        self._told: Loss | None = None
        self._silent_for = 0
        self._hint: float | None = None
        self._verdict = ""
        self._status: int | None = None
        self._ended: Deferred[int] = Deferred()

    def start(self) -> Deferred[int]:
        """Begin. Fires with the exit status when the watching is over."""
        self._connect()
        return self._ended

    def stop(self) -> None:
        """End, with status 0. Asked a second time it does not wait for the server's answer."""
        if self._status is None:
            self._end(0)
        elif self._link is not None:
            self._link.abort()

    # What the connection says.

    def opened(self) -> None:
        """The handshake is complete."""
        assert self._link is not None
        self._is_open, self._is_confirmed, self._told = True, False, None
        self._awaits_events = False
        self._screen.note(f"connected to {self._url}")
        self._link.send(self._subscribe)
        self._silent_for = 0
        self._set_timer(SILENCE_SECONDS, self._listen)

    def heard(self) -> None:
        """Some bytes have come."""
        self._silent_for = 0

    def received(self, payload: bytes) -> None:
        """One message."""
        if self._status is not None:
            return
        message = read_message(payload)
        match message:
            case Reply():
                self._confirmed()
                return
            case Refusal() if self._awaits_events:
                self._awaits_events = False
                return
            case Refusal():
                self._screen.note(show_refusal(message))
                if not self._is_confirmed:
                    self._end(1)
                return
            case Event(name="serverShutdown"):
                self._hint = message.reconnect_after
        try:
            self._screen.message(payload, message)
        except BrokenPipeError:
            self._end(0)
        except OSError as error:
            self._screen.note(f"cannot write: {error.strerror}")
            self._end(1)

    def lost(self, loss: Loss) -> None:
        """The connection is gone, with or without a word."""
        self._link = None
        self._clear_timer()
        was_open, self._is_open = self._is_open, False
        if self._status is not None:
            self._ended.callback(self._status)
            return
        verdict, self._verdict = self._verdict, ""
        loss = Loss(verdict) if verdict else loss
        self._come_back(loss, f"lost {self._url}" if was_open else f"cannot watch {self._url}")

    def _confirmed(self) -> None:
        """A request has succeeded."""
        self._awaits_events = self._asks_for_events and not self._is_confirmed
        self._is_confirmed = True
        self._backoff.reset()
        if self._awaits_events and self._link is not None:
            self._link.send(_EVENTS)

    # The way from one connection to the next.

    def _connect(self) -> None:
        self._timer = None
        self._attempt = self._dial(self)
        self._attempt.addCallbacks(self._reached, self._not_reached)

    def _reached(self, link: Link) -> None:
        self._attempt = None
        self._link = link
        if self._status is None:
            self._set_timer(HANDSHAKE_SECONDS, self._give_up, f"no WebSocket within {HANDSHAKE_SECONDS:.0f} s")
        else:
            link.abort()

    def _not_reached(self, failure: Failure) -> None:
        self._attempt = None
        if self._status is not None:
            self._ended.callback(self._status)
            return
        # A ValueError is about the host's name, before anything was tried.
        loss = Loss(clean(failure.getErrorMessage()).rstrip("."), is_final=failure.check(ValueError) is not None)
        self._come_back(loss, f"cannot reach {self._url}")

    def _come_back(self, loss: Loss, what: str) -> None:
        if loss.is_final:
            self._screen.note(f"{what}: {loss.why}")
            self._end(1)
            return
        hint, self._hint = (self._hint if loss.after is None else loss.after), None
        wait = self._backoff.next() if hint is None else max(0.0, min(hint, LONGEST_HINT))
        if self._told is None or (loss.is_refusal and loss.why != self._told.why):
            self._screen.note(f"{what}: {loss.why}; trying again, first in {wait:.1f} s")
            self._told = loss
        self._set_timer(wait, self._connect)

    def _listen(self) -> None:
        assert self._link is not None
        if self._silent_for > 1:
            self._give_up(f"no sign of life for {SILENCE_SECONDS * self._silent_for:.0f} s")
            return
        if self._silent_for:
            self._link.ping()
        self._silent_for += 1
        self._timer = self._clock.callLater(SILENCE_SECONDS, self._listen)

    def _give_up(self, verdict: str) -> None:
        assert self._link is not None
        self._timer = None
        self._verdict = verdict
        self._link.abort()

    def _end(self, status: int) -> None:
        self._status = status
        self._clear_timer()
        if self._link is not None:
            self._set_timer(GOODBYE_SECONDS, self._link.abort)
            self._link.leave()
        elif self._attempt is not None:
            self._attempt.cancel()
        else:
            self._ended.callback(status)

    def _set_timer(self, delay: float, call: Callable[..., object], *arguments: object) -> None:
        self._clear_timer()
        self._timer = self._clock.callLater(delay, call, *arguments)

    def _clear_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
