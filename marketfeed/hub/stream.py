"""A stream that is wanted from the source: whether it flows, what is kept of it, and its subscribers.

What a stream has published is kept for those who come later: its history by offset, and for the kinds of which only the
newest or the sum counts, its state (docs/protocol.md). Whether it flows is changed in these ways, and in no other:

| transition | from       | to    | besides                                                                |
|---|---|---|---|
| `confirm`  | new, gap   | flows | where anything may be missing, history and state begin anew            |
| `confirm`  | flows      | flows | only where the source skips something, which has been told: the same   |
| `miss`     | flows      | flows | something was lost, which has been told, and it goes on as before      |
| `fail`     | any        | same  | a publication was not passed on: nobody resumes from before it         |
| `lose`     | new, flows | gap   | it is out of reach, or late; of a gap that is open only the reason may |
|            |            |       | become another one                                                     |
| `refuse`   | any        | gap   | it is not permitted; a gap that was open keeps its beginning           |
| `fall_silent` | flows   | same  | it has a gap all the same, for nobody publishes (`silence`, `absence`) |
| `speak`    | flows      | same  | and has that gap no longer                                             |

`jump` and `untold` say what of a jump of the ids is to be told now, `seek` and `found` whether the state is looked for.
`hold` and `release` count for how many it is there, and see who pays (`shares`). What every publication changes,
`heard` and `was_lost`, is written by `Publishing.publish` as well, which has no time to ask.
"""

from __future__ import annotations

from typing import Protocol

from marketfeed.boundaries import Statistics, Subscriber
from marketfeed.hub.counts import KindCounts
from marketfeed.hub.groups import Group, GroupKey
from marketfeed.hub.history import History
from marketfeed.hub.shares import Share
from marketfeed.hub.views import Made, new_view
from marketfeed.model.kinds.kind import StreamKind, View
from marketfeed.model.publications import PublicationReader
from marketfeed.model.sequence import recorder
from marketfeed.wire.dialects import Shape
from marketfeed.wire.messages import GapReason

__all__ = ["LiveStream", "OpenGap", "Tap"]

_TOLD_SECONDS = 1.0
"""A gap in the ids of a stream is told this often at most."""

_OPERATOR = object()

OpenGap = tuple[str, int]
"""The reason, and since when in ms since 1970."""


class Tap(Protocol):
    """Who gets every publication of a stream, and is no group. While it `is_open`, nothing of it is due."""

    is_open: bool

    def add(self, data: bytes, offset: str) -> None:
        """One more; `offset`: empty where there are none."""


class _Nothing:
    """Statistics of which nothing is known."""

    def of(self, market: str) -> dict[str, bytes]:
        return {}


_NOTHING = _Nothing()


class LiveStream:
    """A stream of which something may come, or is known not to."""

    __slots__ = (
        "_missed", "_told", "_views", "at_once", "confirmed", "counts", "derived", "gap", "groups", "heard", "history",
        "holders", "is_sought", "is_stale", "kind", "loss", "name", "payer", "reader", "record", "share", "state",
        "statistics", "taps", "was_lost",
    )  # fmt: skip

    def __init__(
        self, name: str, reader: PublicationReader, kind: StreamKind, history: History, counts: KindCounts | None = None
    ) -> None:
        self.name = name
        self.counts = counts or KindCounts()  # of its kind
        self.kind = kind
        self.loss = kind.loss
        self.reader = reader
        self.history = history
        self.state = kind.new_state()
        self.record = recorder(self.state, kind.ids)
        self.groups: dict[GroupKey, Group] = {}
        self.at_once: list[Group] = []  # those of them that get each publication as it comes
        self.taps: dict[object, Tap] = {}  # who else does: the windows of the others, by their rates
        self.statistics: Statistics = _NOTHING
        self._views: dict[View, Made | None] = {}
        self.derived: list[LiveStream] = []  # what is made of it here (`derived`), and shares its gaps
        self.is_stale = False  # of such a one: something has come of which it is made, and was not looked at yet
        self.holders = 0  # memberships and joins, one for each spelling
        self.payer: object = None  # the subscriber who pays for it, and out of which share
        self.share: Share | None = None
        self.confirmed = False
        self.is_sought = False  # its state is being looked for
        self.gap: OpenGap | None = None
        self.was_lost = False  # publications may have been missed since the last one, and clients were told so
        self.heard = 0.0  # seconds since 1970, when it last published or was confirmed
        self._missed: int | None = None  # ms since 1970, the beginning of a gap in the ids that is not told yet
        self._told = float("-inf")  # when one was last told

    def is_settled(self, with_state: bool) -> bool:
        """Nothing is under way that a client who wants to join, `with_state` or without, would have to wait for."""
        if not self.confirmed:
            return self.gap is not None
        return not ((with_state or self.kind.always_has_state) and self.has_state_sought)

    @property
    def looking_cost(self) -> int:
        """What it takes to look at that of which it is made, in µs, about."""
        return 0

    # Whether it flows.

    def confirm(self, now: float, after: str | None) -> OpenGap | None:
        """The source delivers it, from behind `after` on; returns the gap that is over. `now`: s since 1970."""
        if self.history.confirm(after):
            self._lose_track()
        self.confirmed = True
        if self.was_lost:  # otherwise what comes next follows the last publication
            self.heard = now
        gap, self.gap = self.gap, None
        return gap

    def miss(self, now: float) -> None:
        """Something of it was lost, up to now, in s since 1970."""
        self.heard = now
        if self.history.miss():
            self._lose_track()

    def fail(self, offset: str | None) -> None:
        """A publication with this offset, where there are offsets, was not passed on, at least not to everybody."""
        self.history.fail(offset)
        if self.state is not None:
            self.state.lose()

    def lose(self, since: int) -> bool:
        """Nothing comes any more, since then, in ms since 1970. Whether a gap has opened."""
        self._stop()
        if self.gap is not None and self.gap[0] not in GapReason.WHILE_FLOWING:
            return False
        self.gap = (GapReason.SOURCE_DOWN, since if self.gap is None else self.gap[1])
        return True

    def refuse(self, since: int) -> bool:
        """Nothing comes, for it is not permitted. Whether that is new; a gap that was open began when it did."""
        self._stop()
        if self.gap is not None and self.gap[0] == GapReason.SOURCE_REFUSED:
            return False
        self.gap = (GapReason.SOURCE_REFUSED, since if self.gap is None else self.gap[1])
        return True

    def fall_silent(self, reason: str, since: int) -> bool:
        """Nobody publishes on it, since then, in ms since 1970. Whether a gap has opened."""
        if not self.confirmed or self.gap is not None:
            return False
        self.gap = (reason, since)
        return True

    def speak(self, reason: str) -> OpenGap | None:
        """Somebody does again; returns the gap that is over, if it was of this reason."""
        gap = self.gap
        if gap is None or gap[0] != reason:
            return None
        self.gap = None
        return gap

    def _stop(self) -> None:
        if self.confirmed:
            self.confirmed = False
            if self.state is not None and self.history.is_counted:  # an archive says later what was missed
                self.state.lose()

    def _lose_track(self) -> None:
        self.was_lost = True
        if self.state is not None:
            self.state.lose()

    # Gaps in its ids.

    def jump(self, since: int, seconds: float) -> int | None:
        """Its ids jump, from what it published at `since`, in ms since 1970; `seconds`: now, of any clock.

        Returns the beginning of what is to be told now, all that was not told before; None: it is told later.
        """
        if self._missed is None:
            self._missed = since
        return self.untold(seconds)

    def untold(self, seconds: float) -> int | None:
        """The beginning of what is to be told now; None: nothing is, or it was told a moment ago."""
        since = self._missed
        if since is None or seconds - self._told < _TOLD_SECONDS:
            return None
        self._missed = None
        self._told = seconds
        return since

    # Its state.

    @property
    def has_state_sought(self) -> bool:
        """Whether its state, or that of which it is made, is being looked for."""
        return self.is_sought

    def seek(self) -> None:
        """Its state is being looked for."""
        self.is_sought = True

    def found(self) -> None:
        """It is not any more, found or not."""
        self.is_sought = False

    def completed(self) -> bytes | None:
        """The state, which a snapshot has completed. What does not continue it is news again."""
        snapshot = None if self.state is None else self.state.snapshot()
        if snapshot is not None:
            self.was_lost = False
        return snapshot

    # For whom it is there.

    def hold(self, payer: Subscriber | None) -> None:
        """One holder more, on this client's wish."""
        self.holders += 1
        if payer is not None and (self.payer is None or self.share is not payer.share):
            self.pay(payer)

    def release(self, payer: Subscriber | None) -> bool:
        """One holder less, which was this client's wish. Whether there are others; if it paid, one of them does."""
        self.holders -= 1
        if not self.holders:
            self._pay_out_of(None, None)
        elif payer is not None and payer is self.payer:
            members = (
                each for group in self.groups.values() for audience in group.audiences for each in audience.members
            )
            heir = next(members, None)  # None: one on its way will pay, when it is in
            self._pay_out_of(heir, None if heir is None else heir.share)
        return self.holders > 0

    def pay(self, subscriber: Subscriber) -> None:
        """`subscriber` is in, or on its way: it pays, where nobody does, or somebody who has paid for more."""
        share, present = subscriber.share, self.share
        if self.payer is None or (share is not None and present is not None and share.paid + 1 < present.paid):
            self._pay_out_of(subscriber, share)

    def keep(self) -> None:
        """The operator has the stream, for good: no client pays for it."""
        self._pay_out_of(_OPERATOR, None)

    def _pay_out_of(self, payer: object, share: Share | None) -> None:
        if self.share is not None:
            self.share.paid -= 1
        self.payer, self.share = payer, share
        if share is not None:
            share.paid += 1

    # Its subscribers.

    def made(self, view: View) -> Made | None:
        """What makes publications as those get them who have this view; None: nothing, they are the engine's."""
        if view not in self._views:
            self._views[view] = new_view(view, self.name, self.history, self.state, self.statistics)
        return self._views[view]

    def name_in(self, view: View) -> str:
        """The name of the stream that those have who have this view."""
        return self.name if view is not View.AGG_TRADE else f"aggTrade@{self.name.partition('@')[2]}"

    def group(
        self,
        spelling: str,
        shape: Shape,
        window: int,
        wants_state: bool,
        rate: int = 0,
        view: View = View.ENGINE,
    ) -> Group:
        """The group of those who spell it so, and get it so."""
        key = (spelling, shape, window, wants_state, rate, view)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(self, *key)
            if group.made is not None:
                group.made.enter()
            if not rate:
                self.at_once.append(group)
        return group

    def drop_if_empty(self, group: Group) -> None:
        """One of its groups has lost a member."""
        if not group.audiences:
            del self.groups[group.key]
            if group.made is not None:
                group.made.leave()
            if not group.rate:
                self.at_once.remove(group)
