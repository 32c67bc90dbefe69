"""What becomes of what is heard: lines, gaps, files, times, and the end."""

from __future__ import annotations

import errno
import gzip
from pathlib import Path

import pytest

from marketfeed.commands.recording.format import Begin, End, Gap, Publication, Record, read_records
from marketfeed.commands.recording.output import FileNames, OutputFile
from marketfeed.commands.recording.recorder import Moments, Recorder, Rotation
from marketfeed.model.selection import StreamSelection

NOON = 1_790_000_000_000_000 // 3_600_000_000 * 3_600_000_000  # a full hour
SECOND = 1_000_000


class Clocks:
    """The machine's two clocks; `wall` may be put anywhere."""

    def __init__(self) -> None:
        self.wall = NOON + SECOND
        self.monotonic = 77

    def pass_(self, seconds: float) -> None:
        self.wall += round(seconds * SECOND)
        self.monotonic += round(seconds * SECOND)

    def moments(self) -> Moments:
        return Moments(lambda: self.wall * 1000, lambda: self.monotonic * 1000)


class World:
    """A recorder of `texts` into a directory; `ended`: how often it has said that it cannot go on."""

    def __init__(
        self, directory: Path, *texts: str, rotation: Rotation | None = None, prefix: bytes = b"", name: str = ""
    ) -> None:
        self.clocks = Clocks()
        self.directory = directory
        self.names = FileNames(str(directory / (name or "%H%M%S.gz")))
        self.new_file = self.names.open
        self.ended = 0
        self.recorder = Recorder(
            StreamSelection(texts or ("*",)),
            prefix,
            lambda moment: self.new_file(moment),
            rotation or Rotation(),
            self.clocks.moments(),
            self.end,
        )

    def end(self) -> None:
        self.ended += 1

    def complete(self) -> None:
        self.recorder.arrived()
        self.recorder.complete()
        self.recorder.flush()

    def hear(self, stream: bytes = b"trade@A", payload: bytes = b"1", subscription: bytes = b"*") -> None:
        self.recorder.arrived()
        self.recorder.publication(subscription, stream, payload)
        self.recorder.flush()

    def files(self) -> list[list[Record]]:
        """What is in the files, in the order of their names."""
        return [
            [record for _, record in read_records([path.read_bytes()])] for path in sorted(self.directory.iterdir())
        ]


def test_a_recording_from_begin_to_end(tmp_path: Path) -> None:
    """It begins when everything is subscribed, and has the bytes and their times."""
    world = World(tmp_path)
    world.hear(payload=b"too early")
    world.clocks.pass_(1)
    world.complete()
    world.clocks.pass_(0.25)
    world.hear(b"trade@A", b'{"p":"1.50"}')
    world.hear(b"\xff", b"\x00")
    world.clocks.pass_(1)
    world.recorder.close()
    begin = NOON + 2 * SECOND
    assert world.files() == [
        [
            Begin(begin, 1, ("*",)),
            Publication(begin + SECOND // 4, b"trade@A", b'{"p":"1.50"}'),
            Publication(begin + SECOND // 4, b"\xff", b"\x00"),
            End(begin + 5 * SECOND // 4, 2),
        ]
    ]
    recorder = world.recorder
    assert (recorder.publications, recorder.payload_bytes, recorder.gaps, recorder.files) == (2, 13, 0, 1)
    assert recorder.written == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert (world.ended, recorder.fault) == (0, "")


def test_what_is_flushed_survives(tmp_path: Path) -> None:
    """A file whose recorder was killed has all up to the last flush, and nothing of what came later."""
    world = World(tmp_path)
    world.complete()
    world.hear(payload=b"1")
    world.recorder.tick()
    world.hear(payload=b"2")
    (path,) = tmp_path.iterdir()
    assert gzip.decompress(path.read_bytes()).count(b"\n") == 2
    assert world.files()[0][1:] == [Publication(NOON + SECOND, b"trade@A", b"1")]
    world.hear(payload=bytes(1 << 20))
    assert len(world.files()[0]) == 4, "enough is flushed at once"


def test_a_recording_without_a_server(tmp_path: Path) -> None:
    """It is a recording of nothing."""
    world = World(tmp_path, rotation=Rotation(seconds=2))
    world.recorder.lost(world.clocks.wall / SECOND)
    world.clocks.pass_(5)
    world.recorder.tick()
    world.recorder.close()
    assert world.files() == [[Begin(NOON + 6 * SECOND, 1, ("*",)), End(NOON + 6 * SECOND, 0)]]


@pytest.mark.parametrize("texts", [("trade@*", "*", "trade@A"), ("trade@A", "*", "trade@*"), ("*", "trade@A")])
def test_each_publication_is_recorded_once(tmp_path: Path, texts: tuple[str, ...]) -> None:
    """However many of the subscriptions cover it; the prefix is not the stream's."""
    world = World(tmp_path, *texts, prefix=b"x*:")
    world.complete()
    for text in sorted(texts, key=lambda text: "*" in text):
        subscription = b"x\\*:" + text.encode() if "*" in text else b"x*:" + text.encode()
        world.hear(b"x*:trade@A", b"1", subscription)
    world.hear(b"x*:depth@A", b"2", b"x\\*:*")
    world.recorder.close()
    assert [(record.stream, record.data) for record in world.files()[0][1:-1] if isinstance(record, Publication)] == [
        (b"trade@A", b"1"),
        (b"depth@A", b"2"),
    ]


class TestGaps:
    def test_a_gap_is_from_when_all_was_known_until_all_is_subscribed(self, tmp_path: Path) -> None:
        """Of several losses the earliest counts; what comes before the last confirmation is in it."""
        world = World(tmp_path)
        world.complete()
        world.clocks.pass_(2)
        world.recorder.tick()
        for moment in (2.0, 1.5, 2.5):
            world.recorder.lost(NOON / SECOND + 1 + moment - 0.5)
        world.clocks.pass_(1)
        world.hear()
        world.clocks.pass_(1)
        world.complete()
        world.complete()
        world.recorder.close()
        now = NOON + 5 * SECOND
        assert world.files()[0][1:] == [
            Publication(now - SECOND, b"trade@A", b"1"),
            Gap(now, NOON + 2 * SECOND, now),
            End(now, 1),
        ]
        assert world.recorder.gaps == 1

    @pytest.mark.parametrize(("good_for", "since"), [(0.25, 1.0), (1.5, 1.5)])
    def test_a_gap_begins_no_later_than_the_server_had_all(self, tmp_path: Path, good_for: float, since: float) -> None:
        """But not before the recording was complete."""
        world = World(tmp_path)
        start = world.clocks.wall
        world.clocks.pass_(1)
        world.complete()
        world.clocks.pass_(2)
        world.recorder.lost((start + good_for * SECOND) / SECOND)
        world.clocks.pass_(1)
        world.complete()
        world.recorder.close()
        (gap,) = (record for record in world.files()[0] if isinstance(record, Gap))
        assert (gap.since, gap.until) == (start + since * SECOND, start + 4 * SECOND)

    def test_every_file_admits_its_part(self, tmp_path: Path) -> None:
        """A gap that lasts into another file, and to the end of the recording."""
        world = World(tmp_path, rotation=Rotation(seconds=10))
        world.complete()
        world.recorder.lost(world.clocks.wall / SECOND)
        world.clocks.pass_(10)
        world.recorder.tick()
        world.clocks.pass_(1)
        world.recorder.close()
        first, second = world.files()
        turn = NOON + 11 * SECOND
        assert first[1:] == [Gap(turn, NOON + SECOND, turn), End(turn, 0)]
        assert second == [Begin(turn, 2, ("*",)), Gap(turn + SECOND, turn, turn + SECOND), End(turn + SECOND, 0)]
        assert world.recorder.gaps == 1


class TestRotation:
    def test_by_time(self, tmp_path: Path) -> None:
        """At full multiples; what arrives then is in the new file, and an idle recording rotates as well."""
        world = World(tmp_path, rotation=Rotation(seconds=10))
        world.complete()
        world.clocks.pass_(8.9)
        world.hear(payload=b"1")
        world.clocks.pass_(0.1)
        world.hear(payload=b"2")
        world.clocks.pass_(10)
        world.recorder.tick()
        world.recorder.close()
        assert [[record.data for record in file if isinstance(record, Publication)] for file in world.files()] == [
            [b"1"],
            [b"2"],
            [],
        ]
        assert [file[0] for file in world.files()] == [
            Begin(NOON + seconds * SECOND, number, ("*",)) for number, seconds in ((1, 1), (2, 10), (3, 20))
        ]
        assert [file[-1].publications for file in world.files() if isinstance(file[-1], End)] == [1, 1, 0]
        assert world.recorder.files == 3
        assert world.recorder.written == sum(path.stat().st_size for path in tmp_path.iterdir())

    def test_by_size(self, tmp_path: Path) -> None:
        """Once a file has it."""
        world = World(tmp_path, rotation=Rotation(size=1000), name="%f.jsonl")
        world.complete()
        for number in range(100):
            world.clocks.pass_(1e-6)
            world.hear(payload=b"%d" % number)
        world.recorder.close()
        read = [record.data for file in world.files() for record in file if isinstance(record, Publication)]
        assert read == [b"%d" % number for number in range(100)]
        sizes = [path.stat().st_size for path in sorted(tmp_path.iterdir())]
        assert len(sizes) > 3
        assert all(1000 <= size < 1200 for size in sizes[:-1])

    def test_a_finished_file_is_not_touched_again(self, tmp_path: Path) -> None:
        """Not a byte of it changes."""
        world = World(tmp_path, rotation=Rotation(seconds=10))
        world.complete()
        world.hear()
        world.clocks.pass_(10)
        world.recorder.tick()
        first = min(tmp_path.iterdir())
        before = first.read_bytes(), first.stat().st_mtime_ns
        world.hear()
        world.recorder.close()
        assert (first.read_bytes(), first.stat().st_mtime_ns) == before


class TestTimes:
    def test_a_clock_that_is_put_back(self) -> None:
        """Time goes on from where it was, as fast as ever."""
        clocks = Clocks()
        moments = clocks.moments()
        clocks.wall -= 3600 * SECOND
        assert moments.now() == NOON + SECOND
        clocks.pass_(2)
        assert moments.now() == NOON + 3 * SECOND
        moments.set()
        assert moments.now() == NOON + 3 * SECOND - 3600 * SECOND

    def test_a_clock_that_is_put_forward(self) -> None:
        """Time follows it."""
        clocks = Clocks()
        moments = clocks.moments()
        clocks.wall += 3600 * SECOND
        assert moments.now() == NOON + 3601 * SECOND

    def test_another_file_begins_with_the_true_time(self, tmp_path: Path) -> None:
        """And no gap ends before it begins."""
        world = World(tmp_path, rotation=Rotation(seconds=10))
        world.complete()
        world.recorder.lost(world.clocks.wall / SECOND)
        world.clocks.wall -= 3600 * SECOND
        world.clocks.monotonic += 9 * SECOND
        world.recorder.tick()
        world.complete()
        world.recorder.close()
        earlier, later = world.files()
        assert later[-2:] == [Gap(NOON + 10 * SECOND, NOON + SECOND, NOON + 10 * SECOND), End(NOON + 10 * SECOND, 0)]
        now = NOON + SECOND - 3600 * SECOND
        assert earlier == [Begin(now, 2, ("*",)), Gap(now, now, now), End(now, 0)]


class TestTheEnd:
    def test_a_refusal_at_the_beginning(self, tmp_path: Path) -> None:
        """It ends the recording, and is not asked for again."""
        world = World(tmp_path, "depth@*", prefix=b"x:")
        assert world.recorder.refused(b"x:depth@*", "NOPERM no") is False
        assert world.ended == 1
        assert world.recorder.fault == "Redis refuses the subscription to depth@*: NOPERM no"
        world.recorder.close()
        assert world.files() == [[]]

    def test_a_refusal_later_on(self, tmp_path: Path) -> None:
        """It is a loss like others."""
        world = World(tmp_path)
        world.complete()
        assert world.recorder.refused(b"*", "NOPERM no") is True
        assert world.ended == 0
        world.recorder.close()

    def test_a_disk_that_is_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It ends the recording once; nothing more is written."""
        world = World(tmp_path)
        world.complete()

        def fail(self: OutputFile, data: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(OutputFile, "_put", fail)
        world.recorder.tick()
        world.recorder.tick()
        world.hear()
        world.recorder.close()
        assert world.ended == 1
        (path,) = tmp_path.iterdir()
        assert world.recorder.fault == f"{path}: No space left on device"
        assert path.read_bytes() == b""

    def test_a_next_file_that_cannot_be_made(self, tmp_path: Path) -> None:
        """The fault names that file; the one before is finished."""
        world = World(tmp_path, rotation=Rotation(seconds=10))
        world.complete()

        def fail(moment: int) -> OutputFile:
            raise PermissionError(errno.EACCES, "Permission denied", "next.gz")

        world.new_file = fail
        world.clocks.pass_(10)
        world.hear()
        world.recorder.close()
        assert world.ended == 1
        assert world.recorder.fault == "next.gz: Permission denied"
        assert world.files() == [[Begin(NOON + SECOND, 1, ("*",)), End(NOON + 11 * SECOND, 0)]]

    def test_a_reader_that_is_gone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """That is no fault."""
        world = World(tmp_path)
        world.complete()

        def fail(self: OutputFile, data: bytes) -> None:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        monkeypatch.setattr(OutputFile, "_put", fail)
        world.recorder.tick()
        assert (world.ended, world.recorder.fault) == (1, "")
