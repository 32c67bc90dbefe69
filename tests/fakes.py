"""Stand-ins for what lies beyond `marketfeed.boundaries`: each does what a test tells it, and records what it was told.

`FakeTransport` is Twisted's own `FileDescriptor` over a scripted socket: its buffering, its producers and its closing
are the real ones.
"""

from __future__ import annotations

import errno
import re
from collections import deque
from collections.abc import Callable, Collection, Sequence
from ssl import SSLWantWriteError
from typing import TYPE_CHECKING, Any, cast

import msgspec
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IReactorFDSet, ISSLTransport
from twisted.internet.main import CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import directlyProvides

from marketfeed.access.addresses import (
    REST_WINDOW,
    AddressRate,
    ConnectionCounts,
    ConnectRate,
    TrustedProxies,
    parse_network,
)
from marketfeed.access.admission import Admission
from marketfeed.access.origins import AllowedOrigins, parse_origin
from marketfeed.access.tokens import TokenVerifier
from marketfeed.api.depth import Book, Books
from marketfeed.boundaries import (
    LONGEST_SEND,
    Archive,
    Clock,
    Entry,
    NoBook,
    Sink,
    Snapshots,
    Source,
    Subscriber,
)
from marketfeed.hub.counted_history import CountedHistory
from marketfeed.hub.groups import Group
from marketfeed.hub.histories import Histories
from marketfeed.hub.stream import LiveStream
from marketfeed.model.candle_store import Row
from marketfeed.model.ladder import BestLevels
from marketfeed.model.publications import PublicationReader
from marketfeed.model.streams import StreamKinds, StreamName
from marketfeed.runtime.tls_connections import TlsConnection
from marketfeed.websocket.connections import UserManager
from marketfeed.websocket.outbox import OutboxTransport
from marketfeed.wire.dialects import Shape
from tests.by_hand import frames_of

__all__ = [
    "AT",
    "FakeArchive",
    "FakeBook",
    "FakeBooks",
    "FakeCandles",
    "FakeMemory",
    "FakeSnapshots",
    "FakeSocket",
    "FakeSource",
    "FakeSubscriber",
    "FakeTransport",
    "make_admission",
    "make_group",
    "make_stream",
    "payloads",
]


class FakeMemory:
    """A guard of memory that is full when the test says so."""

    def __init__(self) -> None:
        self.is_full = False


def make_admission(
    clock: Clock,
    users: UserManager,
    *,
    origins: Collection[str] = ("*",),
    proxies: Collection[str] = (),
    connect_rate: int = 0,
    rest_rate: int = 0,
    per_address: int = 0,
    memory: FakeMemory | None = None,
    verifier: TokenVerifier | None = None,
    needs_token: bool = False,
) -> Admission:
    """An admission that lets everybody in, unless it is told otherwise."""
    return Admission(
        clock,
        users,
        memory or FakeMemory(),
        origins=AllowedOrigins([parse_origin(text) for text in origins]),
        proxies=TrustedProxies([parse_network(text) for text in proxies]),
        rate=ConnectRate(connect_rate),
        rest=AddressRate(rest_rate, REST_WINDOW),
        counts=ConnectionCounts(per_address),
        verifier=verifier,
        needs_token=needs_token,
    )


AT = "7-1"
"""An offset."""


def make_stream(name: str = "trade@A") -> LiveStream:
    """A stream by itself: no hub knows it. Its kind's loss policy is its own."""
    parsed = StreamKinds().parse(name)
    history = CountedHistory(Histories(1000, 300, 1 << 20), "epoch")
    return LiveStream(name, PublicationReader(parsed, (name,), 1 << 20), parsed.kind, history)


def make_group(name: str = "trade@A", *, shape: Shape = Shape.DATA, window: int = 0) -> Group:
    """A group of a stream of its own, without members."""
    return make_stream(name).group(name, shape, window, False)


def payloads(received: bytes | bytearray) -> list[bytes]:
    """The payloads of the frames that a server sent. Fails where the bytes are not whole, final, unmasked frames."""
    return [payload for _, payload in frames_of(bytes(received))]


class FakeBook:
    """A book with `levels` on each side; None: it is not complete. `looking_cost`: in µs."""

    def __init__(self, levels: int | None = 2, looking_cost: int = 40) -> None:
        self._levels = levels
        self.looking_cost = looking_cost

    def depth(self, limit: int) -> bytes | None:
        if self._levels is None:
            return None
        side = ",".join(['["1.0","2"]'] * min(limit, self._levels))
        return f'{{"lastUpdateId":7,"bids":[{side}],"asks":[{side}]}}'.encode()

    def best(self, most: int) -> BestLevels | None:
        if self._levels is None:
            return None
        levels = [("1.0", "2")] * min(most, self._levels)
        return BestLevels(levels, levels, None)


class FakeBooks:
    """Has a book of every stream at once, or with `at_once` off when the test says so. `asked`: for which, in order.

    `waiting`: what has been asked for, and neither answered nor cancelled.
    """

    def __init__(self, book: FakeBook | NoBook | None = None) -> None:
        self.at_once: FakeBook | NoBook | None = book
        self.asked: list[str] = []
        self.waiting: list[Deferred[Book | NoBook]] = []

    def book(self, stream: StreamName) -> Deferred[Book | NoBook]:
        self.asked.append(str(stream))
        if self.at_once is not None:
            return succeed(self.at_once)
        waiting = Deferred[Book | NoBook](self.waiting.remove)
        self.waiting.append(waiting)
        return waiting

    def give(self, book: FakeBook | NoBook) -> None:
        """Answer whoever asked first."""
        self.waiting.pop(0).callback(book)


class FakeCandles:
    """Has one candle of every market, which begins at 0, and 24 hours of A, whose last price is `last`; with `is_away`
    nobody makes any.
    """

    def __init__(self) -> None:
        self.is_away = False
        self.last = "1"
        self._days: dict[str, dict[str, bytes]] = {}
        self.asked: list[tuple[str, str, int | None, int | None, int]] = []

    async def klines(
        self, market: str, interval: str, start: int | None, end: int | None, limit: int
    ) -> list[Row] | None:
        self.asked.append((market, interval, start, end, limit))
        return None if self.is_away else [] if start else [Row(0, "1", "1", "1", "1", "5", 59_999, "5", 1, "0", "0")]

    async def days(self) -> dict[str, dict[str, bytes]] | None:
        day = await self.day("A")
        if day and self._days.get("A") != day:
            self._days = {"A": day}
        return None if self.is_away else self._days

    async def day(self, market: str) -> dict[str, bytes] | None:
        texts = {**dict.fromkeys("pPwxQohlvq", b'"1"'), "c": b'"%b"' % self.last.encode()}
        day = {**texts, **dict.fromkeys("OCFLn", b"1")} if market == "A" else {}
        return None if self.is_away else day


class FakeSource:
    """A source that confirms, refuses and loses what it was asked for when the test says so, in any order.

    `wanted` and `confirmed` are what a real one would reconcile; `calls` is the history of `want` and `unwant`. With
    `at_once` it confirms inside `want`, as a real one does where the stream is subscribed still.
    """

    def __init__(self, sink: Sink | None = None, now: Callable[[], float] = lambda: 0.0) -> None:
        self._sink = sink
        self._now = now  # s since 1970
        self._down_since: int | None = None
        self.archive: Archive | None = None
        self.snapshots: Snapshots | None = None
        self.at_once = False
        self.wanted: dict[str, None] = {}
        self.confirmed: set[str] = set()
        self.calls: list[tuple[str, str]] = []

    # What the hub calls.

    def want(self, stream: str) -> int | None:
        assert stream not in self.wanted, f"{stream} is wanted already"
        self.wanted[stream] = None
        self.calls.append(("want", stream))
        if self.at_once:
            self.confirm(stream)
        return self._down_since

    def unwant(self, stream: str) -> None:
        assert stream in self.wanted, f"{stream} is not wanted"
        del self.wanted[stream]
        self.confirmed.discard(stream)
        self.calls.append(("unwant", stream))

    def caught_up(self, stream: str) -> Deferred[str | None]:
        return succeed("server")

    # What the test calls.

    @property
    def sink(self) -> Sink:
        assert self._sink is not None, "this source was given no sink"
        return self._sink

    def confirm(self, *streams: str, after: str | None = None) -> None:
        """Confirm these streams, or all that are wanted and not confirmed, behind an offset where there are offsets."""
        for stream in streams or [name for name in self.wanted if name not in self.confirmed]:
            assert stream in self.wanted, f"{stream} is not wanted"
            self.confirmed.add(stream)
            self._down_since = None
            self.sink.confirmed(stream, after)

    def refuse(self, stream: str, why: str = "no permission") -> None:
        self.confirmed.discard(stream)
        self.sink.refused(stream, why)

    def reach(self) -> None:
        self._down_since = None
        self.sink.reached("redis")

    def lose(self, last_good: int | None = None) -> None:
        """`last_good`: ms since 1970; None: no link could be made."""
        self.confirmed.clear()
        if last_good is not None or self._down_since is None:
            self._down_since = int(self._now() * 1000) if last_good is None else last_good
        self.sink.lost(self._down_since, list(self.wanted), "redis")

    def publish(self, stream: str, *data: bytes, offsets: Sequence[str] = ()) -> None:
        """Deliver publications that arrived together, with their offsets where there are offsets."""
        for number, payload in enumerate(data):
            self.sink.publish(stream, payload, offsets[number] if offsets else None)
        self.sink.flush()


class _Answerer:
    """What answers at once, or when it is `late`, when the test says `answer`: by what is true then."""

    def __init__(self) -> None:
        self.late = False
        self.asked: list[Any] = []
        self.waiting: deque[Callable[[], None]] = deque()

    def answer(self, count: int | None = None) -> None:
        """Answer the first `count` questions that wait; without a number all of them, and those that follow."""
        while self.waiting and count != 0:
            count = None if count is None else count - 1
            self.waiting.popleft()()

    def _ask(self, question: Any, find: Callable[[], Any]) -> Deferred[Any]:
        self.asked.append(question)
        if not self.late:
            return succeed(find())
        answered = Deferred[Any]()
        self.waiting.append(lambda: answered.callback(find()))
        return answered


class FakeSnapshots(_Answerer):
    """States beside the streams: `states` by stream. `asked` has the streams that were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[str, bytes] = {}

    def read(self, stream: str) -> Deferred[bytes | None]:
        return self._ask(stream, lambda: self.states.get(stream))


class FakeArchive(_Answerer):
    """The past of streams, whose offsets are `<number>-0`. `asked` has the arguments of the questions.

    A portion is at most `most` publications; while it is not `reached`, there is nothing to be had.
    """

    def __init__(self, most: int = 1000) -> None:
        super().__init__()
        self.most = most
        self.reached = True
        self.entries: dict[str, list[Entry]] = {}
        self.floors: dict[str, tuple[int, int]] = {}

    # What the hub calls.

    def since(self, stream: str, after: str, until: str, max_bytes: int) -> Deferred[list[Entry] | None]:
        return self._ask((stream, after, until, max_bytes), lambda: self._since(stream, after, until, max_bytes))

    def newest(self, stream: str, limit: int, max_bytes: int, until: str | None = None) -> Deferred[list[Entry] | None]:
        return self._ask((stream, limit, max_bytes), lambda: self._newest(stream, limit, max_bytes, until))

    def first_from(self, stream: str, time: int, limit: int, max_bytes: int) -> Deferred[list[Entry] | None]:
        return self._ask((stream, time, limit), lambda: self._those(stream, lambda at: at >= time, slice(0, limit)))

    def last_until(self, stream: str, time: int, limit: int, max_bytes: int) -> Deferred[list[Entry] | None]:
        return self._ask((stream, time, limit), lambda: self._those(stream, lambda at: at <= time, slice(-limit, None)))

    def time_of(self, offset: str) -> int:
        return _place(offset)[0]

    def _those(self, stream: str, when: Callable[[int], bool], part: slice) -> list[Entry] | None:
        entries = [entry for entry in self.entries.get(stream, []) if when(self.time_of(entry[0]))]
        return entries[part] if self.reached else None

    # What the test calls.

    def add(self, stream: str, offset: str, payload: bytes) -> None:
        self.entries.setdefault(stream, []).append((offset, payload))

    def trim(self, stream: str, kept: int) -> None:
        """Keep only the newest `kept` entries."""
        entries = self.entries.get(stream, [])
        gone = len(entries) - kept
        if gone > 0:
            self.floors[stream] = _place(entries[gone - 1][0])
            del entries[:gone]

    def _since(self, stream: str, after: str, until: str, max_bytes: int) -> list[Entry] | None:
        entries, floor = self.entries.get(stream, []), self.floors.get(stream, (0, 0))
        end = _place(entries[-1][0]) if entries else floor
        if not self.reached or not re.fullmatch(r"[0-9]+-[0-9]+", after) or not floor <= _place(after) <= end:
            return None
        portion: list[Entry] = []
        for offset, payload in entries:
            if not _place(after) < _place(offset) <= _place(until):
                continue
            max_bytes -= len(payload)
            if portion and (max_bytes < 0 or len(portion) == self.most):
                break
            portion.append((offset, payload))
        return portion

    def _newest(self, stream: str, limit: int, max_bytes: int, until: str | None) -> list[Entry] | None:
        if not self.reached:
            return None
        newest: list[Entry] = []
        entries = self.entries.get(stream, [])
        found = [entry for entry in entries if until is None or _place(entry[0]) <= _place(until)]
        for offset, payload in reversed(found[-limit:]):
            max_bytes -= len(payload)
            if max_bytes < 0:
                break
            newest.append((offset, payload))
        return newest[::-1]


def _place(offset: str) -> tuple[int, int]:
    milliseconds, _, number = offset.partition("-")
    return int(milliseconds), int(number)


class FakeSubscriber:
    """A client's outbox without a transport.

    `writes` is what reached the peer, an item for each send; `waiting` what is held back. The next sends go by `takes`:
    a number of bytes, 0 for a full socket, or an error; without one, everything is taken. `limit` is how many bytes
    may wait. `late` is what was written to it after it had ended, `events` what of its writes came as a control event.
    """

    def __init__(self, limit: int = 1 << 20, on_overflow: Callable[[], None] | None = None, window: int = 0) -> None:
        self.direct = True
        self.hears_events = True
        self.window = window
        self.events: list[bytes] = []
        self.send: Callable[[bytes | memoryview], int] = self._take
        self.audience: Any = None
        self.share: Any = None
        self.takes: deque[int | OSError] = deque()
        self.writes: list[bytes] = []
        self.waiting: list[tuple[object, bytes]] = []
        self.late: list[bytes] = []
        self.limit = limit
        self.on_overflow = on_overflow
        self.overflows = 0
        self.failures = 0
        self.ended = False

    # What the hub and the fan-out call.

    @property
    def room(self) -> int:
        return self.limit - self.waiting_bytes

    def send_long(self, data: bytes) -> int:
        return self.send(data)

    def write(self, frames: bytes) -> None:
        if self.ended:
            self.late.append(frames)
        elif self.direct:
            try:
                sent = self.send(frames)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.failed()
                return
            if sent != len(frames) and not self.stalled(frames, sent):
                self.overflow()
        elif not self.wait(None, [frames]):
            self.overflow()

    def tell(self, event: bytes) -> None:
        if self.hears_events:
            self.events.append(event)
            self.write(event)

    @property
    def is_behind(self) -> bool:
        return 2 * self.waiting_bytes > self.limit

    def stalled(self, data: bytes, sent: int) -> bool:
        assert self.direct
        self.direct = False
        self.waiting.append((None, data[sent:]))
        return self.waiting_bytes <= self.limit

    def failed(self) -> None:
        self.failures += 1
        self.end()

    def wait(self, group: object, frames: list[bytes]) -> bool:
        assert not self.direct
        if self.ended:
            return True
        for frame in frames:
            if self.waiting_bytes + len(frame) > self.limit:
                return False
            self.waiting.append((group, frame))
        return True

    def forget(self, groups: Collection[object]) -> None:
        self.waiting = [item for item in self.waiting if not any(item[0] is group for group in groups)]

    def overflow(self) -> None:
        self.overflows += 1
        self.end()
        if self.on_overflow is not None:
            self.on_overflow()

    # What the test calls.

    def end(self) -> None:
        """Send nothing from now on."""
        self.ended = True
        self.direct = False
        self.waiting.clear()

    def stall(self) -> None:
        """Let the peer read nothing until `drain`."""
        self.direct = False

    def drain(self) -> None:
        """Let the peer read all that waits."""
        if not self.ended:
            self.writes += [frame for _, frame in self.waiting]
            self.waiting.clear()
            self.direct = True

    @property
    def waiting_bytes(self) -> int:
        return sum(len(frame) for _, frame in self.waiting)

    @property
    def texts(self) -> list[bytes]:
        """The messages that reached the peer."""
        return payloads(b"".join(self.writes))

    @property
    def messages(self) -> list[Any]:
        """The same, decoded."""
        return [msgspec.json.decode(text) for text in self.texts]

    def _take(self, data: bytes | memoryview) -> int:
        took = self.takes.popleft() if self.takes else len(data)
        if isinstance(took, OSError):
            raise took
        if took == 0:
            raise BlockingIOError(errno.EAGAIN, "the socket is full")
        self.writes.append(bytes(data[:took]))
        return min(took, len(data))


class FakeSocket:
    """A socket whose sends go by a script: the bytes that the next ones take, 0 for a full socket, or an error.

    Past the end of its script it takes as much as there is `room` for; without one, everything.
    """

    def __init__(self) -> None:
        self.script: deque[int | OSError] = deque()
        self.room: int | None = None
        self.received = bytearray()

    def send(self, data: bytes | memoryview) -> int:
        takes = self.script.popleft() if self.script else len(data)
        if isinstance(takes, OSError):
            raise type(takes)(*takes.args)  # another, for one in a variable would be part of a cycle
        if self.room is not None:
            takes = min(takes, self.room, len(data))
            self.room -= takes
        if takes == 0:
            raise BlockingIOError(errno.EAGAIN, "the socket is full")
        taken = data[:takes]
        self.received += taken
        return len(taken)


class FakeTlsSocket(FakeSocket):
    """The same with OpenSSL on it: a record is taken whole, or has to be offered again before any other bytes are.

    The script says how many bytes of a record the socket takes; what counts as `received` is whole records.
    """

    def __init__(self) -> None:
        super().__init__()
        self.record = b""
        """What is under way."""
        self._left = 0

    def send(self, data: bytes | memoryview) -> int:
        raise AssertionError("a socket below TLS is not to be written to")

    def write(self, data: bytes | memoryview) -> int:
        assert 0 < len(data) <= LONGEST_SEND
        if not self.record:
            self.record, self._left = bytes(data), len(data)
        assert data == self.record, "a bad write retry"
        takes = self.script.popleft() if self.script else self._left
        if isinstance(takes, OSError):
            raise type(takes)(*takes.args)
        if self.room is not None:
            takes = min(takes, self.room, self._left)
            self.room -= takes
        self._left -= min(takes, self._left)
        if self._left:
            raise SSLWantWriteError
        self.received += self.record
        self.record = b""
        return len(data)


class _Readiness:
    """The part of a reactor that a descriptor tells what it waits for."""

    def __init__(self) -> None:
        self.writers: set[FileDescriptor] = set()

    def addWriter(self, writer: FileDescriptor) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: FileDescriptor) -> None:
        self.writers.discard(writer)

    def addReader(self, reader: FileDescriptor) -> None:
        """Nothing is ever read here."""

    removeReader = addReader


class FakeTransport(FileDescriptor):
    """Twisted's transport over a `FakeSocket`; `turn` is one turn of its reactor.

    With `tls` it is encrypted, and offers what it has as a `TlsConnection` does.
    """

    under_way = 0

    def __init__(self, *, tls: bool = False) -> None:
        self._readiness = _Readiness()
        super().__init__(cast(IReactorFDSet, self._readiness))
        self.connected = 1
        self.socket = FakeTlsSocket() if tls else FakeSocket()
        self._ssl = self.socket
        self.written: list[int] = []
        self.aborted = False
        self.lost: Failure | None = None
        self._is_tls = tls
        if tls:
            directlyProvides(self, ISSLTransport)

    def turn(self) -> None:
        """The reactor finds that the connection was aborted, or that the socket may take more."""
        if self.aborted:
            self.connectionLost(Failure(ConnectionAborted()))
        elif self.is_writing:
            fault = FileDescriptor.doWrite(self)
            if fault is not None:
                self.connectionLost(Failure(fault))

    @property
    def is_writing(self) -> bool:
        """Whether the transport waits for its socket to take more."""
        return self in self._readiness.writers

    @property
    def buffered(self) -> bytes:
        """What was written and has not reached the socket."""
        return b"".join((memoryview(self.dataBuffer)[self.offset :], *self._tempDataBuffer))

    def getHandle(self) -> FakeSocket:
        return self.socket

    def write(self, data: bytes) -> None:
        self.written.append(len(data))
        super().write(data)

    def writeSomeData(self, data: bytes) -> int | BaseException:
        if self._is_tls:
            return TlsConnection.writeSomeData(cast(TlsConnection, self), data)
        try:
            return self.socket.send(memoryview(data)[: self.SEND_LIMIT])
        except BlockingIOError:
            return 0
        except OSError:
            return CONNECTION_LOST

    def abortConnection(self) -> None:
        if not self.disconnected:
            self.aborted = True
            self._readiness.removeWriter(self)

    def connectionLost(self, reason: Failure) -> None:
        if self.lost is None:
            self.lost = reason
            FileDescriptor.connectionLost(self, reason)


if TYPE_CHECKING:
    _archive: Archive = FakeArchive()
    _snapshots: Snapshots = FakeSnapshots()
    _books: Books = FakeBooks()
    _source: Source = FakeSource()
    _subscriber: Subscriber = FakeSubscriber()
    _transport: OutboxTransport = FakeTransport()
