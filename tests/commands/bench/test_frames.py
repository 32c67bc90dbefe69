"""Messages read: any chunks give what the whole gives, and what is alike is read once."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.commands.bench.frames import UNKNOWN, Batch, BatchReader
from marketfeed.commands.frames import CLOSE, PING, PONG, BadFrames
from tests.by_hand import CONTINUATION
from tests.commands.test_frames import frame

STREAMS = ["trade@A", "depth@A", "trade@B"]


def trade(number: int, market: str = "A", padding: int = 0) -> bytes:
    data = b'{"e":"trade","t":%d,"T":5.250,"m":true,"p":"1","q":"2","s":"%b","x":"%b"}'
    return data % (number, market.encode(), b"x" * padding)


def enveloped(stream: str, data: bytes) -> bytes:
    return b'{"stream":"%b","data":%b}' % (stream.encode(), data)


def read_all(chunks: Iterable[bytes], reader: BatchReader) -> list[Batch]:
    """What a client does with what arrives."""
    batches, rest = [], b""
    for chunk in chunks:
        rest += chunk
        batch = reader.read(rest)
        rest = rest[batch.size :]
        batches.append(batch)
    assert rest == b""
    return batches


def total(batches: list[Batch]) -> tuple[object, ...]:
    """All that was read, whatever the chunks; runs number by number."""
    numbers = {
        stream: [n for batch in batches for at, first, after in batch.runs if at == stream for n in range(first, after)]
        for stream in range(len(STREAMS))
    }
    times = [time for batch in batches for time, count in batch.times for _ in range(count)]
    return (
        sum(batch.publications for batch in batches),
        sum(batch.numbers for batch in batches),
        numbers,
        times,
        [message for batch in batches for message in batch.others],
        [ping for batch in batches for ping in batch.pings],
    )


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[bytes], tuple[object, ...]]:
    """What a server sends, as frames, and what that says."""
    numbers: dict[int, list[int]] = {0: [], 1: [], 2: []}
    times: list[float] = []
    others: list[bytes] = []
    pings: list[bytes] = []
    frames: list[bytes] = []
    for _ in range(draw(st.integers(0, 12))):
        kind = draw(st.sampled_from(["publication", "publication", "publication", "other", "ping", "pong"]))
        if kind == "ping":
            pings.append(draw(st.binary(max_size=20)))
            frames.append(frame(pings[-1], PING))
            continue
        if kind == "pong":
            frames.append(frame(b"", PONG))
            continue
        if kind == "other":
            message = draw(st.sampled_from([b'{"result":null,"id":1}', b'{"stream":"!gap","data":{"e":"gap"}}']))
            others.append(message)
        else:
            stream = draw(st.integers(0, 2))
            number = draw(st.integers(1, 10**6))
            numbers[stream].append(number)
            times.append(5.25)
            padding = draw(st.sampled_from([0, 10, 50, 200, 66000]))
            if stream == 1:
                message = enveloped("depth@A", b'{"e":"depth","T":5.25,"a":[],"b":[],"U":%d,"u":%d}' % (number, number))
            else:
                message = enveloped(STREAMS[stream], trade(number, STREAMS[stream][-1], padding))
        frames += draw(spellings(message, pings))
    publications = sum(map(len, numbers.values()))
    return frames, (publications, publications, numbers, times, others, pings)


@st.composite
def spellings(draw: st.DrawFn, message: bytes, pings: list[bytes]) -> list[bytes]:
    """The frames of one message: one, several with a ping amid them, or a deflated one."""
    how = draw(st.sampled_from(["whole", "whole", "deflated", "fragmented"]))
    if how == "deflated":
        deflater = zlib.compressobj(wbits=-15)
        deflated = deflater.compress(message) + deflater.flush(zlib.Z_SYNC_FLUSH)
        return [frame(deflated.removesuffix(b"\0\0\xff\xff"), deflated=True)]
    if how == "whole":
        return [frame(message)]
    cut = draw(st.integers(0, len(message)))
    pings.append(b"amid")
    return [frame(message[:cut], fin=False), frame(b"amid", PING), frame(message[cut:], CONTINUATION)]


@settings(deadline=None)
@given(conversations(), st.data())
def test_any_chunks_give_the_same(conversation: tuple[list[bytes], tuple[object, ...]], data: st.DataObject) -> None:
    """Wherever the network cuts the bytes, nothing is missed, doubled or changed."""
    frames, expected = conversation
    sent = b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=12)))
    chunks = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert total(read_all(chunks, BatchReader(STREAMS))) == expected


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(noise: bytes) -> None:
    """Nothing else is raised, and no more is read than there is."""
    try:
        batch = BatchReader(STREAMS).read(noise)
    except BadFrames:
        return
    assert 0 <= batch.size <= len(noise)


class TestMessages:
    def read(self, *messages: bytes, streams: list[str] = STREAMS) -> Batch:
        return BatchReader(streams).read(b"".join(map(frame, messages)))

    def test_numbers_of_a_stream_are_one_run_whatever_comes_between(self) -> None:
        """Ten streams in turn cost ten comparisons, not one for each message."""
        batch = self.read(
            *(enveloped(stream, trade(number, stream[-1])) for number in (5, 6, 7) for stream in ("trade@A", "trade@B"))
        )
        assert batch.runs == [(0, 5, 8), (2, 5, 8)]
        assert batch.times == [(5.25, 6)]
        assert batch.is_plain

    def test_what_is_not_in_order_is_not_joined(self) -> None:
        """Whoever judges the order has to see it."""
        batch = self.read(*(enveloped("trade@A", trade(number)) for number in (5, 6, 6, 9, 10)))
        assert batch.runs == [(0, 5, 7), (0, 6, 7), (0, 9, 11)]

    def test_a_merged_depth_update_has_all_its_numbers(self) -> None:
        """From its U to its u: what was merged is not lost."""
        batch = self.read(enveloped("depth@A", b'{"e":"depth","U":4,"u":9,"a":[],"b":[]}'))
        assert (batch.publications, batch.numbers, batch.runs) == (1, 6, [(1, 4, 10)])

    def test_a_depth_update_may_have_its_last_number_only(self) -> None:
        """U is not required."""
        assert self.read(enveloped("depth@A", b'{"e":"depth","u":9,"a":[],"b":[]}')).runs == [(1, 9, 10)]

    def test_a_snapshot_tells_where_its_stream_is(self) -> None:
        """It has no number of its own, and is not joined with what follows."""
        snapshot = b'{"e":"depth","U":8,"u":8,"snapshot":true,"a":[],"b":[]}'
        update = b'{"e":"depth","U":%d,"u":%d,"a":[],"b":[]}'
        batch = self.read(*(enveloped("depth@A", data) for data in (update % (4, 5), snapshot, update % (9, 9))))
        assert (batch.publications, batch.numbers) == (3, 3)
        assert batch.runs == [(1, 4, 6), (1, 9, 9), (1, 9, 10)]

    def test_the_raw_dialect_tells_kind_and_market_only(self) -> None:
        """There is no envelope; events and replies are none of the market's."""
        batch = self.read(trade(3), b'{"e":"depthUpdate","s":"A","u":8,"a":[],"b":[]}', b'{"e":"gap","streams":[]}')
        assert batch.runs == [(0, 3, 4), (1, 8, 9)]
        assert batch.others == [b'{"e":"gap","streams":[]}']

    def test_a_stream_is_found_under_the_spelling_that_was_asked_for(self) -> None:
        """An envelope echoes it; the raw dialect has the market's own name."""
        reader = BatchReader(["a@trade"])
        assert reader.read(frame(enveloped("a@trade", trade(3)))).runs == [(0, 3, 4)]
        assert reader.read(frame(trade(4))).runs == [(0, 4, 5)]

    def test_kinds_that_have_no_numbers(self) -> None:
        """A ticker, and a kind that only the server knows, are publications all the same."""
        batch = self.read(
            enveloped("ticker@A", b'{"e":"ticker","c":"1","s":"A","T":7}'),
            enveloped("funding@A", b'{"t":5}'),
            streams=["ticker@A", "funding@A"],
        )
        assert (batch.publications, batch.numbers, batch.runs, batch.times) == (2, 0, [], [(7.0, 1)])

    def test_streams_that_nobody_asked_for(self) -> None:
        """They are told apart from those that somebody did."""
        batch = self.read(enveloped("trade@C", trade(3, "C")), trade(3, "C"), b'{"e":"trade","t":1}')
        assert batch.runs == [(UNKNOWN, 0, 0)] * 3
        assert batch.publications == 3

    def test_blanks_are_allowed(self) -> None:
        """As other servers write JSON."""
        batch = self.read(b'{ "stream" : "trade@A", "data" : {"e": "trade", "t" : 12, "T": 1700000000000}}')
        assert (batch.runs, batch.times) == ([(0, 12, 13)], [(1.7e12, 1)])

    def test_the_numbers_that_were_seen_are_noted(self) -> None:
        """Of an existing market it is not known otherwise which numbers there are."""
        seen: list[set[int]] = [set() for _ in STREAMS]
        reader = BatchReader(STREAMS, seen)
        for _ in range(2):
            reader.read(frame(enveloped("trade@A", trade(3))) + frame(enveloped("trade@A", trade(9))))
        assert seen == [{3, 9}, set(), set()]


class TestBatches:
    def test_the_same_bytes_are_read_once(self) -> None:
        """A thousand clients of a stream share what was read."""
        reader = BatchReader(STREAMS)
        data = frame(enveloped("trade@A", trade(3)))
        other = frame(enveloped("trade@A", trade(4)))
        first = reader.read(data)
        assert reader.read(bytes(bytearray(data))) is first
        assert reader.read(other) is not first
        assert reader.read(data) is first

    def test_what_is_remembered_is_bounded(self) -> None:
        """However long a test takes."""
        reader = BatchReader(STREAMS)
        first = reader.read(frame(enveloped("trade@A", trade(0))))
        for number in range(1, 2000):
            reader.read(frame(enveloped("trade@A", trade(number))))
        assert reader.read(frame(enveloped("trade@A", trade(0)))) is not first

    def test_a_close_ends_what_is_read(self) -> None:
        """Nothing counts behind it; its code is told, 1005 when there is none."""
        batch = BatchReader(STREAMS).read(frame(b"\x0f\xa8slow", CLOSE) + frame(trade(1)))
        assert (batch.close, batch.publications, batch.is_plain) == (4008, 0, False)
        assert BatchReader(STREAMS).read(frame(b"", CLOSE)).close == 1005
