"""Subscriptions and fan-out: who watches which stream, and one publication on its way to all of them.

1. A stream is wanted from the source while somebody holds it (`registry`). Its subscribers form groups, one for each
   spelling, shape and rate; a publication is framed once per group (`groups`), or goes through a window (`windows`).
2. Publications wait in their groups until `flush`, then each client gets all of them in one write (`fanout`). Within a
   stream the order is the order of arrival.
3. Whatever joins or leaves flushes first; then, in one call, the membership is changed and the answer written
   (`subscribe`).
4. What is published is kept for those who come later: history and state of a stream are as new as its last publication.
5. What may be missing is said before what comes behind it (`gaps`).
6. One client's failure ends that client only, and a publication that fails is a gap of its own stream. Nothing here
   raises into a source because of either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from marketfeed.boundaries import Answers, Clock, Dated, Entry, NoBook, Pasts, Source, Statistics, Subscriber
from marketfeed.hub.flush_sampler import FlushSampler
from marketfeed.hub.groups import Audiences, Group, frame_for, is_member
from marketfeed.hub.join import Join
from marketfeed.hub.market_facts import MarketFacts
from marketfeed.hub.overview import Overview
from marketfeed.hub.pasts import OwnPasts
from marketfeed.hub.portions import Portions, Work
from marketfeed.hub.publishing import Publishing
from marketfeed.hub.queries import Queries
from marketfeed.hub.stream import LiveStream
from marketfeed.hub.subscribe import Subscriptions
from marketfeed.hub.translations import Translations
from marketfeed.hub.upstream import HubLimits, Upstream
from marketfeed.hub.windows import Window, Windows, windows_of
from marketfeed.model.book_state import BookState
from marketfeed.model.streams import StreamKinds, StreamName
from marketfeed.runtime.logs import Log
from marketfeed.wire.dialects import Shape

__all__ = ["Hub", "HubLimits"]

_SWEEP_SECONDS = 1.0


class Hub(Service):
    """Brings publications from the source to the subscribers. The source's `Sink`, and the sessions' `HubPort`.

    `overview`: what operators are shown; `counts`, `drops`: what has happened; `pasts`: what other processes may ask.
    """

    log = Log()

    def __init__(
        self, clock: Clock, limits: HubLimits, now: Callable[[], float] = time.time, kinds: StreamKinds | None = None
    ) -> None:
        self.limits = limits
        self._clock = clock
        self._now = now
        self._upstream = upstream = Upstream(clock, limits, now, kinds or StreamKinds(), self)
        self._registry = upstream.registry
        self._gaps = upstream.gaps
        self._derivations = upstream.derivations
        self._faults = upstream.faults
        self.portions = Portions(clock, self._faults)
        self.pasts = OwnPasts(upstream, limits)
        self._translations = Translations(clock, upstream, self.pasts)
        self._subscriptions = Subscriptions(clock, upstream, self.portions, self, self._translations, limits.strict)
        self._queries = Queries(clock, upstream, limits.strict)
        self._audiences = Audiences()
        self._windows = Windows(clock, self)
        self._expiring: Work | None = None
        self._sweeper = LoopingCall(self._sweep)
        self._sweeper.clock = clock
        self.counts = upstream.counts
        self._sampler = FlushSampler(upstream.counts, now, limits.max_payload)
        self._publishing = publishing = Publishing(upstream, self._sampler, self, now)
        # The source's `Sink`; attributes, so that nothing stands between a publication and what takes it.
        self.publish, self.flush, self.behind = publishing.publish, publishing.flush, publishing.behind
        self.drops = upstream.drops.counts
        self.overview = Overview(upstream, self._audiences, now)

    def feed_from(self, source: Source) -> None:
        """Say where publications come from. Called once, before the first client."""
        self._upstream.feed_from(source)

    def ask(self, others: Pasts) -> None:
        """Say who besides this process has given offsets to its clients. Called once, before the first client."""
        self._translations.ask(others)

    @property
    def epochs(self) -> str:
        """What all epochs of this process begin with, up to a full stop."""
        return self._upstream.histories.epochs

    def allow_streams(self, most: int) -> None:
        """Let so many distinct streams have holders. Those that have some stay."""
        self._registry.max_distinct = most

    def startService(self) -> None:
        Service.startService(self)
        self._registry.open()
        self._sweeper.start(_SWEEP_SECONDS, now=False)

    def stopService(self) -> None:
        Service.stopService(self)
        self.hasten(self._registry.all)
        self._windows.close()
        self._queries.close()
        if self._sweeper.running:
            self._sweeper.stop()
        self.portions.close()
        self._subscriptions.close()
        self._translations.close()
        self._upstream.readiness.close()
        self._registry.close()
        self._upstream.drops.close()
        self._faults.close()

    @property
    def streams(self) -> frozenset[str]:
        """The streams that have clients at this moment, or are kept ready."""
        return self._registry.in_use

    # Joining and leaving, as `HubPort` has it.

    def join(
        self,
        subscriber: Subscriber,
        shape: Shape,
        streams: Mapping[str, StreamName],
        answers: Answers,
        *,
        since: Mapping[str, str] | None = None,
        wants_state: bool = False,
        rewind: int = 0,
    ) -> Join:
        join = Join(subscriber, shape, answers, since or {}, wants_state, rewind=rewind)
        sources = {}
        for spelling, name in streams.items():
            sources[spelling] = name if name.made_from is None else name.source
            if name.rate:
                join.rates[spelling] = name.rate
            if name.view:
                join.views[spelling] = name.view
        self._subscriptions.begin(join, sources)
        return join

    def cancel(self, join: Join) -> None:
        self._subscriptions.cancel(join)

    def unsubscribe(self, subscriber: Subscriber, groups: Iterable[Group]) -> None:
        self.flush()
        left = list(groups)
        subscriber.forget(left)
        self.change(subscriber, (), left)

    def leave(self, subscriber: Subscriber, groups: Iterable[Group]) -> None:
        self.change(subscriber, (), groups)

    def reshape(self, subscriber: Subscriber, groups: Iterable[Group], shape: Shape) -> dict[str, Group]:
        self.flush()
        moved, left = {}, []
        for group in groups:
            if not is_member(subscriber, group):
                continue  # the flush has ended this client
            other = group.stream.group(group.spelling, shape, group.window, group.wants_state, group.rate, group.view)
            moved[group.spelling] = other
            if other is not group:
                group.stream.hold(None)
                left.append(group)
        self.change(subscriber, moved.values(), left)
        return moved

    def change(self, subscriber: Subscriber, join: Collection[Group], leave: Iterable[Group] = ()) -> None:
        """Put a client into groups, whose streams are held for it, and take it out of others."""
        left = self._audiences.change(subscriber, join, leave)
        for group in join:  # before others leave: what waits in a window goes with its last group
            if group.rate:
                self._windows.include(group)
            if group.stream.payer is None:  # as who paid left, this client was not in it yet
                group.stream.pay(subscriber)
        for group in left:
            group.stream.drop_if_empty(group)
            if group.rate and not group.audiences:
                self._windows.exclude(group)
        if left:
            self._registry.release_all([group.stream for group in left], subscriber)

    # What was, and what is.

    def history(
        self, name: StreamName, limit: int, max_bytes: int, before: str | None = None
    ) -> Deferred[list[Entry] | None]:
        return self._queries.history(name, limit, max_bytes, before)

    def book(self, name: StreamName) -> Deferred[BookState | NoBook]:
        """The book of a depth stream, which is wanted for a while from now on; or why there is none after some seconds.

        Whoever does not want it any more cancels it.
        """
        return self._queries.book(name)

    @property
    def books(self) -> Iterator[tuple[str, BookState]]:
        """The order books that are known, each with its market. What waits to be merged may show one incomplete."""
        return self._queries.books

    def first_from(self, name: StreamName, time: int, limit: int, max_bytes: int) -> Deferred[list[Dated] | None]:
        """The first publications that came at `time`, in ms since 1970, or later: at most `limit`, of `max_bytes` in
        all, oldest first. What only this process keeps is kept for a while from now on.

        None: where they are kept is out of reach, or there is no room for another stream.
        """
        return self._queries.first_from(name, time, limit, max_bytes)

    def last_until(self, name: StreamName, time: int, limit: int, max_bytes: int) -> Deferred[list[Dated] | None]:
        """The same of the last ones that came at `time` or earlier."""
        return self._queries.last_until(name, time, limit, max_bytes)

    # What is due besides of few publications (`Besides`).

    def failed(self, stream: LiveStream, offset: str | None) -> None:
        """A publication of `stream` has raised, which is being handled: some of its clients, at least, miss it."""
        self._upstream.drops.failed(stream)
        stream.fail(offset)
        self._derivations.touch(stream)
        self.has_missed(stream, stream.heard, self._now())

    def tell_over(self) -> None:
        """Say that gaps are over."""
        self._gaps.tell_over(int(self._now() * 1000))

    def has_missed(self, stream: LiveStream, since: float, now: float) -> None:
        """Something is missing in `stream`: say so before what is about to be published."""
        self.hasten((stream, *stream.derived))
        self._gaps.jumped(stream, int(since * 1000), int(now * 1000), self._clock.seconds())

    def push(self, stream: LiveStream, snapshot: bytes) -> None:
        """Publish a state to those who want states."""
        self._sampler.pass_over()  # what it stands behind came before
        self._derivations.touch(stream)
        self.release(windows_of((stream,)))
        wanting = [group for group in stream.groups.values() if group.wants_state]
        for view in {group.view for group in wanting}:
            made = stream.made(view)
            data = snapshot if made is None else made.state(snapshot, stream.heard)
            those = [group for group in wanting if group.view is view]
            frame_for(those, data, stream.history.latest or "", self._publishing.dirty)

    # Those who want it less often.

    def release(self, windows: Iterable[Window]) -> None:
        """Let what is in `windows` go with the next flush."""
        windows = list(windows)
        self.catch_up([window.stream for window in windows])
        for window in windows:
            try:
                window.release(self._publishing.dirty)
            except Exception:
                self.failed(window.stream, None)

    def ticked(self, windows: Iterable[Window]) -> None:
        """Their time has come: let what is in them go, now."""
        self._sampler.pass_over()  # it came before
        self.release(windows)
        self.flush()

    def hasten(self, streams: Iterable[LiveStream]) -> None:
        """Send what is pending, and what waits for its time in the windows of `streams`."""
        if self._derivations.touched:
            self.look_at_books()  # which may put something into their windows
        self.release(windows_of(streams))
        self.flush()

    def catch_up(self, streams: Iterable[LiveStream]) -> None:
        """Let those of `streams` that are made of books be as new as these are."""
        stale = [stream for stream in streams if stream.is_stale]
        if stale:
            self._tell_unknown(self._derivations.catch_up(stale, self._publishing.dirty))

    def look_at_books(self) -> None:
        """Publish what is made of the books that have changed."""
        self._tell_unknown(self._derivations.look(self._publishing.dirty))

    def _tell_unknown(self, unknown: list[LiveStream]) -> None:
        """These have lost sight of their books, after what they have published."""
        if self._gaps.over:
            self.tell_over()
        if unknown:
            self.hasten(unknown)
            self._gaps.opened(unknown)

    def forget(self, stream: LiveStream) -> None:
        """Keep nothing of a stream that is wanted no longer."""
        self._publishing.forget_flushed()  # its groups, perhaps, and they hold it

    # What else the source says: see `upstream`.

    def confirmed(self, stream: str, after: str | None = None) -> None:
        self._upstream.confirmed(stream, after)

    def missed(self, stream: str, seconds: float) -> None:
        self._upstream.missed(stream, seconds)

    def discovered(self, stream: str) -> None:
        self._upstream.discovered(stream)

    def refused(self, stream: str, why: str) -> None:
        self._upstream.refused(stream, why)

    def reached(self, link: str) -> None:
        self._upstream.reached(link)

    def lost(self, since: int, streams: Collection[str], link: str) -> None:
        self._upstream.lost(since, streams, link)

    # What is known of the candle service.

    @property
    def facts(self) -> MarketFacts:
        """What is known of markets besides what their engine says."""
        return self._upstream.facts

    def know(self, others: Statistics) -> None:
        """Say who knows more of markets than their books. Called once, before the first client."""
        self._upstream.facts.others = others

    @property
    def candle_streams(self) -> list[str]:
        """The streams that it is to publish, because they have holders here."""
        return self._upstream.absence.wanted

    def candles_lost(self, since: int) -> None:
        """It is not there, since then, in ms since 1970."""
        self.flush()
        self._upstream.absence.begin(since)

    def candles_found(self) -> None:
        """It is there."""
        self._upstream.absence.end()
        self.flush()

    # What is due once a second.

    def _sweep(self) -> None:
        try:
            if self._expiring is None:
                self._expiring = self.portions.begin(self._expire())
            self._gaps.tell_jumps(int(self._now() * 1000), self._clock.seconds())
            self._upstream.finder.look_again()
            self._upstream.silence.look()
            self._sampler.look()
        except Exception:  # or it would be the last time
            self.log.failure("internal error")

    def _expire(self) -> Work:
        """Drop what is too old of what is kept: with many streams it is much."""
        try:
            yield from self._upstream.histories.expiring(self._now())
        finally:
            self._expiring = None
