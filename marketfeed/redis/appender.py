"""XADDs to the streams of one server, for the bridge and for the simulated engine (see `routed_appender`).

1. The entries of a stream are added in order, and none of them twice. What is not added is counted as lost.
2. What cannot be sent yet waits, in order: while there is no link, and while the server takes nothing.
3. What was sent and not answered when the link is lost counts as lost, though the server may have it; at most
   `UNDER_WAY` bytes of it. What waited goes to the next link.
4. A server that is none to write to (`_NOT_THIS_ONE`) ends the link once it has answered all that was sent, and what it
   has refused waits. One that is busy is asked again after a while. Any other refusal is about that entry, which is
   lost.
5. Where it is not known whether the server takes entries, on a new link and after a refusal, one is sent first.
6. What was refused is lost when a later one of its stream was added, or may have been.
7. Where keys have slots, a server may say that another one has that of a stream (`REDIRECTIONS`), which is no reason to
   end the link. Nothing is sent until it has answered all; then all that waits is looked at: it may have another place.
   The same is done when that is asked for (`drain`).

    state      what is sent                 ends with                              and then
    AWAY       nothing                      a link                                 PROBING
    PROBING    one entry, and waits for it  an entry added, or refused for itself  TAKING
    TAKING     `UNDER_WAY` bytes            an entry refused for now               REFUSED
    REFUSED    nothing                      all answered: busy / not to write to   RESTING / AWAY
                                            elsewhere: some of it is left / none   RESTING / PROBING
    RESTING    nothing                      `BUSY_SECONDS`                         PROBING

PROBING becomes REFUSED, too; REFUSED becomes TAKING where nothing that was refused is left to be sent again (6). A link
that is lost is AWAY, from every state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from enum import Enum
from itertools import chain
from typing import Any, Protocol

import hiredis
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Clock
from marketfeed.redis.entries import Entries, Entry, Loss
from marketfeed.redis.link import RedisLink
from marketfeed.redis.link_keeper import LinkKeeper
from marketfeed.redis.topology import REDIRECTIONS, Node

__all__ = ["BUSY_SECONDS", "UNDER_WAY", "Places", "RedisAppender"]

UNDER_WAY = 1024 * 1024
BUSY_SECONDS = 0.25
"""After which a busy server is asked again."""

_NOT_THIS_ONE = frozenset({"READONLY", "LOADING", "MASTERDOWN"})
_BUSY = "BUSY"
_State = Enum("_State", "AWAY PROBING TAKING REFUSED RESTING")  # see the table above


class Places(Protocol):
    """Who knows where entries belong."""

    @property
    def asking(self) -> Collection[str]:
        """Keys whose entries are at the server that is about to get them, and takes them only behind an ASKING."""

    def misplaced(self, key: str, fault: str) -> None:
        """The server does not take entries with this key, with this error, or takes none at all."""

    def drained(self, node: Node) -> None:
        """Nothing is under way to the server: what waits for it may be taken elsewhere."""


class _AppenderLink(RedisLink):
    def __init__(self, clock: Clock, appender: RedisAppender) -> None:
        super().__init__(clock)
        self._appender = appender

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if self.is_up:
            self._appender.go_on()

    def heard(self, reply: Any) -> None:
        self._appender.answered(reply)

    def ping(self) -> None:
        self._appender.pinged()
        super().ping()


class RedisAppender(LinkKeeper[_AppenderLink]):
    """Keeps a link to append through. `maxlen`: about so many entries are kept of each stream; 0: all.

    `has_slots`: another server may have some of them. `waiting`: what may be put behind what waits, before `go_on`.
    `refusing`: the server has last refused to take any for now.
    """

    def __init__(
        self, clock: Clock, node: Node, maxlen: int, entries: Entries, places: Places, *, has_slots: bool = False
    ) -> None:
        super().__init__(clock, node.endpoint, node.address, f"{node.name} appender")
        self.node = node
        self._entries = entries
        self._places = places
        self._ending = _NOT_THIS_ONE if has_slots else _NOT_THIS_ONE | {"CLUSTERDOWN"}
        self._for_now = self._ending | {_BUSY} | (REDIRECTIONS if has_slots else frozenset())
        self._state = _State.AWAY
        self._limit = ("MAXLEN", "~", maxlen) if maxlen else ()
        self.waiting: deque[Entry] = deque()
        self._under_way: deque[Entry | None] = deque()  # None: nobody's answer
        self._bytes_under_way = 0
        self._refused: list[Entry] = []  # until everything that is under way is answered
        self._faults: dict[str, str] = {}  # why they were, by key
        self._drains = False
        self._pause: IDelayedCall | None = None
        self.refusing = False

    @property
    def ready(self) -> bool:
        """There is a link, and the server does not refuse to take entries."""
        return self._state in (_State.PROBING, _State.TAKING)

    @property
    def pending(self) -> Iterator[Entry]:
        """What is neither added nor lost, of each stream in order."""
        return filter(None, chain(self._refused, self._under_way, self.waiting))

    def stopService(self) -> Deferred[None]:
        return super().stopService().addCallback(self._give_up)

    def drain(self) -> None:
        """Send nothing more before all that is under way is answered, or lost, and all places were looked up."""
        self._drains = True
        self._see_whether_drained()

    def leave(self) -> None:
        """Wait no longer for answers: what is under way is lost."""
        self._end("another server has its streams")

    def take_waiting(self) -> list[Entry]:
        """All that waits, in order, which is somebody else's now."""
        waiting = list(self.waiting)
        self.waiting.clear()
        return waiting

    # What the link says.

    def make_link(self) -> _AppenderLink:
        return _AppenderLink(self._clock, self)

    def link_up(self, link: _AppenderLink) -> None:
        self._state = _State.PROBING
        self.refusing = self.refusing and bool(self.waiting)  # or nothing would ask it again
        self.go_on()

    def link_down(self, link: _AppenderLink | None) -> None:
        self._state = _State.AWAY
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        unanswered = [entry for entry in self._under_way if entry is not None]
        self._under_way.clear()
        self._bytes_under_way = 0
        for key in {entry[0] for entry in unanswered}:
            self._lose_refused(key)
        self._entries.lose(unanswered, Loss.LINK_LOST, "the connection was lost before their answers came")
        self._put_back()
        self._see_whether_drained()

    def pinged(self) -> None:
        """A PING was sent, which will be answered behind what is under way."""
        self._under_way.append(None)

    def answered(self, reply: Any) -> None:
        """The server answers the oldest of what is under way."""
        if not self._under_way:
            self._end("an answer that nobody asked for")
            return
        entry = self._under_way.popleft()
        if entry is None:
            return  # whatever it is, the server lives
        self._bytes_under_way -= entry[2]
        if not isinstance(reply, hiredis.ReplyError):
            self.refusing = False
            self._lose_refused(entry[0])
            self._entries.add(entry)
        elif (fault := str(reply)).split(" ", 1)[0] in self._for_now:
            self._refused.append(entry)
            self._faults[entry[0]] = fault
            self.refusing = True
        else:
            self.refusing = False
            self._entries.lose([entry], Loss.REFUSED, f"Redis refuses an entry: {fault}")
        self._state = _State.REFUSED if self._refused else _State.TAKING

    def go_on(self) -> None:
        """Send what waits, as far as that may be."""
        if self._state is _State.REFUSED and not self._bytes_under_way:
            self._wait_for_the_server()
        elif self.link is not None and self.ready and not self._drains:
            self._send(self.link)
        self._see_whether_drained()

    def _send(self, link: RedisLink) -> None:
        parts = []
        most = UNDER_WAY if self._state is _State.TAKING else 0
        asking = self._places.asking
        while self.waiting:
            size = self.waiting[0][2]
            if self._bytes_under_way and self._bytes_under_way + size > most:
                break
            entry = self.waiting.popleft()
            if asking and entry[0] in asking:
                self._under_way.append(None)
                parts.append(hiredis.pack_command(("ASKING",)))
            self._under_way.append(entry)
            self._bytes_under_way += size
            parts.append(hiredis.pack_command(("XADD", entry[0], *self._limit, "*", "d", entry[1])))
        if parts:
            link.transport.write(b"".join(parts))

    def _see_whether_drained(self) -> None:
        if self._drains and not (self._bytes_under_way or self._refused) and self.running:
            self._drains = False
            self._places.drained(self.node)

    def _wait_for_the_server(self) -> None:
        """It has refused some entries for now, and nothing is under way any more."""
        faults = self._put_back()
        self._state = _State.RESTING
        for key, fault in faults.items():
            if not fault.startswith(_BUSY):
                self._places.misplaced(key, fault)
        self.drain()
        if self._state is not _State.RESTING:
            return  # it is needed no more
        ending = next((fault for fault in faults.values() if fault.split(" ", 1)[0] in self._ending), "")
        if ending:
            self._end(ending)
        elif faults.keys().isdisjoint(entry[0] for entry in self.waiting):
            self.refusing = False
            self._rested()
        else:
            self._pause = self._clock.callLater(BUSY_SECONDS, self._rested)

    def _rested(self) -> None:
        self._state = _State.PROBING
        self._pause = None
        self.go_on()

    def _end(self, cause: str) -> None:
        self._state = _State.AWAY
        if self.link is not None:
            self.link.fail(cause)

    # What becomes of entries.

    def _put_back(self) -> dict[str, str]:
        """What was refused is the first that waits. Returns why, by key."""
        self.waiting.extendleft(reversed(self._refused))
        self._refused.clear()
        faults, self._faults = self._faults, {}
        return faults

    def _lose_refused(self, key: str) -> None:
        """An entry of this stream that came later was added, or may have been."""
        fault = self._faults.pop(key, None)
        if fault is not None:
            late = [entry for entry in self._refused if entry[0] == key]
            self._refused = [entry for entry in self._refused if entry[0] != key]
            why = f"Redis refused them ({fault}), but not what follows them in their stream"
            self._entries.lose(late, Loss.LATE, why)

    def _give_up(self, _: None) -> None:
        self._entries.lose(self.take_waiting(), Loss.ENDED, "they waited until the end")
