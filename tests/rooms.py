"""A hub in a room of its own: with a source, an archive and snapshots that the test drives, a clock, and clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec
from twisted.internet.task import Clock

from marketfeed.boundaries import Answers, HubPort, Sink
from marketfeed.hub.groups import Group
from marketfeed.hub.hub import Hub
from marketfeed.hub.join import Join
from marketfeed.model.streams import StreamKinds
from marketfeed.wire.dialects import Shape
from marketfeed.wire.frames import text_frame
from tests.fakes import FakeArchive, FakeSnapshots, FakeSource, FakeSubscriber
from tests.limits import hub_limits

if TYPE_CHECKING:
    _sink: Sink = Hub(Clock(), hub_limits())
    _port: HubPort = Hub(Clock(), hub_limits())
    _answers: Answers = cast("Client", None)

__all__ = ["EPOCH", "KINDS", "LINGER", "Client", "Room", "depth", "member", "offsets", "ticker", "trade", "turn_of"]

EPOCH = 1_700_000_000
LINGER = 5.0
KINDS = StreamKinds()


def trade(number: int = 1) -> bytes:
    return b'{"e":"trade","t":%d,"m":true,"p":"100.10","q":"2","s":"A"}' % number


def depth(first: int, last: int | None = None, *, is_snapshot: bool = False) -> bytes:
    snapshot = b',"snapshot":true' if is_snapshot else b""
    last = first if last is None else last
    return b'{"e":"depth","t":%d,"a":[],"b":[["1","%d"]],"U":%d,"u":%d%b}' % (last, last, first, last, snapshot)


def ticker(number: int) -> bytes:
    return b'{"e":"ticker","t":%d,"c":"1","s":"A"}' % number


def turn_of(clock: Clock) -> None:
    """One turn of the reactor: what is due, and not yet what that puts off to the next."""
    for call in [call for call in clock.calls if call.getTime() <= clock.seconds()]:
        if call.active():
            clock.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)


class Room:
    """A hub with a source that the test drives, and a clock."""

    def __init__(
        self,
        archive: FakeArchive | None = None,
        snapshots: FakeSnapshots | None = None,
        kinds: StreamKinds | None = None,
        **limits: Any,
    ) -> None:
        self.clock = Clock()
        self.kinds = kinds or StreamKinds()
        limits = {"linger": LINGER, **limits}
        self.hub = Hub(self.clock, hub_limits(**limits), lambda: EPOCH + self.clock.seconds(), self.kinds)
        self.source = FakeSource(self.hub, lambda: EPOCH + self.clock.seconds())
        self.source.archive, self.source.snapshots = archive, snapshots
        self.hub.feed_from(self.source)
        self.hub.startService()

    @property
    def now_ms(self) -> int:
        return int((EPOCH + self.clock.seconds()) * 1000)

    def turn(self) -> None:
        """One turn of the reactor."""
        turn_of(self.clock)

    def end(self, *clients: Client) -> None:
        """They go, and nothing is left of them once their streams have lingered."""
        for client in clients:
            client.end()
        self.clock.advance(LINGER)
        self.assert_empty()

    def assert_empty(self) -> None:
        """Nothing is left of anything that ever was."""
        hub, upstream = self.hub, self.hub._upstream
        assert not self.timers
        assert not self.source.wanted
        assert not hub.streams
        assert not any(
            (*hub._registry.all, hub._gaps, hub._publishing.dirty, upstream.histories.size, hub._registry._reserved)
        )
        assert not any((rhythm._timer or rhythm._turn or rhythm._open) for rhythm in hub._windows._rhythms.values())
        assert not any((upstream.readiness._waiting, upstream.finder._tries, hub._audiences, hub.portions))

    @property
    def timers(self) -> list[float]:
        """When the hub will do something, besides its sweep and its lines about what is bad."""
        upstream = self.hub._upstream
        besides = [self.hub._sweeper.call, upstream.drops._lines._timer, upstream.readiness._lines._timer]
        for rhythm in self.hub._windows._rhythms.values():
            besides += [rhythm._timer, rhythm._turn]
        return [call.getTime() for call in self.clock.getDelayedCalls() if call not in besides]


class Client:
    """One client, as its session treats the hub: it knows its groups, and answers into its outbox.

    Its replies are `["joined", …]` and `["left", …]`.
    """

    def __init__(
        self,
        room: Room,
        *,
        shape: Shape = Shape.ENVELOPE,
        queue: int = 1 << 20,
        window: int = 0,
        on_paths: bool = False,
    ) -> None:
        self.hub = room.hub
        self.on_paths = on_paths
        self.kinds = room.kinds
        self.outbox = FakeSubscriber(queue, on_overflow=self.end, window=window)
        self.shape = shape
        self.groups: dict[str, Group] = {}
        self.waiting: Join | None = None
        self.answers = 0
        self.settlings = 0
        self.recovered: dict[str, bool] | None = None
        self.rewound: dict[str, int] | None = None
        self.refusal = ""
        self.ended = False

    def join(
        self, *spellings: str, since: dict[str, str] | None = None, wants_state: bool = False, rewind: int = 0
    ) -> Client:
        assert self.waiting is None
        streams = {spelling: self.kinds.parse(spelling, on_paths=self.on_paths) for spelling in spellings}
        join = self.hub.join(
            self.outbox, self.shape, streams, self, since=since, wants_state=wants_state, rewind=rewind
        )
        self.waiting = None if join.finished else join
        return self

    def joined(
        self, groups: dict[str, Group], recovered: dict[str, bool] | None, rewound: dict[str, int] | None
    ) -> None:
        self.answers += 1
        self.recovered = recovered
        self.rewound = rewound
        if self.ended:
            self.hub.leave(self.outbox, groups.values())
            return
        self.groups.update(groups)
        self.reply("joined", groups)

    def refused(self, why: str) -> None:
        self.refusal = why

    def settled(self) -> None:
        self.settlings += 1
        self.waiting = None

    def unsubscribe(self, *spellings: str) -> None:
        self.hub.unsubscribe(self.outbox, [self.groups[spelling] for spelling in spellings])
        self.left(spellings)
        for spelling in spellings:
            self.groups.pop(spelling, None)
        self.reply("left", spellings)

    def reshape(self, shape: Shape) -> None:
        self.groups = self.hub.reshape(self.outbox, self.groups.values(), shape)
        self.shape = shape

    def left(self, spellings: Sequence[str]) -> None:
        """The hub has taken this client out of these streams."""

    def reply(self, what: str, spellings: Any) -> None:
        if not self.ended:
            self.outbox.write(text_frame(msgspec.json.encode([what, *spellings])))

    def end(self) -> None:
        """The connection is closing or gone."""
        self.ended = True
        self.outbox.end()
        if self.waiting is not None:
            self.hub.cancel(self.waiting)
        groups, self.groups = self.groups, {}
        self.hub.leave(self.outbox, groups.values())

    def take(self) -> list[Any]:
        """The messages since the last call; publications and events without their envelopes' noise."""
        messages = [self._short(message) for message in self.outbox.messages]
        self.outbox.writes.clear()
        return messages

    @staticmethod
    def _short(message: Any) -> Any:
        if isinstance(message, list):
            return message
        spelling, data = message.get("stream"), message.get("data", message)
        if data["e"] == "gap":
            assert spelling in ("!gap", None)
            return ("gap", data["streams"], data["reason"], data["from"], data["to"])
        return (spelling, data["t"])


def member(room: Room, *spellings: str, **options: Any) -> Client:
    """A client that has joined streams which the source has confirmed, and has read the reply."""
    client = Client(room, **options).join(*spellings)
    room.source.confirm()
    client.take()
    client.answers = client.settlings = 0
    return client


def offsets(client: Client) -> list[str]:
    """The offsets of the publications that a client has got since the last call."""
    got = [each["offset"] for each in client.outbox.messages if isinstance(each, dict) and "offset" in each]
    client.outbox.writes.clear()
    return got
