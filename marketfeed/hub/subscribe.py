"""Clients on their way into streams: asked for, confirmed, caught up with, and then in, in one call.

1. A join takes effect whole or not at all. Its streams are held from the beginning, so that nothing flaps meanwhile.
2. A request for many streams is taken up a portion at a time, between which everybody else is served.
3. A client is in when the source has confirmed its streams, and their state has been looked for where it asks for it.
   Where that takes too long, or the source is out of reach, it joins all the same and hears of the gap that is open.
4. Offsets that another process gave are made into own ones before (`translations`), where that can be done.
5. Then, without yielding: what is pending is flushed, the membership changes, and the reply, what was missed or the
   state, and the open gaps are written. Nothing is missed between them, nothing comes twice.
6. Books that the client gets are written before that, in turns of their own, and so is what it has missed (`join`).
7. A join that fails in what is written for it is the end of that client only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Archive, Clock
from marketfeed.hub.alignment import DIGESTS
from marketfeed.hub.gaps import tell_open
from marketfeed.hub.groups import is_member, overhead
from marketfeed.hub.join import Join, TooLarge
from marketfeed.hub.portions import Portions, Work
from marketfeed.hub.recovery import Recovery, ReplayRoom
from marketfeed.hub.rewind import Rewind
from marketfeed.hub.translations import Translations
from marketfeed.hub.upstream import Fanout, Upstream
from marketfeed.model.streams import StreamName

__all__ = ["Subscriptions"]

_PAUSE_SECONDS = 0.05
"""Between two questions for a client who is ahead of the history: together with the number of them, some 3 s."""
_FEW = 100
"""Streams that are asked for at once. With more of them it is `_PORTION` in one turn of the reactor, of all joins."""
_PORTION = 50
_TRANSLATED = DIGESTS * 16
"""Bytes that are put together to make one offset of another process an own one."""


class Subscriptions:
    """All the joins of a process. `portions` does what takes long."""

    def __init__(
        self,
        clock: Clock,
        upstream: Upstream,
        portions: Portions,
        fanout: Fanout,
        translations: Translations,
        strict: bool,
    ) -> None:
        self._clock = clock
        self._upstream = upstream
        self._registry = upstream.registry
        self._readiness = upstream.readiness
        self._faults = upstream.faults
        self._portions = portions
        self._fanout = fanout
        self._translations = translations
        self._strict = strict
        self._queue: deque[Join] = deque()
        self._turn: IDelayedCall | None = None
        self._unfinished: dict[Join, None] = {}

    def begin(self, join: Join, streams: Mapping[str, StreamName]) -> None:
        """Let a client join `streams` (spelling → stream); perhaps it is finished when this returns.

        Raises `TooManyStreams`.
        """
        if len(streams) > _FEW:
            self._registry.reserve(streams.values(), join.subscriber.share)
            join.asked.extend(streams.items())
            self._unfinished[join] = None
            self._queue.append(join)
            self._go_on()
        else:
            self._registry.check(streams.values(), join.subscriber.share)
            self._unfinished[join] = None
            subscriber, known = join.subscriber, self._registry.hold_known
            for spelling, name in streams.items():
                stream = None if join.finished else known(name, subscriber)
                if stream is None:
                    self._hold(join, spelling, name)
                else:
                    join.streams[spelling] = stream
            if not join.finished:
                self._wait(join)
        join.is_late = not join.finished

    def cancel(self, join: Join) -> None:
        """The client of an unfinished join is gone."""
        if not join.finished:
            self._finish(join)
            for stream in join.streams.values():
                self._registry.release(stream, join.subscriber)

    def close(self) -> None:
        """Nobody joins any more."""
        for join in list(self._unfinished):
            self.cancel(join)
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    # Asking for the streams.

    def _go_on(self) -> None:
        if self._turn is None:
            self._turn = self._clock.callLater(0, self._next_turn)

    def _next_turn(self) -> None:
        self._turn = None
        left = _PORTION
        while self._queue and left:
            join = self._queue[0]
            left -= 0 if join.finished else self._hold_portion(join, left)
            if join.finished or not join.asked:
                self._queue.popleft()
                if not join.finished:
                    self._guarded(join, self._wait)
        if self._queue:
            self._go_on()

    def _hold_portion(self, join: Join, most: int) -> int:
        count = 0
        while join.asked and count < most:
            spelling, name = join.asked.popleft()
            self._hold(join, spelling, name)
            self._registry.unreserve(name, join.subscriber.share)
            count += 1
        return count

    def _hold(self, join: Join, spelling: str, name: StreamName) -> None:
        stream = self._registry.hold(name, join.subscriber)
        if join.finished:  # ended by what a source that confirms at once has brought about
            self._registry.release(stream, join.subscriber)
        else:
            join.streams[spelling] = stream

    # Waiting, and catching up.

    def _wait(self, join: Join) -> None:
        ready = partial(self._guarded, join, self._catch_up)
        join.wait = self._readiness.wait_for(join.streams.values(), join.wants_state, ready)
        if join.wait is None:
            self._catch_up(join)

    def _catch_up(self, join: Join) -> None:
        join.wait = None
        if not (join.since or join.wants_state or join.rewind):
            self._complete(join)
            return
        foreign = self._translations.foreign(join.streams, join.since)
        if foreign:
            join.written += len(foreign) * _TRANSLATED
            Deferred.fromCoroutine(self._translate(join, foreign))
        else:
            self._begin_recoveries(join, join.since)

    async def _translate(self, join: Join, foreign: Mapping[str, tuple[str, int]]) -> None:
        """Go on with own offsets, as far as they are known, instead of those of another process."""
        try:
            own = await self._translations.translated(join.streams, foreign)
            if not join.finished:
                self._begin_recoveries(join, {**join.since, **own})
        except Exception:
            self._failed(join)

    def _begin_recoveries(self, join: Join, since: Mapping[str, str]) -> None:
        room = ReplayRoom(join.subscriber.room)
        for spelling, offset in since.items():
            rate, view = join.rates.get(spelling, 0), join.view(spelling)
            around = overhead(spelling, join.shape, view)
            join.recoveries[spelling] = Recovery(join.streams[spelling], offset, room, around, rate, view)
        if join.rewind:
            for spelling, stream in join.streams.items():
                if spelling not in since:
                    view = join.view(spelling)
                    around = overhead(spelling, join.shape, view)
                    join.rewinds[spelling] = Rewind(stream, join.rewind, around, view)
        self._recover_or_write(join)

    def _recover_or_write(self, join: Join) -> None:
        if not (join.finished or self._recovers_more(join)):
            join.work = self._portions.begin(self._writing(join))

    def _recovers_more(self, join: Join) -> bool:
        """Whether something is missing that is in the archive; if so, it is asked for."""
        archive = self._upstream.archive
        wants_more = [each.needs_archive for each in join.recoveries.values()]
        wants_more += [each.needs_archive for each in join.rewinds.values()]
        if archive is None or not any(wants_more):
            return False
        Deferred.fromCoroutine(self._recover(join, archive))
        return True

    def _writing(self, join: Join) -> Work:
        try:
            yield from join.write()
            join.work = None
            if not (join.finished or self._recovers_more(join)):  # for there may have been turns in between
                self._complete(join)
        except TooLarge:
            self._refuse_too_large(join)
        except Exception:
            if not join.is_late:
                raise
            self._failed(join)

    async def _recover(self, join: Join, archive: Archive) -> None:
        try:
            for recovery in join.recoveries.values():
                while recovery.needs_archive and not join.finished:
                    await recovery.ask(archive, self._strict)
                    if recovery.is_ahead:
                        await self._pause(join)
            await self._rewind(join, archive)
            self._recover_or_write(join)
        except Exception:
            self._failed(join)

    async def _rewind(self, join: Join, archive: Archive) -> None:
        """Get what the archive has of the last publications, of each stream as much as may become its share."""
        room = join.subscriber.room // 2
        for left, rewind in zip(range(len(join.rewinds), 0, -1), join.rewinds.values(), strict=True):
            if rewind.needs_archive and not join.finished:
                await rewind.ask(archive, max(0, room) // left, self._strict)
            room -= rewind.size

    def _pause(self, join: Join) -> Deferred[None]:
        """Some time, in which the history may come as far as the client."""
        done = Deferred[None]()
        join.pause = self._clock.callLater(_PAUSE_SECONDS, self._end_pause, join), done
        return done

    @staticmethod
    def _end_pause(join: Join) -> None:
        """Go on with who is in a pause; one that is finished then comes to its end, instead of keeping its client."""
        assert join.pause is not None
        (timer, done), join.pause = join.pause, None
        if timer.active():
            timer.cancel()
        done.callback(None)

    # Joining.

    def _complete(self, join: Join) -> None:
        self._fanout.flush()
        self._fanout.catch_up(join.streams.values())
        if join.finished:
            return  # the flush has ended this client
        try:
            frames, recovered = join.prelude()
        except TooLarge:
            self._refuse_too_large(join)
            return
        subscriber = join.subscriber
        groups = {}
        for spelling, stream in join.streams.items():
            rate, view = join.rates.get(spelling, 0), join.view(spelling)
            groups[spelling] = stream.group(spelling, join.shape, subscriber.window, join.wants_state, rate, view)
        self._finish(join)
        resumed = {each: each in recovered for each in join.since} if join.since else None
        if resumed:
            self._upstream.counts.resumes.update(resumed.values())
        self._fanout.change(subscriber, groups.values())
        rewound = {each: rewind.count for each, rewind in join.rewinds.items()} if join.rewinds else None
        join.answers.joined(groups, resumed, rewound)
        if frames and any(is_member(subscriber, group) for group in groups.values()):
            subscriber.write(b"".join(frames))
        tell_open(subscriber, groups.values())
        if join.is_late:
            join.answers.settled()

    def _refuse_too_large(self, join: Join) -> None:
        self.cancel(join)
        join.answers.refused("the states of these streams are larger than --client-queue; subscribe to fewer")
        if join.is_late:
            join.answers.settled()

    # The end.

    def _finish(self, join: Join) -> None:
        join.finished = True
        self._unfinished.pop(join, None)
        if join.wait is not None:
            self._readiness.cancel(join.wait)
            join.wait = None
        if join.pause is not None:
            self._end_pause(join)
        if join.work is not None:
            self._portions.cancel(join.work)
            join.work = None
        if join.asked:
            for _, name in join.asked:
                self._registry.unreserve(name, join.subscriber.share)
            join.asked.clear()

    def _guarded(self, join: Join, step: Callable[[Join], None]) -> None:
        """A step outside of the client's own request: a fault in it is the end of that client only."""
        try:
            step(join)
        except Exception:
            self._failed(join)

    def _failed(self, join: Join) -> None:
        self._faults.tell("a client failed as its subscription took effect")
        self.cancel(join)
        join.subscriber.failed()
