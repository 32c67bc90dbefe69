"""The subscribers of a stream, put together by what they get: one publication is framed once for each group.

1. A stream has a group for each spelling, shape, compression, rate and view. Every member of it gets the same bytes.
   Groups whose compressed bytes are equal share them, and all of one view those of a large publication.
2. Clients who are in the same groups are one audience, for whom the write of a flush is put together once. Most are:
   they look at the same page.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final

from marketfeed.boundaries import Subscriber
from marketfeed.model.conflation import reader_in
from marketfeed.model.kinds.kind import View
from marketfeed.model.merging import Message
from marketfeed.wire.deflate import (
    LARGE,
    compressed_body,
    compressed_frame,
    frame_around,
    inflate,
    shared_window,
    useful_window,
)
from marketfeed.wire.dialects import Shape, offset_tail, publication_head, split_tail
from marketfeed.wire.frames import HEADERS, text_frame, text_header

if TYPE_CHECKING:
    from marketfeed.hub.stream import LiveStream

__all__ = ["Audience", "Audiences", "Group", "GroupKey", "Shared", "frame_for", "is_member", "overhead"]

_FEW: Final = len(HEADERS)
_HEADER = 10  # bytes of a frame's header, at most
_ENVELOPE = len('{"stream":"","data":}')
_ADDED = 640  # bytes of the fields that may be missing in a publication, at most
_OFFSET = 64  # bytes of an offset in its envelope, at most


Shared = dict[tuple[tuple[View, Shape, str] | View, int], bytes]
"""What is compressed of one publication, by the bits of the window that are of use: frames, by what stands in them, and
the data of a large one, by their view."""
GroupKey = tuple[str, Shape, int, bool, int, View]
"""The spelling, the shape, the window of deflate, whether states are wanted, the rate, and the view."""


class Group:
    """The subscribers of one stream who get the same bytes."""

    __slots__ = (
        "_is_plain", "_message", "_text", "audiences", "data", "depths", "frames", "has_offsets",
        "head", "leaving", "made", "rate", "shape", "size", "spelling", "stream", "view", "wants_state", "window",
    )  # fmt: skip

    def __init__(
        self,
        stream: LiveStream,
        spelling: str,
        shape: Shape,
        window: int,
        wants_state: bool,
        rate: int = 0,
        view: View = View.ENGINE,
    ) -> None:
        self.window = window  # of deflate, in bits; 0: nothing is compressed
        self.stream = stream
        self.spelling = spelling
        self.shape = shape
        self.wants_state = wants_state  # also when it is known again after a gap
        self.rate = rate  # it gets one message in so many ms (`windows`); 0: each publication
        self.view = view
        self.made = stream.made(view) if view else None  # None: the members get what the engine wrote
        self._message = reader_in(view, stream.kind)
        self.head = publication_head(spelling)
        self.has_offsets = shape is Shape.OFFSET and stream.history.has_offsets
        self._text = (view, shape, "" if shape is Shape.DATA else spelling)  # equal where what is compressed is equal
        self._is_plain = shape is Shape.ENVELOPE and not window
        self.audiences: dict[Audience, None] = {}
        self.size = 0  # members
        self.frames: list[bytes] = []
        self.leaving: list[bytes] = []  # the frames that the present flush has taken
        self.data = b""  # the same, put together
        self.depths: dict[bytes, Message | None] = {}  # what the present flush has read

    @property
    def key(self) -> GroupKey:
        return self.spelling, self.shape, self.window, self.wants_state, self.rate, self.view

    @property
    def name(self) -> str:
        """The name of what the members get, which is what a token permits."""
        return self.stream.name_in(self.view)

    def published(self, data: bytes, offset: str, shared: Shared | None = None) -> bytes:
        """The newest publication's data, as the engine wrote them, made into what the members get. See `framed`."""
        made = self.made
        if made is not None:
            data = made.newest(data)
        if self._is_plain:
            head = self.head
            size = len(head) + len(data) + 1
            return b"".join((HEADERS[size] if size < _FEW else text_header(size), head, data, b"}"))
        return self.framed(data, offset, shared)

    def framed(self, data: bytes, offset: str, shared: Shared | None = None) -> bytes:
        """A publication's data, as they are in the members' view, in a frame.

        `shared`: what other groups of the stream have compressed of this publication, and what this one adds.
        """
        if self._is_plain:
            head = self.head
            size = len(head) + len(data) + 1
            return b"".join((HEADERS[size] if size < _FEW else text_header(size), head, data, b"}"))
        if self.shape is Shape.DATA:
            payload = data
        else:
            payload = b"".join((self.head, data, offset_tail(offset) if self.has_offsets else b"}"))
        if not self.window:
            return text_frame(payload)
        if shared is None:
            return compressed_frame(payload, self.window) or text_frame(payload)
        if len(data) >= LARGE:
            return self._framed_around(data, offset, shared) or text_frame(payload)
        key = (self._text, useful_window(len(payload), self.window))
        frame = shared.get(key)
        if frame is None:
            frame = shared[key] = compressed_frame(payload, self.window) or text_frame(payload)
        return frame

    def _framed_around(self, data: bytes, offset: str, shared: Shared) -> bytes | None:
        """The frame of a large publication whose data are compressed once for all; None where they grow by it."""
        key = (self.view, shared_window(self.window))
        body = shared.get(key)
        if body is None:
            body = shared[key] = compressed_body(data, self.window)
        if len(body) >= len(data):
            return None
        if self.shape is Shape.DATA:
            return frame_around(b"", body, b"")
        return frame_around(self.head, body, offset_tail(offset) if self.has_offsets else b"}")

    def depth(self, frame: bytes) -> Message | None:
        """What a frame of this group, whose kind says how messages are merged, holds; None if that cannot be read.

        It is read once in a flush for all members who are behind, and shared: copy it before merging others into it.
        """
        if frame not in self.depths:
            self.depths[frame] = self._read(self._split(frame)[0])
        return self.depths[frame]

    def offset(self, frame: bytes) -> str:
        """The offset that a frame of this group says, if its shape has one."""
        return self._split(frame)[1] if self.has_offsets else ""

    def _read(self, data: bytes) -> Message | None:
        try:
            return self._message(data)
        except Exception:  # a publication that `--validate warn` let through
            return None

    def _split(self, frame: bytes) -> tuple[bytes, str]:
        payload = inflate(frame)
        if self.shape is Shape.DATA:
            return payload, ""
        return split_tail(payload[len(self.head) :], Shape.OFFSET if self.has_offsets else Shape.ENVELOPE)


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
        self.memberships = 0

    def __len__(self) -> int:
        return len(self._by_groups)

    def change(self, subscriber: Subscriber, join: Collection[Group], leave: Iterable[Group]) -> list[Group]:
        """Put `subscriber` into some groups and take it out of others; returns those that it has left."""
        audience = subscriber.audience
        if audience is None:
            return self._enter(subscriber, frozenset(join))
        present = audience.groups
        left = [group for group in leave if group in present] if leave else []
        groups = present.union(join).difference(left)
        if groups == present:
            return left
        self.memberships += len(groups) - len(present)
        for group in left:
            group.size -= 1
        for group in groups - present:
            group.size += 1
        del audience.members[subscriber]
        if not audience.members:
            self._drop(audience)
        audience = subscriber.audience = self._find(groups) if groups else None
        if audience is not None:
            audience.members[subscriber] = None
        return left

    def _enter(self, subscriber: Subscriber, groups: frozenset[Group]) -> list[Group]:
        """Put one who is in no group yet into some; it leaves none."""
        if groups:
            self.memberships += len(groups)
            for group in groups:
                group.size += 1
            audience = subscriber.audience = self._find(groups)
            audience.members[subscriber] = None
        return []

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


def frame_for(groups: Iterable[Group], data: bytes, offset: str, dirty: list[Group]) -> None:
    """Let `groups`, all of one stream, have this publication; those that had nothing to send are added to `dirty`."""
    shared: Shared = {}
    for group in groups:
        frame = group.framed(data, offset if group.has_offsets else "", shared)
        if not group.frames:
            dirty.append(group)
        group.frames.append(frame)


def is_member(subscriber: Subscriber, group: Group) -> bool:
    """Whether `subscriber` is in `group`."""
    return subscriber.audience is not None and group in subscriber.audience.groups


def overhead(spelling: str, shape: Shape, view: View = View.ENGINE) -> int:
    """The most bytes that a frame has besides a publication's data; in a view, what is usually added to these, too."""
    added = _ADDED if view else 0
    if shape is Shape.DATA:
        return _HEADER + added
    return _HEADER + _ENVELOPE + len(spelling) + (_OFFSET if shape is Shape.OFFSET else 0) + added
