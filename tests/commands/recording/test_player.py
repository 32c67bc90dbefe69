"""Pace and order of a replay."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.commands.recording.files import Place
from marketfeed.commands.recording.format import Begin, End, Gap, Publication, Record
from marketfeed.commands.recording.player import Pace, Player
from marketfeed.model.selection import StreamSelection
from tests.strategies import property_test

SECOND = 1_000_000
PLACE: Place = ("file", 1)


class FakePublisher:
    """Publishes into a list, with the time. `slowness`: seconds that a publication takes."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slowness = 0.0
        self.published: list[tuple[float, bytes, bytes]] = []
        self.waits: list[float] = []
        self.is_finished = False

    def clock(self) -> float:
        return self.now

    def publish(self, channel: bytes, payload: bytes, place: Place) -> None:
        assert place == PLACE
        self.published.append((self.now - 1000, channel, payload))
        self.now += self.slowness

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def finish(self) -> None:
        self.is_finished = True


def publication(seconds: float, stream: bytes = b"trade@A", data: bytes = b"1") -> Publication:
    return Publication(round(seconds * SECOND), stream, data)


def played(publisher: FakePublisher, pace: Pace | None, *records: Record, **keywords: object) -> Player:
    player = Player(publisher, pace, clock=publisher.clock, **keywords)  # type: ignore[arg-type]
    player.play((PLACE, record) for record in records)
    assert publisher.is_finished
    return player


def times(publisher: FakePublisher) -> list[float]:
    return [round(time, 6) for time, _, _ in publisher.published]


def test_the_original_pace() -> None:
    """The first at once; in silence the clock is looked at, and progress is told, every second."""
    publisher = FakePublisher()
    told: list[float] = []
    player = played(
        publisher,
        Pace(),
        Begin(0, 1, ("*",)),
        publication(100),
        publication(100.25),
        publication(100.25),
        publication(103),
        End(104 * SECOND, 4),
        tell=lambda: told.append(publisher.now),
    )
    assert times(publisher) == [0, 0.25, 0.25, 3]
    assert max(publisher.waits) <= 1
    assert len(told) == 2
    assert (player.published, player.payload_bytes, player.latest) == (4, 4, 0)


@pytest.mark.parametrize(("speed", "expected"), [(10, [0, 0.025, 0.3]), (0.5, [0, 0.5, 6])])
def test_a_multiple(speed: float, expected: list[float]) -> None:
    """Of the speed, not of the time."""
    publisher = FakePublisher()
    played(publisher, Pace(speed), publication(100), publication(100.25), publication(103))
    assert times(publisher) == expected


def test_as_fast_as_it_goes() -> None:
    """Without a wait, in order, byte for byte, behind the prefix."""
    publisher = FakePublisher()
    publisher.slowness = 0.01
    told: list[float] = []
    records = [publication(number, b"\xff", b"%d" % number) for number in range(1000)]
    played(publisher, None, *records, prefix=b"x:", tell=lambda: told.append(publisher.now))
    assert [sent[1:] for sent in publisher.published] == [(b"x:\xff", b"%d" % number) for number in range(1000)]
    assert publisher.waits == []
    assert 2 <= len(told) <= 10


def test_a_server_that_does_not_keep_up() -> None:
    """It is caught up with, and the delay is known."""
    publisher = FakePublisher()
    publisher.slowness = 1.5
    player = played(publisher, Pace(), *map(publication, (0, 1, 2, 10)))
    assert times(publisher) == [0, 1.5, 3, 10]
    assert player.latest == pytest.approx(1)


def test_where_there_is_no_pause() -> None:
    """Before another recording, and where time goes back; the next file of the same recording goes on."""
    publisher = FakePublisher()
    played(
        publisher,
        Pace(),
        publication(100),
        Begin(0, 1, ()),
        publication(5000),
        publication(5001),
        Begin(0, 2, ()),
        publication(5002),
        publication(3),
        publication(4),
    )
    assert times(publisher) == [0, 0, 1, 2, 2, 3]


def test_long_pauses_are_made_short() -> None:
    """Before the speed is applied."""
    publisher = FakePublisher()
    played(publisher, Pace(2, max_pause=10), *map(publication, (0, 4, 4000, 4001)))
    assert times(publisher) == [0, 2, 7, 7.5]


def test_streams_are_chosen() -> None:
    """The others take no time; gaps are counted."""
    publisher = FakePublisher()
    player = played(
        publisher,
        Pace(),
        publication(0, b"depth@A"),
        Gap(5, 1, 5),
        publication(100),
        publication(101, b"depth@A"),
        publication(102),
        selection=StreamSelection(["trade@*"]),
    )
    assert times(publisher) == [0, 2]
    assert (player.published, player.gaps) == (2, 1)


@property_test
@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=20), st.sampled_from((0.5, 1.0, 4.0)))
def test_nothing_is_early(moments: list[int], speed: float) -> None:
    """Dues never go back, and two that follow each other in time are as far apart as they were."""
    pace = Pace(speed)
    dues = [pace.due(moment) for moment in moments]
    assert dues[0] == 0
    for (before, moment), (due, next_due) in zip(pairwise(moments), pairwise(dues), strict=True):
        assert next_due - due == pytest.approx(max(moment - before, 0) / SECOND / speed, abs=1e-6)
