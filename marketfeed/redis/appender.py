"""XADDs to Redis streams, for the bridge and for the simulated engine.

1. The entries of a stream are added in order, and none of them twice. What is not added is counted as lost.
2. What cannot be sent yet waits, in order: while there is no link, and while the server takes nothing. Together with
   what is under way that is `MOST_BYTES` at most; what comes on top is lost.
3. What was sent and not answered when the link is lost counts as lost, though the server may have it; at most
   `UNDER_WAY` bytes of it. What waited goes to the next link.
4. A server that is none to write to (`_ELSEWHERE`) ends the link once it has answered all that was sent, and what it
   has refused waits. One that is busy is asked again after a while. Any other refusal is about that entry, which is
   lost.
5. Where it is not known whether the server takes entries, on a new link and after a refusal, one is sent first.
6. What was refused is lost when a later one of its stream was added, or may have been.

    state      what is sent                 ends with                              and then
    AWAY       nothing                      a link                                 PROBING
    PROBING    one entry, and waits for it  an entry added, or refused for itself  TAKING
    TAKING     `UNDER_WAY` bytes            an entry refused for now               REFUSED
    REFUSED    nothing                      all answered: busy / not to write to   RESTING / AWAY
    RESTING    nothing                      `BUSY_SECONDS`                         PROBING

PROBING becomes REFUSED, too; REFUSED becomes TAKING where nothing that was refused is left to be sent again (6). A link
that is lost is AWAY, from every state.
"""

from __future__ import annotations

from collections import Counter, deque
from enum import Enum
from itertools import chain
from typing import Any

import hiredis
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint

from marketfeed.boundaries import Clock
from marketfeed.model.rate import TokenBucket
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.link import RedisLink
from marketfeed.redis.link_keeper import LinkKeeper
from marketfeed.runtime.logs import Log

__all__ = ["MOST_BYTES", "Loss", "RedisAppender"]

MOST_BYTES = 64 * 1024 * 1024
UNDER_WAY = 1024 * 1024
ENTRY_BYTES = 128
"""What it takes to keep an entry, beside its key and its payload."""
BUSY_SECONDS = 0.25
"""After which a busy server is asked again."""

_ELSEWHERE = frozenset({"READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN"})
_BUSY = "BUSY"
_Entry = tuple[str, bytes, int, float]  # its key, its payload, its size, and when it was to be appended
_State = Enum("_State", "AWAY PROBING TAKING REFUSED RESTING")  # see the table above


class Loss:
    """Why entries are lost, for programs (docs/streams.md#an-engine-that-only-publishes)."""

    NO_ROOM = "no-room"
    LINK_LOST = "link-lost"
    REFUSED = "refused"
    LATE = "late"
    ENDED = "ended"

    ALL = (NO_ROOM, LINK_LOST, REFUSED, LATE, ENDED)


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

    `added` and `losses`, by `Loss`, count entries. `refusing`: the server has last refused to take any for now.
    """

    log = Log()

    def __init__(self, clock: Clock, endpoint: IStreamClientEndpoint, address: RedisAddress, maxlen: int) -> None:
        super().__init__(clock, endpoint, address, "appender")
        self._state = _State.AWAY
        self._limit = ("MAXLEN", "~", maxlen) if maxlen else ()
        self._waiting: deque[_Entry] = deque()
        self._under_way: deque[_Entry | None] = deque()  # None: a PING
        self._refused: list[_Entry] = []  # until everything that is under way is answered
        self._refused_keys: set[str] = set()
        self._fault = ""  # why they were
        self._bytes = self._bytes_under_way = 0
        self._pause: IDelayedCall | None = None
        self._idle: Deferred[None] | None = None
        self._loss_lines = TokenBucket(1, 5, clock.seconds())
        self.added = 0
        self.losses: Counter[str] = Counter(dict.fromkeys(Loss.ALL, 0))
        self.refusing = False

    @property
    def ready(self) -> bool:
        """There is a link, and the server does not refuse to take entries."""
        return self._state in (_State.PROBING, _State.TAKING)

    @property
    def lost(self) -> int:
        """Entries that were lost, for whatever reason."""
        return self.losses.total()

    @property
    def lag(self) -> float:
        """For how many seconds the oldest entry that is neither added nor lost has been here; 0: there is none."""
        oldest = next(filter(None, chain(self._refused, self._under_way, self._waiting)), None)
        return 0.0 if oldest is None else max(0.0, self._clock.seconds() - oldest[3])

    def stopService(self) -> Deferred[None]:
        return super().stopService().addCallback(self._give_up)

    def publish(self, batch: list[tuple[str, bytes]]) -> None:
        """Append (key, payload) pairs in order."""
        now = self._clock.seconds()
        for key, payload in batch:
            size = len(key) + len(payload) + ENTRY_BYTES
            if self._bytes + size > MOST_BYTES:
                self._lose(1, Loss.NO_ROOM, "Redis does not take as many as there are, and no more may wait")
            else:
                self._bytes += size
                self._waiting.append((key, payload, size, now))
        self.go_on()

    def all_answered(self) -> Deferred[None]:
        """Fires when nothing waits and all is answered. To be called once, when nothing more is published."""
        if self._is_idle():
            return succeed(None)
        self._idle = Deferred()
        return self._idle

    # What the link says.

    def make_link(self) -> _AppenderLink:
        return _AppenderLink(self._clock, self)

    def link_up(self, link: _AppenderLink) -> None:
        self._state = _State.PROBING
        self.refusing = self.refusing and bool(self._waiting)  # or nothing would ask it again
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
        self._forget(unanswered, Loss.LINK_LOST, "the connection was lost before their answers came")
        self._put_back()
        self._look_whether_idle()

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
            self._bytes -= entry[2]
            self.added += 1
            self.refusing = False
            self._lose_refused(entry[0])
        elif (fault := str(reply)).split(" ", 1)[0] in {*_ELSEWHERE, _BUSY}:
            self._refused.append(entry)
            self._refused_keys.add(entry[0])
            self._fault = fault
            self.refusing = True
        else:
            self.refusing = False
            self._forget([entry], Loss.REFUSED, f"Redis refuses an entry: {fault}")
        self._state = _State.REFUSED if self._refused else _State.TAKING

    def go_on(self) -> None:
        """Send what waits, as far as that may be."""
        if self._state is _State.REFUSED and not self._bytes_under_way:
            self._wait_for_the_server()
        elif self.link is not None and self.ready:
            self._send(self.link)
        self._look_whether_idle()

    def _send(self, link: RedisLink) -> None:
        parts = []
        most = UNDER_WAY if self._state is _State.TAKING else 0
        while self._waiting:
            size = self._waiting[0][2]
            if self._bytes_under_way and self._bytes_under_way + size > most:
                break
            entry = self._waiting.popleft()
            self._under_way.append(entry)
            self._bytes_under_way += size
            parts.append(hiredis.pack_command(("XADD", entry[0], *self._limit, "*", "d", entry[1])))
        if parts:
            link.transport.write(b"".join(parts))

    def _wait_for_the_server(self) -> None:
        """It has refused some entries for now, and nothing is under way any more."""
        self._put_back()
        if self._fault.split(" ", 1)[0] == _BUSY:
            self._state = _State.RESTING
            self._pause = self._clock.callLater(BUSY_SECONDS, self._rested)
        else:
            self._end(self._fault)

    def _rested(self) -> None:
        self._state = _State.PROBING
        self._pause = None
        self.go_on()

    def _end(self, cause: str) -> None:
        self._state = _State.AWAY
        if self.link is not None:
            self.link.fail(cause)

    # What becomes of entries.

    def _put_back(self) -> None:
        """What was refused is the first that waits."""
        self._waiting.extendleft(reversed(self._refused))
        self._refused.clear()
        self._refused_keys.clear()

    def _lose_refused(self, key: str) -> None:
        """An entry of this stream that came later was added, or may have been."""
        if key in self._refused_keys:
            self._refused_keys.discard(key)
            late = [entry for entry in self._refused if entry[0] == key]
            self._refused = [entry for entry in self._refused if entry[0] != key]
            why = f"Redis refused them ({self._fault}), but not what follows them in their stream"
            self._forget(late, Loss.LATE, why)

    def _give_up(self, _: None) -> None:
        waiting = list(self._waiting)
        self._waiting.clear()
        self._forget(waiting, Loss.ENDED, "they waited until the end")
        self._look_whether_idle()

    def _forget(self, entries: list[_Entry], reason: str, why: str) -> None:
        if entries:
            self._bytes -= sum(entry[2] for entry in entries)
            self._lose(len(entries), reason, why)

    def _is_idle(self) -> bool:
        return not (self._waiting or self._refused or self._bytes_under_way)

    def _look_whether_idle(self) -> None:
        if self._idle is not None and self._is_idle():
            idle, self._idle = self._idle, None
            idle.callback(None)

    def _lose(self, count: int, reason: str, why: str) -> None:
        self.losses[reason] += count
        if self._loss_lines.take(self._clock.seconds()):
            self.log.error("appender: entries are lost, {lost} until now: {why}", lost=self.lost, why=why)
