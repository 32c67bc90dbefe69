"""The outbox against a byte-exact reference, and over real connections to a peer that does not read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.internet import reactor as global_reactor
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from marketfeed.boundaries import LONGEST_SEND, WOULD_BLOCK
from marketfeed.hub.counts import Traffic
from marketfeed.hub.groups import Group
from marketfeed.model.kinds.kind import LossPolicy
from marketfeed.runtime.listener import server_endpoint
from marketfeed.websocket.outbox import Outbox
from marketfeed.wire.dialects import Shape
from marketfeed.wire.frames import text_frame
from tests.books import Waiting, update
from tests.certificates import Authority
from tests.fakes import AT, FakeTransport, make_group, payloads
from tests.guard import DEADLINE
from tests.strategies import machine_test

LIMIT = 200_000
CHUNK = 65_536  # what the outbox hands to its transport at a time, a longer frame apart
HELD = 2 * CHUNK  # what Twisted may hold for a connection
CLOSE = b"\x88\x02\x0f\xa8"
TRADES = make_group("trade@A")


def frame(number: int, size: int = 20) -> bytes:
    """A frame whose bytes no other frame has."""
    return text_frame(b"%d:" % number + bytes((97 + number % 26,)) * size)


def frames(first: int, count: int, size: int = 20) -> list[bytes]:
    return [frame(number, size) for number in range(first, first + count)]


class Box:
    """An outbox on its transport, with everything that a test wants to look at."""

    def __init__(self, *, tls: bool = False, limit: int = LIMIT) -> None:
        self.transport = FakeTransport(tls=tls)
        self.socket = self.transport.socket
        self.overflows = 0
        self.backlogs: list[int] = []
        self.drains = 0
        self.traffic = Traffic()
        self.outbox = Outbox(self.transport, limit, self, self.traffic)

    def overflowed(self) -> None:
        self.overflows += 1

    def backlog_changed(self, waiting: int) -> None:
        self.backlogs.append(waiting)

    def drained(self) -> None:
        self.drains += 1

    def notice(self) -> bytes:
        """Nobody here is told."""
        return b""

    def backlog(self, taken: int = 5) -> bytes:
        """Write a frame of which the socket takes only the first bytes."""
        cut = frame(0)
        self.socket.script.append(taken)
        self.outbox.write(cut)
        return cut

    def drain(self) -> None:
        while self.transport.is_writing:
            self.transport.turn()


# One thing at a time.


@pytest.mark.parametrize("tls", [False, True])
def test_the_owner_hears_when_a_backlog_begins_and_ends(tls: bool) -> None:
    """Once each, with the bytes that wait and with 0."""
    box = Box(tls=tls)
    box.backlog(taken=5)
    box.outbox.write(frame(1))
    box.drain()
    assert box.backlogs == [len(frame(0)) - (0 if tls else 5), 0]


@pytest.mark.parametrize("taken", [0, 5])
def test_what_is_sent_is_counted_once_and_who_waits_is_known(taken: int) -> None:
    """As the socket takes it, whichever way it goes."""
    box = Box()
    box.outbox.write(frame(7))
    box.backlog(taken)
    box.outbox.write(frame(1))
    assert box.traffic.sent == len(frame(7)) + len(frame(0)), "the rest is the transport's"
    assert box.traffic.backlogged == {box.outbox}
    box.drain()
    assert box.traffic.sent == len(box.socket.received)
    assert not box.traffic.backlogged


def test_who_is_gone_does_not_wait() -> None:
    box = Box()
    box.backlog()
    box.outbox.close()
    assert not box.traffic.backlogged


def test_a_client_that_keeps_up_is_written_to_past_the_transport() -> None:
    """Nothing waits: each write is one send, and the transport hears nothing."""
    box = Box()
    for each in frames(0, 3):
        box.outbox.write(each)
    assert bytes(box.socket.received) == b"".join(frames(0, 3))
    assert box.outbox.direct
    assert not box.transport.written


@pytest.mark.parametrize("taken", [0, 1, 21])
def test_the_rest_of_a_cut_frame_goes_first_and_in_one_piece(taken: int) -> None:
    """Whatever the socket took, the transport gets the rest at once and asks for what came later when that is sent."""
    box = Box()
    cut = box.backlog(taken)
    assert not box.outbox.direct
    assert box.transport.buffered == cut[taken:]
    box.outbox.write(frame(1))
    assert box.transport.written == [len(cut) - taken]
    assert box.outbox.waiting_bytes == len(cut) - taken + len(frame(1))
    box.drain()
    assert bytes(box.socket.received) == cut + frame(1)
    assert box.outbox.direct
    assert box.outbox.waiting_bytes == 0
    assert box.transport.producer is None


def test_a_drained_client_is_written_to_directly_again() -> None:
    """The outbox takes itself off the transport in the call that finds nothing left, as often as it takes."""
    box = Box()
    for number in range(3):
        box.backlog()
        box.drain()
        box.outbox.write(frame(number))
        assert box.outbox.direct
    assert bytes(box.socket.received) == b"".join(frame(0) + frame(number) for number in range(3))


def test_what_waits_is_handed_over_in_bounded_chunks() -> None:
    """The transport holds one chunk of whole frames at a time, so that what waits can still be dropped."""
    box = Box()
    box.backlog()
    assert box.outbox.wait(TRADES, frames(1, 9, 20_000))
    box.drain()
    assert all(size <= CHUNK for size in box.transport.written)
    assert len(box.transport.written) == 1 + 3


def test_publications_of_a_group_that_was_left_are_dropped_whole() -> None:
    """`forget` takes one group's frames out and leaves all others, replies too, in their order."""
    box, left = Box(), make_group("trade@B")
    cut = box.backlog()
    box.outbox.wait(left, [frame(1), frame(2)])
    box.outbox.wait(TRADES, [frame(3)])
    box.outbox.write(frame(4))
    box.outbox.wait(left, [frame(5)])
    box.outbox.forget([left])
    assert box.outbox.waiting_bytes == len(cut) - 5 + len(frame(3)) + len(frame(4))
    box.drain()
    assert bytes(box.socket.received) == cut + frame(3) + frame(4)


def test_forget_on_an_idle_client_changes_nothing() -> None:
    """There is nothing to drop where nothing waits."""
    box = Box()
    box.outbox.forget([TRADES])
    box.outbox.write(frame(1))
    assert bytes(box.socket.received) == frame(1)


def test_as_much_as_the_limit_waits_and_no_byte_more() -> None:
    """A frame that ends at the limit waits; of the next, `wait` tells its caller and `write` tells the owner."""
    box = Box(limit=100)
    cut = box.backlog()
    left = 100 - (len(cut) - 5)
    exact = text_frame(b"x" * (left - 2))
    assert box.outbox.wait(TRADES, [exact])
    assert box.outbox.waiting_bytes == 100
    assert not box.outbox.wait(TRADES, [frame(1)])
    assert box.overflows == 0
    box.outbox.write(frame(2))
    assert box.overflows == 1
    box.outbox.overflow()
    assert box.overflows == 2
    box.drain()
    assert bytes(box.socket.received) == cut + exact


def test_the_limit_holds_for_what_waits_and_not_for_what_has_been_sent() -> None:
    """Room comes back as the transport sends."""
    box = Box(limit=100)
    box.backlog()
    assert not box.outbox.wait(TRADES, [frame(1, 90)])
    box.drain()
    box.backlog(23)
    assert box.outbox.wait(TRADES, [frame(1, 90)])


def test_discard_leaves_room_for_a_close_behind_the_last_whole_frame() -> None:
    """Past the limit, what waits is dropped, and the close comes right behind what the transport already has."""
    box = Box(limit=100)
    cut = box.backlog()
    assert not box.outbox.wait(TRADES, frames(1, 9))
    box.outbox.discard()
    box.outbox.write(CLOSE)
    assert box.overflows == 0
    box.drain()
    assert bytes(box.socket.received) == cut + CLOSE


@pytest.mark.parametrize(("sent", "kept"), [(0, 0), (5, 19), (24, 0), (30, 18), (48, 0), (50, 22)])
def test_a_write_of_which_more_is_left_than_may_wait(sent: int, kept: int) -> None:
    """Only the rest of the frame that was cut is kept, behind which the close comes: nothing more waits than may."""
    box = Box(limit=100)
    data = b"".join(frames(0, 9))
    box.socket.received += data[:sent]
    assert not box.outbox.stalled(data, sent)
    assert box.outbox.waiting_bytes == kept
    assert box.outbox.direct == (not kept)
    box.outbox.discard()
    box.outbox.write(CLOSE)
    box.drain()
    assert bytes(box.socket.received) == data[: sent + kept] + CLOSE
    assert box.outbox.direct


def test_a_write_by_itself_of_which_more_is_left_than_may_wait() -> None:
    """As of one that comes behind others."""
    box = Box(limit=100)
    box.socket.script.append(5)
    box.outbox.write(b"".join(frames(0, 9)))
    assert box.overflows == 1
    assert box.outbox.waiting_bytes == len(frame(0)) - 5


@pytest.mark.parametrize("sent", [0, 5, 24, 30])
def test_a_frame_that_is_larger_than_all_that_may_wait(sent: int) -> None:
    """The rest of a single one waits, whatever it takes: it could not be sent otherwise."""
    box = Box(limit=100)
    data = frame(0) + frame(1, 500)
    assert box.outbox.stalled(data, sent) == (sent >= len(frame(0)))
    assert box.outbox.room == max(0, 100 - box.outbox.waiting_bytes)


@pytest.mark.parametrize("taken", [0, 7, 999, 1000])
def test_an_answer_of_http_waits_whatever_its_size(taken: int) -> None:
    """There are no frames yet, so that nothing could be left out of it; and its client is no slow consumer."""
    box, answer = Box(limit=10), bytes(range(250)) * 4
    box.socket.script.append(taken)
    box.outbox.write_plain(answer)
    assert box.outbox.waiting_bytes == 1000 - taken
    box.drain()
    assert bytes(box.socket.received) == answer
    assert box.overflows == 0
    broken, encrypted = Box(limit=10), Box(limit=10, tls=True)
    broken.socket.script.append(BrokenPipeError())
    broken.outbox.write_plain(answer)
    assert (broken.transport.aborted, broken.transport.written) == (True, [])
    encrypted.socket.script.append(taken)
    encrypted.outbox.write_plain(answer)
    assert encrypted.transport.buffered == (b"" if taken == 1000 else answer)
    encrypted.drain()
    assert bytes(encrypted.socket.received) == answer


def test_a_client_is_behind_when_half_of_what_may_wait_does() -> None:
    """What the transport has is on its way."""
    box = Box(limit=2 * CHUNK)
    assert not box.outbox.is_behind
    box.backlog()
    assert not box.outbox.is_behind
    box.outbox.wait(TRADES, frames(1, 3, 20_000))
    assert not box.outbox.is_behind
    box.outbox.wait(TRADES, [frame(4, 6_000)])
    assert box.outbox.is_behind
    box.outbox.discard()
    box.outbox.write(CLOSE)
    assert not box.outbox.is_behind, "nothing more is to be sent to it"
    box.drain()
    assert not box.outbox.is_behind


def test_finish_hands_everything_over_so_that_closing_sends_it() -> None:
    """After `finish`, `loseConnection` ends the connection cleanly once all of it is sent, and not before."""
    box = Box()
    cut = box.backlog()
    box.outbox.wait(TRADES, frames(1, 6, 30_000))
    box.outbox.finish()
    FileDescriptor.loseConnection(box.transport)
    box.outbox.write(frame(99))
    assert box.outbox.wait(TRADES, [frame(99)])
    assert box.transport.lost is None
    box.drain()
    assert bytes(box.socket.received) == cut + b"".join(frames(1, 6, 30_000))
    assert box.transport.lost is not None
    assert box.transport.lost.check(ConnectionDone)


def test_finish_of_an_idle_client_and_a_second_one_do_nothing() -> None:
    """Closing twice, or with nothing to send, is no special case."""
    box = Box()
    box.outbox.finish()
    box.outbox.finish()
    assert not box.transport.written
    assert not box.outbox.direct


def test_a_socket_that_fails_ends_the_connection_and_nothing_is_sent_after() -> None:
    """A failed send aborts; the loss itself comes from the transport, in its own time."""
    box = Box()
    box.socket.script.append(ConnectionResetError())
    box.outbox.write(frame(1))
    assert box.transport.aborted
    box.outbox.write(frame(2))
    assert box.outbox.send(frame(3)) == len(frame(3))
    assert box.outbox.wait(TRADES, [frame(4)])
    box.outbox.overflow()
    assert box.overflows == 0
    assert not box.socket.received


def test_a_transport_that_is_gone_closes_the_outbox() -> None:
    """The transport tells its producer: while it waits, or when it registers too late."""
    box = Box()
    box.backlog()
    box.socket.script.append(ConnectionResetError())
    box.transport.turn()
    assert box.transport.lost is not None
    assert box.outbox.waiting_bytes == 0
    late = Box()
    late.transport.connectionLost(Failure(ConnectionDone()))
    late.backlog()
    assert not late.outbox.direct
    assert late.outbox.waiting_bytes == 0
    late.outbox.resumeProducing()
    assert bytes(late.socket.received) == frame(0)[:5]


def test_a_record_of_tls_is_taken_whole_or_offered_again() -> None:
    """What was offered goes first, byte for byte, whatever has come behind it."""
    box = Box(tls=True)
    box.outbox.write(frame(1))
    assert bytes(box.socket.received) == frame(1)
    cut = box.backlog(taken=len(frame(0)) - 1)
    assert (box.transport.under_way, box.transport.buffered) == (len(cut), cut)
    box.socket.script.append(0)
    assert box.outbox.wait(TRADES, frames(2, 3))
    box.drain()
    assert bytes(box.socket.received) == frame(1) + cut + b"".join(frames(2, 3))
    assert box.outbox.direct
    assert box.traffic.sent == len(box.socket.received)


def test_more_than_a_record_of_tls_goes_by_records() -> None:
    """Those that the socket took are not offered again, and what does not fit in one more is not under way."""
    box = Box(tls=True)
    data = frame(0, 3 * LONGEST_SEND)
    box.socket.script.extend([LONGEST_SEND, 100])
    assert box.outbox.send_long(data) == LONGEST_SEND
    assert box.outbox.stalled(data, LONGEST_SEND)
    assert (box.transport.under_way, box.transport.buffered) == (LONGEST_SEND, data[LONGEST_SEND:])
    box.drain()
    assert bytes(box.socket.received) == data
    box.socket.script.append(0)
    box.outbox.write(data)
    assert box.outbox.waiting_bytes == len(data)
    box.drain()
    assert bytes(box.socket.received) == data + data
    box.outbox.write(data)
    assert (box.outbox.direct, bytes(box.socket.received)) == (True, data + data + data)


def test_of_more_than_may_wait_tls_keeps_the_frames_that_a_record_is_under_way_of() -> None:
    """They have to be offered again; what is behind them is dropped."""
    box = Box(tls=True, limit=30_000)
    data = b"".join(frames(0, 30, 2_000))
    box.socket.script.extend([LONGEST_SEND, 0])
    assert box.outbox.send_long(data) == LONGEST_SEND
    assert not box.outbox.stalled(data, LONGEST_SEND)
    kept = b"".join(frames(0, 17, 2_000))
    assert len(kept) - 2_010 < 2 * LONGEST_SEND <= len(kept)
    assert box.transport.buffered == kept[LONGEST_SEND:]
    box.outbox.discard()
    box.outbox.write(CLOSE)
    box.drain()
    assert bytes(box.socket.received) == kept + CLOSE


def test_nothing_is_no_record_of_tls() -> None:
    """A peer would get an empty one."""
    box = Box(tls=True)
    box.outbox.write_plain(b"")
    box.outbox.write(b"")
    assert (box.socket.received, box.outbox.direct) == (b"", True)


# Thinning out.


def test_what_waits_is_thinned_out_by_its_streams_loss_policy() -> None:
    """Behind a backlog: all trades, the newest ticker, one depth message; what comes directly is untouched."""
    box = Box()
    ticker, depth = make_group("ticker@A"), make_group("depth@A")
    cut = box.backlog()
    for number in range(1, 4):
        box.outbox.wait(TRADES, [frame(number)])
        box.outbox.wait(ticker, [frame(10 + number)])
        box.outbox.wait(depth, [depth.framed(update(a=[[str(number), "1"]], U=number, u=number), AT)])
    box.drain()
    depths = text_frame(b'{"e":"depth","a":[["1","1"],["2","1"],["3","1"]],"b":[],"U":1,"u":3}')
    assert bytes(box.socket.received) == cut + frame(1) + frame(13) + depths + frame(2) + frame(3)
    assert box.outbox.thinned is not None
    assert (box.outbox.thinned.replaced, box.outbox.thinned.merged) == (2, 2)


def test_a_control_event_keeps_before_and_after_apart() -> None:
    """`tell` is a write that no ticker crosses; `write` is one that they do."""
    box, ticker = Box(), make_group("ticker@A")
    cut = box.backlog()
    box.outbox.wait(ticker, [frame(1), frame(2)])
    box.outbox.write(frame(3))
    box.outbox.wait(ticker, [frame(4)])
    box.outbox.tell(frame(5))
    box.outbox.wait(ticker, [frame(6), frame(7)])
    box.drain()
    box.outbox.tell(frame(8))
    expected = [cut, frame(4), frame(3), frame(5), frame(7), frame(8)]
    assert bytes(box.socket.received) == b"".join(expected)
    box.outbox.close()
    box.outbox.tell(frame(9))
    assert bytes(box.socket.received) == b"".join(expected)


@pytest.mark.parametrize("name", ["ticker@A", "depth@A"])
def test_what_is_thinned_out_keeps_to_the_limit_too(name: str) -> None:
    """A message that grows past the limit as it waits makes a slow consumer like any other."""
    box, group = Box(limit=2000), make_group(name)
    box.backlog()
    small, large = update(U=1, u=1), update(a=[[str(price), "1"] for price in range(500)], U=2, u=2)
    assert box.outbox.wait(group, [group.framed(small, AT)])
    assert not box.outbox.wait(group, [group.framed(large, AT)])
    box.outbox.discard()
    box.outbox.write(CLOSE)
    box.drain()
    assert bytes(box.socket.received) == frame(0) + CLOSE


def test_progress_is_what_the_peer_has_taken_of_the_backlog() -> None:
    """Not that one has begun: any part of it that the socket took, told once."""
    box = Box()
    box.outbox.write(frame(1))
    assert not box.outbox.take_progress()
    box.backlog()
    box.outbox.wait(TRADES, frames(1, 6, 30_000))
    assert not box.outbox.take_progress()
    box.socket.script.extend([0, 5, 0, 100, 60_000])
    for is_progress in (False, True, False, True, True):
        box.transport.turn()
        assert box.outbox.take_progress() == is_progress
        assert not box.outbox.take_progress()
    box.drain()
    box.backlog()
    assert box.outbox.take_progress()
    assert not box.outbox.take_progress()


def test_progress_of_a_large_batch_is_seen_before_all_of_it_is_sent() -> None:
    """What the socket did not take of one write is in the transport, in one piece, and may take long."""
    box = Box(limit=500_100)
    box.socket.script.append(0)
    box.outbox.write(frame(1, 500_000))
    assert not box.outbox.take_progress()
    for _ in range(5):
        box.socket.script.append(1000)
        box.transport.turn()
        assert box.outbox.take_progress()
    assert not box.outbox.take_progress()


def test_progress_of_a_tls_client() -> None:
    """By records."""
    box = Box(tls=True)
    box.socket.script.append(0)
    box.outbox.write(frame(0, 3 * LONGEST_SEND))
    assert not box.outbox.take_progress()
    for takes in (1000, 0):
        box.socket.script.append(takes)
        box.transport.turn()
        assert not box.outbox.take_progress()
    box.socket.script.extend([LONGEST_SEND - 1000, 0])
    box.transport.turn()
    assert box.outbox.take_progress()
    box.drain()
    assert box.outbox.take_progress()
    assert not box.outbox.take_progress()


# Any interleaving.


class OutboxMachine(RuleBasedStateMachine):
    """The outbox and a reference: `behind`, what ought to wait, and `handed`, all that the transport was given.

    After every step, what was handed over is exactly what was next of that, in whole frames.
    """

    tls = False

    def __init__(self) -> None:
        super().__init__()
        self.transport = FakeTransport(tls=self.tls)
        self.transport.socket.room = 50
        self.outbox = Outbox(self.transport, LIMIT, self)
        self.groups = {name: make_group(name) for name in ("trade@A", "trade@B", "ticker@A", "depth@A")}
        self.groups["depth@B"] = make_group("depth@B", shape=Shape.ENVELOPE, window=12)
        self.ids = dict.fromkeys(self.groups, 0)
        self.behind = Waiting()
        self.handed = bytearray()
        self.number = 0
        self.closing = False
        self.finished = False

    @property
    def gone(self) -> bool:
        """Nothing is sent any more, and nobody minds."""
        return self.transport.aborted or self.transport.lost is not None

    @property
    def open(self) -> bool:
        return not (self.closing or self.finished or self.gone)

    sizes = st.sampled_from([0, 5, 118, 1000, 1000, 20_000, 70_000])
    names = st.sampled_from(("trade@A", "trade@A", "trade@B", "ticker@A", "ticker@A", "depth@A", "depth@A", "depth@B"))
    shares = st.tuples(
        names, st.lists(st.tuples(sizes, st.sampled_from(("next", "next", "gap", "whole"))), min_size=1, max_size=3)
    )

    def _new(self, size: int) -> bytes:
        self.number += 1
        return frame(self.number, size)

    def _data(self, name: str, size: int, kind: str) -> bytes:
        """A publication's data of about this size, at most 2,000 bytes for a book."""
        self.number += 1
        if not name.startswith("depth"):
            return b"%d:" % self.number + b"x" * size
        first = self.ids[name] + (2 if kind == "gap" else 1)
        self.ids[name] = first + 1
        rows = [[str((self.number + at) % 60), str(self.number % 4)] for at in range(min(size, 2000) // 30)]
        return update(a=rows, U=first, u=first + 1, **({"snapshot": True} if kind == "whole" else {}))

    def _handed_over(self) -> bytes:
        """All that has left the outbox."""
        return bytes(self.transport.socket.received) + self.transport.buffered

    def _chunk(self) -> int:
        """What the transport has and has not sent: it counts until the transport, which has one at a time, has."""
        return self.transport.written[-1] if self.transport.buffered else 0

    # What the hub and the protocol do.

    @precondition(lambda self: not self.closing)
    @rule(size=sizes, is_event=st.booleans())
    def write(self, size: int, is_event: bool) -> None:
        reply = self._new(size)
        is_dead = self.finished or self.gone
        fits = is_dead or self.outbox.direct or self.outbox.waiting_bytes + len(reply) <= LIMIT
        if fits and not is_dead:
            self.behind.put(reply, is_event=is_event)
        if is_event:
            self.outbox.tell(reply)
        else:
            self.outbox.write(reply)
        assert self.closing == (not fits)

    @precondition(lambda self: not self.closing)
    @rule(batch=st.lists(shares, min_size=1, max_size=3))
    def publish(self, batch: list[tuple[str, list[tuple[int, str]]]]) -> None:
        shares = [(name, [self._data(name, *each) for each in share]) for name, share in batch]
        if self.outbox.direct:
            self._send_directly([self.groups[name].framed(data, AT) for name, share in shares for data in share])
            return
        for name, share in shares:
            if not self._wait(self.groups[name], share):
                self.outbox.overflow()
                return

    def _send_directly(self, batch: list[bytes]) -> None:
        """As the fan-out does."""
        before = len(self.transport.socket.received)
        data = b"".join(batch)
        try:
            sent = self.outbox.send_long(data) if len(data) > LONGEST_SEND else self.outbox.send(data)
        except WOULD_BLOCK:
            sent = 0
        except OSError:
            for each in batch:
                self.behind.put(each)
            self.outbox.failed()
            return
        assert sent == len(self.transport.socket.received) - before
        ends = list(accumulate(map(len, batch)))
        left = len(data) - sent
        begun = sent + (min(left, LONGEST_SEND) if self.tls else 0)  # a record is offered again as it was
        is_single = len(ends) == 1 or max(begun, sent + 1) > ends[-2]
        fits = left <= LIMIT or is_single
        for each, end in zip(batch, ends, strict=True):
            if fits or end - len(each) < begun:
                self.behind.put(each)
        if left and not self.outbox.stalled(data, sent):
            assert not fits
            self.outbox.overflow()
        else:
            assert fits

    def _wait(self, group: Group, share: list[bytes]) -> bool:
        if self.finished or self.gone:
            assert self.outbox.wait(group, [group.framed(data, AT) for data in share])
            return True
        frames = [group.framed(data, AT) for data in share]
        before = self.outbox.waiting_bytes
        if self.outbox.wait(group, frames):
            for data in share:
                self.behind.publish(group, data)
            return True
        if group.stream.loss is LossPolicy.KEEP:
            accepted = self.outbox.waiting_bytes - before
            refused = next(at for at in range(len(frames)) if sum(map(len, frames[:at])) == accepted)
            assert self.outbox.waiting_bytes + len(frames[refused]) > LIMIT, "a frame that fits was refused"
        else:
            assert self.outbox.waiting_bytes > LIMIT, "a frame that fits was refused"
        return False

    @rule(names=st.lists(names, min_size=1, max_size=2))
    def forget(self, names: list[str]) -> None:
        groups = [self.groups[name] for name in names]
        self.behind.forget(groups)
        self.outbox.forget(groups)

    def backlog_changed(self, waiting: int) -> None:
        """Nobody here asks."""

    def drained(self) -> None:
        """Nobody here asks."""

    def notice(self) -> bytes:
        """Nobody here is told."""
        return b""

    def overflowed(self) -> None:
        assert self.open, "ended twice"
        self.close()

    @precondition(lambda self: self.open and self.number > 30)
    @rule()
    def close(self) -> None:
        self._take_note()
        self.closing = True
        self.behind.clear()
        self.outbox.discard()
        self.behind.put(CLOSE)
        self.outbox.write(CLOSE)

    @precondition(lambda self: (self.closing or self.number > 30) and not (self.finished or self.gone))
    @rule()
    def finish(self) -> None:
        self.outbox.finish()
        FileDescriptor.loseConnection(self.transport)
        self.finished = True

    # What the socket and the reactor do.

    @rule(takes=st.sampled_from([0, 1, 3, 500, 65_000]))
    def the_next_send_takes_at_most(self, takes: int) -> None:
        self.transport.socket.script.append(takes)

    @precondition(lambda self: self.number > 30)
    @rule()
    def the_next_send_fails(self) -> None:
        self.transport.socket.script.append(ConnectionResetError())

    @rule(count=st.sampled_from([1, 30, 1000, 30_000, 100_000]))
    def the_peer_reads(self, count: int) -> None:
        assert self.transport.socket.room is not None
        self.transport.socket.room += count

    @rule()
    def turn(self) -> None:
        self.transport.turn()

    @precondition(lambda self: not self.transport.socket.script)
    @rule()
    def the_peer_reads_everything(self) -> None:
        room, self.transport.socket.room = self.transport.socket.room, None
        while self.transport.is_writing:
            self.transport.turn()
        self.transport.socket.room = room

    # What holds at all times.

    def _take_note(self) -> None:
        """Add to `handed` what was handed over: whole frames, in order."""
        new = self._handed_over()[len(self.handed) :]
        self.behind.check_taken(new)
        self.handed += new

    @invariant()
    def whole_frames_in_order_within_the_limit(self) -> None:
        if self.gone:
            assert (self.handed + self.behind.head).startswith(bytes(self.transport.socket.received))
        else:
            self._take_note()
        if self.gone or self.finished:
            assert self.outbox.waiting_bytes == 0
            assert not self.outbox.direct
            return
        self.behind.check_size(self.outbox.waiting_bytes - self._chunk())
        assert self.outbox.waiting_bytes <= LIMIT + max(self.transport.written, default=0)
        self._check_direct()

    def _check_direct(self) -> None:
        nothing_waits = not self.behind and not self.transport.buffered
        assert self.outbox.direct == nothing_waits
        if self.outbox.direct:
            assert self.transport.producer is None

    def teardown(self) -> None:
        self.transport.socket.script.clear()
        self.the_peer_reads_everything()
        if self.gone and not self.finished:
            return
        if not self.transport.aborted and (self.transport.lost is None or self.transport.lost.check(ConnectionDone)):
            self._take_note()
            assert not self.behind
            assert self.transport.socket.received == self.handed
        if self.finished:
            assert self.transport.lost is not None
        else:
            assert self.outbox.direct


class TLSOutboxMachine(OutboxMachine):
    """The same by records, each of which is offered until it is taken."""

    tls = True


@pytest.mark.parametrize("machine", [OutboxMachine, TLSOutboxMachine])
def test_any_interleaving_sends_whole_frames_in_order(machine: type[OutboxMachine]) -> None:
    """Writes, partial sends, drains, leaving, closing, failing, in any order: byte for byte as the reference."""
    run_state_machine_as_test(machine, settings=machine_test(1, 50))


# Real connections.


class Server(Protocol):
    """The daemon's end of a connection. `early`: what it writes in `connectionMade`, with TLS before the handshake."""

    outbox: Outbox

    def __init__(self, early: list[bytes]) -> None:
        self.early = early
        self.made = Deferred[None]()
        self.lost = Deferred[None]()

    def connectionMade(self) -> None:
        self.outbox = Outbox(cast(Any, self.transport), LIMIT, self)
        for each in self.early:
            self.outbox.write(each)
        self.made.callback(None)

    def overflowed(self) -> None:
        """The test looks at what `wait` says."""

    def backlog_changed(self, waiting: int) -> None:
        """Nobody here asks."""

    def drained(self) -> None:
        """Nobody here asks."""

    def notice(self) -> bytes:
        """Nobody here is told."""
        return b""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.outbox.close()
        self.lost.callback(None)

    def offer(self, each: bytes) -> bool:
        """Publish one frame, as the fan-out does."""
        if not self.outbox.direct:
            return self.outbox.wait(TRADES, [each])
        self.outbox.write(each)
        return True

    @property
    def held(self) -> int:
        """Bytes that Twisted holds for the socket."""
        tcp = cast(Any, self.transport)
        return len(tcp.dataBuffer) - int(tcp.offset) + int(tcp._tempDataLen)


@implementer(IHandshakeListener)
class Peer(Protocol):
    """A client that stops reading as soon as it is connected, until it is told to read."""

    def __init__(self, *, tls: bool) -> None:
        self.tls = tls
        self.received = bytearray()
        self.wanted = 0
        self.enough = Deferred[None]()
        self.ready = Deferred[None]()
        self.lost = Deferred[None]()

    def connectionMade(self) -> None:
        if not self.tls:
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        cast(Any, self.transport).pauseProducing()
        self.ready.callback(None)

    def read(self, wanted: int) -> Deferred[None]:
        """Read on; fires when `wanted` bytes have come in all."""
        self.wanted = wanted
        cast(Any, self.transport).resumeProducing()
        self._look()
        return self.enough

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._look()

    def _look(self) -> None:
        if 0 < self.wanted <= len(self.received) and not self.enough.called:
            self.enough.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


@asynccontextmanager
async def connected(*, tls: bool, early: list[bytes]) -> AsyncIterator[tuple[Server, Peer]]:
    """A server and its peer over a loopback connection; at the end both are closed and gone."""
    reactor = cast(Any, global_reactor)
    server, peer = Server(early), Peer(tls=tls)
    authority = Authority()
    with TemporaryDirectory() as directory:
        certificate, key = authority.issue("localhost").write(Path(directory))
        of_tls = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
        listening = server_endpoint(reactor, of_tls if tls else "tcp:0:interface=127.0.0.1")
    port: Any = await listening.listen(Factory.forProtocol(lambda: server))
    endpoint: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port, timeout=DEADLINE)
    if tls:
        endpoint = wrapClientTLS(authority.client_options(), endpoint)
    await connectProtocol(endpoint, peer)
    await server.made
    await peer.ready
    try:
        yield server, peer
    finally:
        for end in (server, peer):
            if not end.lost.called:
                cast(Any, end.transport).abortConnection()
            await end.lost
        await port.stopListening()


def in_the_reactor(test: Callable[[bool], Coroutine[Any, Any, None]]) -> Callable[[bool], Any]:
    """A coroutine as a test that pytest waits for, while the reactor runs."""
    return cast(Callable[[bool], Any], pytest_twisted.ensureDeferred(test))


def reactor_turn() -> Deferred[None]:
    return deferLater(cast(Any, global_reactor), 0)


def in_time(event: Deferred[None]) -> Deferred[None]:
    """Fail rather than wait for ever for what was lost."""
    return event.addTimeout(DEADLINE, cast(Any, global_reactor))


@pytest.mark.parametrize("tls", [False, True])
@in_the_reactor
async def test_a_peer_that_reads_late_gets_everything_in_order(tls: bool) -> None:
    """Until it reads, at most the limit waits here; then every byte arrives, also from before the TLS handshake."""
    sent = frames(0, 4, 30_000)
    async with connected(tls=tls, early=sent[:]) as (server, peer):
        refused = 0
        for _ in range(300):
            while server.offer(each := frame(len(sent), 30_000)):
                sent.append(each)
            refused += 1
            assert server.outbox.waiting_bytes <= LIMIT
            assert server.held <= HELD
            await reactor_turn()
        assert refused
        await in_time(peer.read(sum(map(len, sent))))
        assert peer.received == b"".join(sent)
        assert server.outbox.waiting_bytes == 0
        assert server.outbox.direct
        server.outbox.write(last := frame(len(sent)))
        peer.enough = Deferred()
        await in_time(peer.read(len(peer.received) + len(last)))
        assert peer.received.endswith(last)


@pytest.mark.parametrize("tls", [False, True])
@in_the_reactor
async def test_closing_with_a_backlog_sends_it_first(tls: bool) -> None:
    """`finish` and `loseConnection` with a peer that does not read yet: it gets everything, then the end."""
    sent: list[bytes] = []
    async with connected(tls=tls, early=[]) as (server, peer):
        while server.offer(each := frame(len(sent), 30_000)):
            sent.append(each)
        server.outbox.finish()
        cast(Any, server.transport).loseConnection()
        peer.read(0)
        await in_time(peer.lost)
        assert peer.received == b"".join(sent)


@pytest.mark.parametrize("tls", [False, True])
@in_the_reactor
async def test_a_slow_client_is_told_so_behind_a_whole_frame(tls: bool) -> None:
    """Past the limit: what waits is dropped, the close comes behind whole frames, and the connection ends."""
    sent: list[bytes] = []
    async with connected(tls=tls, early=[]) as (server, peer):
        while server.offer(each := frame(len(sent), 30_000)):
            sent.append(each)
        server.outbox.discard()
        server.outbox.write(CLOSE)
        server.outbox.finish()
        cast(Any, server.transport).loseConnection()
        peer.read(0)
        await in_time(peer.lost)
        *whole, close = payloads(peer.received)
        assert close == CLOSE[2:]
        assert len(whole) < len(sent)
        assert peer.received == b"".join(sent[: len(whole)]) + CLOSE
