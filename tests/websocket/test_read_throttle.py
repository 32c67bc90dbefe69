"""The throttle alone, on a clock, and in a connection: nothing is lost by it or told in another order."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock

from marketfeed.websocket.read_throttle import REST_SECONDS, ReadRate, ReadThrottle
from tests.by_hand import CLOSE, CONTINUATION, PING, PONG, TEXT, close_code, frame, say
from tests.limits import session_limits
from tests.strategies import property_test
from tests.websocket.server import SECONDS_TO_CLOSE, Server, Wire

BURST = 250
"""Frames that the default limits let one peer send at once."""
FEW = session_limits(request_rate=10, request_burst=200)


def answered(server: Server, wire: Wire) -> int:
    """How many frames come from now on until the peer is read from again."""
    count = len(wire.frames)
    for _ in range(10_000):
        if wire.reading:
            return count
        server.clock.advance(REST_SECONDS)
        count += len(wire.frames)
    raise AssertionError("it is never read from again")


class TestReadRate:
    @pytest.mark.parametrize(("rate", "burst"), [(10, 200), (0.001, 1), (1000, 5000)])
    def test_who_may_send_requests_is_not_held_up(self, rate: float, burst: int) -> None:
        """All at once, and then as many a second as are permitted, each with a ping behind it."""
        server = Server(limits=session_limits(request_rate=rate, request_burst=burst))
        wire = server.open()
        wire.receive(burst * say({"method": "PING"}))
        assert wire.reading
        assert len(wire.frames) == burst
        for _ in range(100):
            server.clock.advance(1 / rate)
            wire.receive(say({"method": "PING"}) + frame(b"", PING))
            assert wire.reading
            assert len(wire.frames) == 2

    def test_refusals_come_faster_than_new_permits(self) -> None:
        """Or a flood of requests would be refused for ever, and never ended."""
        rate = ReadRate.permitting(10, 200, 65536)
        assert 2 * rate.step * 20 < 1 / 10


class Peer:
    """A throttle of eight steps at once, and eight a second; `read_on` is called when the peer is to be read again."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.reading = True
        self.rests = 0
        self.throttle = ReadThrottle(self.clock, ReadRate(step=0.125, burst=1.0, most=2.0), cast(IPushProducer, self))

    def pauseProducing(self) -> None:
        assert self.reading
        self.reading = False

    def resumeProducing(self) -> None:
        assert not self.reading
        self.reading = True

    def admits(self, steps: int = 1) -> bool:
        return self.throttle.admits(self.read_on, steps)

    def read_on(self) -> None:
        self.rests += 1

    def take_all(self) -> int:
        """How many steps it may take now."""
        return sum(1 for _ in iter(self.admits, False))


class TestReadThrottle:
    def test_a_burst_and_then_a_rest(self) -> None:
        """Of a tenth of a second, in which nothing is read; then it is read on, before its socket is."""
        peer = Peer()
        assert peer.take_all() == 8
        assert peer.throttle.is_resting
        assert not peer.reading
        peer.clock.advance(REST_SECONDS)
        assert peer.rests == 1
        assert peer.reading
        assert not peer.throttle.is_resting
        assert not peer.clock.getDelayedCalls()

    def test_the_long_run(self) -> None:
        """Whoever takes all that it may has eight steps a second, and one rest after the other."""
        peer = Peer()
        taken = 0
        for _ in range(1000):
            taken += peer.take_all()
            peer.clock.advance(REST_SECONDS)
        assert 800 <= taken <= 809
        assert peer.rests == 1000

    def test_a_message_that_has_been_read_is_counted(self) -> None:
        """Whole, though it is more than may be taken: the rest lasts as long as it would have taken."""
        peer = Peer()
        assert peer.admits(steps=16)
        peer.clock.advance(0.99)
        assert not peer.admits()
        peer.clock.advance(0.02)
        assert peer.admits()

    def test_pauses_end_when_all_are_over(self) -> None:
        """Its own and those of others, in any order."""
        peer = Peer()
        peer.throttle.pause()
        peer.take_all()
        peer.throttle.pause()
        peer.throttle.resume()
        peer.clock.advance(REST_SECONDS)
        assert peer.rests == 1
        assert not peer.reading
        peer.throttle.resume()
        assert peer.reading

    def test_nothing_is_read_when_the_connection_is_gone(self) -> None:
        """And no timer waits."""
        peer = Peer()
        peer.take_all()
        peer.throttle.close()
        peer.throttle.close()
        assert not peer.clock.getDelayedCalls()

    @pytest.mark.parametrize("back", [1.0, 3600.0, 1e9])
    def test_a_clock_that_is_set_back_deafens_nobody(self, back: float) -> None:
        """A peer waits for as long as if it had sent the most that it may, and is read at its rate again."""
        peer = Peer()
        peer.clock.rightNow = 2e9
        assert all(peer.admits() for _ in range(8))
        peer.clock.rightNow -= back
        assert not peer.admits()
        peer.clock.pump([REST_SECONDS] * 20)
        assert peer.reading
        assert peer.admits()


class TestFloods:
    @pytest.mark.parametrize("payload", [b"", b"x" * 125])
    def test_pings_are_answered_but_not_at_once(self, payload: bytes) -> None:
        """What comes with one read beyond the burst waits, and meanwhile nothing more is read."""
        server = Server(limits=FEW)
        wire = server.open()
        wire.receive(30 * frame(payload, PING))
        assert len(wire.frames) == 30
        wire.receive(600 * frame(b"", PING))
        assert not wire.reading
        assert len(wire.frames) <= BURST - 30
        server.clock.advance(REST_SECONDS)
        assert 0 < len(wire.frames) < BURST / 4
        wire.hang_up()
        server.assert_empty()

    @pytest.mark.parametrize("what", ["pings", "pongs", "fragments", "empty fragments", "texts"])
    def test_a_flood_is_read_slowly_and_to_its_end(self, what: str) -> None:
        """Any frame counts; when all is read the peer is read from again, and has lost nothing."""
        server = Server(limits=session_limits(request_rate=10, request_burst=200))
        wire = server.open()
        flood = {
            "pings": frame(b"", PING) * 600,
            "pongs": frame(b"", PONG) * 600,
            "fragments": frame(b" ", fin=False) + frame(b" ", CONTINUATION, fin=False) * 599,
            "empty fragments": frame(b"", fin=False) + frame(b"", CONTINUATION, fin=False) * 599,
            "texts": say({"method": "PING"}) * 190 + frame(b"", PONG) * 410,
        }[what]
        end = frame(b'{"method":"PING"}', CONTINUATION if "fragments" in what else TEXT)
        began = server.clock.seconds()
        wire.receive(flood + end)
        assert not wire.reading
        frames = []
        while not wire.reading:
            server.clock.advance(REST_SECONDS)
            frames += wire.frames
        assert server.clock.seconds() - began > 1
        assert frames[-1] == (TEXT, b'{"result":"PONG"}')
        wire.hang_up()
        server.assert_empty()

    def test_pongs_that_come_one_by_one_count(self) -> None:
        """They are read past Autobahn's parser; held up, they come together."""
        server = Server(limits=FEW)
        wire = server.open()
        count = 0
        while wire.reading:
            wire.receive(frame(b"", PONG, mask=b"\0\0\0\0"))
            count += 1
        assert BURST < count <= 2 * BURST + 1
        server.clock.advance(REST_SECONDS)
        assert wire.reading
        wire.hang_up()
        server.assert_empty()

    def test_the_size_of_a_message_counts(self) -> None:
        """As inflated: a full message is read, and then its sender has a rest."""
        server = Server(limits=FEW, max_message=10**6)
        wire = server.open()
        wire.receive(frame(b"[" * 600_000) + frame(b"", PING))
        assert not wire.reading
        ((opcode, _),) = wire.frames
        assert opcode == TEXT
        server.clock.advance(REST_SECONDS)
        assert not wire.reading
        assert answered(server, wire) == 1
        wire.hang_up()
        server.assert_empty()

    def test_what_follows_a_close_is_read_slowly_as_well(self) -> None:
        """Its sender has some seconds to answer the close, and then is dropped, with what it sent unread."""
        server = Server(limits=FEW)
        wire = server.open()
        wire.receive(frame(b"\xff") + 10_000 * frame(b"x"))
        ((opcode, payload),) = wire.frames
        assert (opcode, close_code(payload)) == (CLOSE, 1007)
        assert not wire.reading
        server.clock.advance(1)
        assert len(wire.protocol.data) > 5000
        server.clock.pump([REST_SECONDS] * int(SECONDS_TO_CLOSE / REST_SECONDS))
        wire.settle()
        server.assert_empty()

    def test_a_close_behind_a_flood_is_heard(self) -> None:
        """In its turn."""
        server = Server(limits=FEW)
        wire = server.open()
        wire.receive(400 * frame(b"", PONG) + frame(b"\x03\xe8", CLOSE))
        while wire.lost is None:
            server.clock.advance(REST_SECONDS)
            wire.settle()
        assert wire.closed_with == 1000
        server.assert_empty()

    def test_two_pauses_end_when_both_are_over(self) -> None:
        """The session's, for a SUBSCRIBE that waits, and this one."""
        server = Server(limits=FEW)
        wire = server.open()
        wire.receive(say({"method": "SUBSCRIBE", "params": ["trade@A"]}) + 16 * say({"method": "PING"}))
        assert not wire.reading
        wire.protocol.dataReceived(600 * frame(b"", PONG))  # which TLS had already
        while wire.protocol.data:
            server.clock.advance(REST_SECONDS)
        server.clock.advance(REST_SECONDS)
        assert not wire.reading
        server.source.confirm()
        assert wire.reading
        assert len(wire.messages) == 17
        wire.hang_up()
        server.assert_empty()

    @property_test
    @given(
        st.lists(st.sampled_from((frame(b"", PING), frame(b"p", PING), say({"method": "PING"}))), max_size=40),
        st.integers(1, 200),
    )
    def test_nothing_is_lost_or_out_of_order(self, said: list[bytes], chunk: int) -> None:
        """However tight the pace, the answers are those of a peer that is not held up."""
        replies = []
        for burst in (100_000, 1):
            server = Server(limits=session_limits(request_rate=10, request_burst=100_000))
            server.factory.read_rate = ReadRate(0.01, 0.01 * burst, 0.01 * burst)
            wire = server.open()
            data = b"".join(said)
            frames = []
            for start in range(0, len(data), chunk):
                wire.receive(data[start : start + chunk])
                while not wire.reading:
                    server.clock.advance(REST_SECONDS)
                frames += wire.frames
            replies.append(frames)
            wire.hang_up()
            server.assert_empty()
        assert replies[0] == replies[1]
