"""Fan-out: one publication's bytes on their way to every subscriber of its stream. This is the hot path.

1. A publication is framed once per group, and every member of the group gets the same bytes.
2. What a flush has for a client reaches it in one write, straight to the socket while the client keeps up.
3. Clients who are in the same groups are one audience, for whom that write is put together once. Most are: they look at
   the same page.
4. A member that fails or stalls is left for its own outbox to deal with; the loop goes on to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Subscriber
from marketfeed.model.book import DepthMessage
from marketfeed.model.deflate import compressed_frame, inflate
from marketfeed.model.dialects import publication_head
from marketfeed.model.frames import text_frame, text_header
from marketfeed.model.publications import PublicationReader
from marketfeed.model.streams import LossPolicy

__all__ = ["Audience", "Audiences", "Group", "Join", "LiveStream", "is_member", "send_group", "send_groups"]

_HEADER = 10  # bytes of a frame's header, at most


class Group:
    """The subscribers of one stream who get the same bytes."""

    __slots__ = ("audiences", "data", "depths", "enveloped", "frames", "head", "size", "spelling", "stream", "window")

    def __init__(self, stream: LiveStream, spelling: str, enveloped: bool, window: int) -> None:
        self.window = window  # of deflate, in bits; 0: nothing is compressed
        self.stream = stream
        self.spelling = spelling
        self.enveloped = enveloped
        self.head = publication_head(spelling)
        self.audiences: dict[Audience, None] = {}
        self.size = 0  # members
        self.frames: list[bytes] = []
        self.data = b""  # the frames of the present flush, put together
        self.depths: dict[bytes, DepthMessage | None] = {}  # what the present flush has read

    def framed(self, data: bytes) -> bytes:
        """A publication's data as the members get it."""
        if self.window:
            payload = b"".join((self.head, data, b"}")) if self.enveloped else data
            return compressed_frame(payload, self.window) or text_frame(payload)
        if self.enveloped:
            head = self.head
            return b"".join((text_header(len(head) + len(data) + 1), head, data, b"}"))
        return text_frame(data)

    @property
    def overhead(self) -> int:
        """The most bytes that a frame has besides a publication's data."""
        return _HEADER + (len(self.head) + 1 if self.enveloped else 0)

    def depth(self, frame: bytes) -> DepthMessage | None:
        """What a frame of this group, a depth stream's, holds; None if that cannot be read.

        It is read once in a flush for all members who are behind, and shared: copy it before merging others into it.
        """
        if frame not in self.depths:
            self.depths[frame] = _read_depth(self._data(frame))
        return self.depths[frame]

    def _data(self, frame: bytes) -> bytes:
        payload = inflate(frame)
        return payload[len(self.head) : -1] if self.enveloped else payload


class Audience:
    """The clients who are in the same groups."""

    __slots__ = ("batch", "groups", "members")

    def __init__(self, groups: frozenset[Group]) -> None:
        self.groups = groups
        self.members: dict[Subscriber, None] = {}
        self.batch: list[Group] = []  # those of which the present flush has something


class Audiences:
    """All the audiences: each set of groups that somebody is in has one."""

    def __init__(self) -> None:
        self._by_groups: dict[frozenset[Group], Audience] = {}

    def __len__(self) -> int:
        return len(self._by_groups)

    def change(self, subscriber: Subscriber, join: Collection[Group], leave: Iterable[Group]) -> list[Group]:
        """Put `subscriber` into some groups and take it out of others; returns those that it has left."""
        audience: Audience | None = subscriber.audience
        present = frozenset() if audience is None else audience.groups
        left = [group for group in leave if group in present]
        groups = present.union(join).difference(left)
        if groups == present:
            return left
        for group in left:
            group.size -= 1
        for group in groups - present:
            group.size += 1
        if audience is not None:
            del audience.members[subscriber]
            if not audience.members:
                self._drop(audience)
        subscriber.audience = self._find(groups) if groups else None
        if groups:
            subscriber.audience.members[subscriber] = None
        return left

    def _find(self, groups: frozenset[Group]) -> Audience:
        audience = self._by_groups.get(groups)
        if audience is None:
            audience = self._by_groups[groups] = Audience(groups)
            for group in groups:
                group.audiences[audience] = None
        return audience

    def _drop(self, audience: Audience) -> None:
        del self._by_groups[audience.groups]
        for group in audience.groups:
            del group.audiences[audience]


def is_member(subscriber: Subscriber, group: Group) -> bool:
    """Whether `subscriber` is in `group`."""
    return subscriber.audience is not None and group in subscriber.audience.groups


def _read_depth(data: bytes) -> DepthMessage | None:
    try:
        return DepthMessage.parse(data)
    except Exception:  # a publication that `--validate warn` let through
        return None


class LiveStream:
    """A stream that is wanted from the source: its groups, who waits to join, and whether publications flow."""

    __slots__ = (
        "confirmed",
        "drops",
        "drops_logged",
        "gap",
        "groups",
        "holders",
        "joins",
        "linger",
        "loss",
        "name",
        "reader",
    )

    def __init__(self, name: str, reader: PublicationReader, loss: LossPolicy) -> None:
        self.name = name
        self.loss = loss
        self.reader = reader
        self.groups: dict[tuple[str, bool, int], Group] = {}
        self.joins: dict[Join, None] = {}
        self.holders = 0  # memberships and joins, one for each spelling
        self.confirmed = False
        self.gap: tuple[str, int] | None = None  # reason, and since when in ms since 1970
        self.linger: IDelayedCall | None = None
        self.drops = 0  # since they were last logged
        self.drops_logged = float("-inf")

    def group(self, spelling: str, enveloped: bool, window: int) -> Group:
        key = (spelling, enveloped, window)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(self, *key)
        return group


class Join:
    """A client's wish to join streams, until the source has confirmed them."""

    __slots__ = ("answer", "enveloped", "finished", "missing", "settled", "since", "streams", "subscriber", "timer")

    def __init__(
        self,
        subscriber: Subscriber,
        enveloped: bool,
        answer: Callable[[dict[str, Group]], None],
        settled: Callable[[], None],
        since: int,
    ) -> None:
        self.subscriber = subscriber
        self.enveloped = enveloped
        self.answer = answer
        self.settled = settled
        self.since = since
        self.streams: dict[str, LiveStream] = {}
        self.missing: dict[LiveStream, None] = {}
        self.timer: IDelayedCall | None = None
        self.finished = False


def send_group(group: Group) -> list[Subscriber]:
    """Send what one group has. Returns the clients who are too slow."""
    frames = group.frames
    group.frames = []
    data = frames[0] if len(frames) == 1 else b"".join(frames)
    size = len(data)
    slow = []
    for audience in group.audiences:
        for member in audience.members:
            if member.direct:
                try:
                    sent = member.send(data)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    member.failed()
                    continue
                if sent != size:
                    member.stalled(data, sent)
            elif not member.wait(group, frames):
                slow.append(member)
    if group.depths:
        group.depths.clear()
    return slow


def send_groups(dirty: list[Group]) -> list[Subscriber]:
    """Send what several groups have, each client's share in one write. Returns the clients who are too slow."""
    slow: list[Subscriber] = []
    touched: list[Audience] = []
    for group in dirty:
        frames = group.frames
        group.data = frames[0] if len(frames) == 1 else b"".join(frames)
        for audience in group.audiences:
            batch = audience.batch
            if not batch:
                touched.append(audience)
            batch.append(group)
    for audience in touched:
        slow += _send_batch(audience)
    for group in dirty:
        group.frames = []
        group.data = b""
        if group.depths:
            group.depths.clear()
    return slow


def _send_batch(audience: Audience) -> list[Subscriber]:
    """Send an audience what its groups have. Returns those who are too slow."""
    batch = audience.batch
    audience.batch = []
    data = batch[0].data if len(batch) == 1 else b"".join([group.data for group in batch])
    size = len(data)
    slow = []
    for member in audience.members:
        if member.direct:
            try:
                sent = member.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                member.failed()
                continue
            if sent != size:
                member.stalled(data, sent)
        elif not all(member.wait(group, group.frames) for group in batch):
            slow.append(member)
    return slow
