"""All the clients of a load test: opened, read, and counted.

1. What arrives is judged for each client by itself; what it holds is read once for all (`frames`).
2. A client that has gone waits for nothing any more, and is counted with the code of its close.
3. A slow client counts nowhere but as open: it asks for its streams, and then does not read before the test is over.
   Then it reads what there is, to tell how the server ended it, if it did.
4. Latencies are counted by the time that a message tells, not by when it arrives: what is published before the
   measuring is left out, and what is late is not.
"""

from __future__ import annotations

import math
import random
import selectors
import ssl
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from marketfeed.commands.bench.client import Client, ClientFault, Meeting
from marketfeed.commands.bench.frames import Batch, BatchReader
from marketfeed.commands.bench.tally import ANY, Histogram, OrderCheck
from marketfeed.commands.frames import CLOSE, PONG, BadFrames, masked_frame
from marketfeed.commands.messages import Event, Publication, Refusal, Reply, read_message
from marketfeed.model.kinds.columns import clean

__all__ = ["Crowd", "draw", "share_out"]

_READ = 65536  # more than a record of TLS, so that OpenSSL keeps nothing back, which no selector would see
_CUT_OFF = 1006  # RFC 6455, section 7.1.5: the connection ended without a close frame


def share_out(client: int, per_client: int, streams: int) -> list[int]:
    """The indices of a client's streams: each stream has as many clients as any other, or one more."""
    first = client * per_client
    return [(first + step) % streams for step in range(per_client)]


def draw(client: int, per_client: int, streams: int) -> list[int]:
    """The indices of a client's streams, drawn from all of them, none twice: the same for this client at every run."""
    return random.Random(client).sample(range(streams), per_client)


class Crowd:
    """The clients of one server.

    `first_number`: what each client waits for of each of its streams, ANY for whatever comes first; `is_mixed`: its
    streams are drawn. `now`: the time in ms since 1970. `clients`: so far, `open` of them. `published`: messages that
    each stream had, kept by the engine. `awaited`: numbers that open clients wait for. `publications`, `size`: what
    they got, in messages and in bytes. `slow_open`: slow clients that the server has not ended, as far as they have
    read; `slow_size`: how many bytes that is; `slow_closed`: the others, by the code of their close. `unserved`: in a
    storm, those that read and have had no message yet, by their numbers.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        meeting: Meeting,
        streams: Sequence[str],
        now: Callable[[], float],
        *,
        per_client: int,
        slow: int,
        first_number: int,
        is_storm: bool = False,
        is_mixed: bool = False,
    ) -> None:
        self._selector = selector
        self._meeting = meeting
        self._streams = streams
        self._now = now
        self._per_client = per_client
        self._streams_of = draw if is_mixed else share_out
        self._slow = slow
        self._first_number = first_number
        self._is_storm = is_storm
        self.unserved: set[int] = set()
        self._seen: list[set[int]] | None = [set() for _ in streams] if first_number == ANY else None
        self._reader = BatchReader(streams, self._seen)
        self._slow_reader = BatchReader(streams)
        self.clients: list[Client] = []
        self.subscribers = [0] * len(streams)
        self.published: Sequence[int] = [0] * len(streams)
        self.open = 0
        self.awaited = 0
        self.publications = 0
        self.merged = 0
        self.size = 0
        self.deflated = 0
        self.slow_open = 0
        self.slow_size = 0
        self.slow_closed: Counter[int] = Counter()
        self._measured_from = -math.inf
        self.latencies = Histogram()
        self.connects = Histogram()
        self.order = OrderCheck()
        self.events: Counter[str] = Counter()
        self.closed: Counter[int] = Counter()

    def begin(self) -> None:
        """Let one more client connect. Raises `ClientFault`."""
        number = len(self.clients)
        wanted = self._streams_of(number, self._per_client, len(self._streams))
        client = Client(
            number,
            self._meeting,
            [self._streams[stream] for stream in wanted],
            dict.fromkeys(wanted, self._first_number),
            is_slow=number < self._slow,
        )
        self.clients.append(client)
        if self._is_storm and not client.is_slow:
            self.unserved.add(number)
        client.connect(self._now())
        self._selector.register(client.socket.fileno(), client.interest, partial(self._advance, client))

    def _advance(self, client: Client) -> None:
        interest = client.interest
        is_websocket = client.advance()
        if is_websocket:
            self._selector.modify(client.socket.fileno(), selectors.EVENT_READ, partial(self._read, client))
            self._take(client, b"")
        elif client.interest != interest:
            self._selector.modify(client.socket.fileno(), client.interest, partial(self._advance, client))

    def measure_from(self, time: float) -> None:
        """Count the latencies of what is published from `time` on, in ms since 1970, and forget those so far."""
        self._measured_from = round(time, 3) - 0.001  # as a message tells it, in µs
        self.latencies = Histogram()

    def listen_to_slow(self) -> None:
        """Let the slow clients read what the server has sent them, until `close`."""
        for client in self.clients:
            if client.is_slow and client.is_open:
                self._selector.register(client.socket.fileno(), selectors.EVENT_READ, partial(self._read_slow, client))

    def _read_slow(self, client: Client) -> None:
        data = _receive(client)
        if data is None:
            return
        self.slow_size += len(data)
        batch = self._cut(client, data, self._slow_reader)
        if data and batch.close is None:
            return
        self._selector.unregister(client.socket.fileno())
        client.is_open = False
        self.slow_open -= 1
        self.slow_closed[_CUT_OFF if batch.close is None else batch.close] += 1

    def close(self) -> None:
        """Hang up."""
        for client in self.clients:
            client.socket.close()

    # What arrives.

    def _read(self, client: Client) -> None:
        data = _receive(client)
        if data is None:
            return
        if not data:
            self._gone(client, _CUT_OFF)
            return
        self.size += len(data)
        self._take(client, data)

    def _take(self, client: Client, data: bytes) -> None:
        batch = self._cut(client, data, self._reader)
        was_open = client.is_open
        if was_open:
            self._count(client, batch)
        if not batch.is_plain:
            self._answer(client, batch)
            if client.is_open and not was_open and not client.is_slow:
                self._count(client, batch)  # what came together with the confirmation
        if self.unserved and batch.publications and client.is_open:
            self.unserved.discard(client.number)

    def _cut(self, client: Client, data: bytes, reader: BatchReader) -> Batch:
        """What is whole by now of what a client got; the rest waits."""
        if client.rest:
            data = client.rest + data
        try:
            batch = reader.read(data)
        except BadFrames as fault:
            raise ClientFault(f"{self._meeting.address.shown} sends {fault}") from None
        client.rest = data[batch.size :]
        return batch

    def _count(self, client: Client, batch: Batch) -> None:
        """The hot path: what is in order costs a comparison and an assignment for each run."""
        waits_for = client.waits_for
        progress = batch.numbers
        for stream, first, after in batch.runs:
            if waits_for.get(stream) == first:
                waits_for[stream] = after
            else:
                progress += self.order.take(client.number, waits_for, stream, first, after) - (after - first)
        self.awaited -= progress
        self.publications += batch.publications
        self.merged += batch.numbers - batch.publications
        now, measured_from = self._now(), self._measured_from
        for time, times in batch.times:
            if time >= measured_from:
                self.latencies.add(int((now - time) * 1000), times)

    def _answer(self, client: Client, batch: Batch) -> None:
        for message in batch.others:
            self._hear(client, message)
        with suppress(OSError):  # the end of this connection is read soon
            for payload in batch.pings:
                client.send(masked_frame(payload, PONG))
            if batch.close is not None:
                client.send(masked_frame(batch.close.to_bytes(2, "big"), CLOSE))
        if batch.close is not None:
            self._gone(client, batch.close)

    def _hear(self, client: Client, payload: bytes) -> None:
        message = read_message(payload)
        match message:
            case Reply() if not client.is_open:
                self._opened(client)
            case Refusal():
                told = clean(f"{message.code} {message.message}", 200)
                raise ClientFault(f"{self._meeting.address.shown} refuses the SUBSCRIBE: {told}")
            case Event():
                self.events[message.name] += 1
            case Publication():
                self.events["unknown message"] += 1

    def _opened(self, client: Client) -> None:
        client.is_open = True
        self.open += 1
        self.deflated += client.is_deflated
        self.connects.add(int((self._now() - client.started) * 1000))
        if client.is_slow:
            self.slow_open += 1
            self._selector.unregister(client.socket.fileno())
            return
        for stream in client.waits_for:
            self.subscribers[stream] += 1

    def _gone(self, client: Client, code: int) -> None:
        if not client.is_open:
            raise ClientFault(f"{self._meeting.address.shown} closes client {client.number + 1} at once, with {code}")
        self._selector.unregister(client.socket.fileno())
        client.socket.close()
        client.is_open = False
        self.open -= 1
        self.unserved.discard(client.number)
        self.closed[code] += 1
        for stream, number in client.waits_for.items():
            self.subscribers[stream] -= 1
            if number != ANY:
                self.awaited -= self.published[stream] + 1 - number

    # What did not.

    def lost(self, *, has_ended: bool = True) -> int:
        """What clients that are open, or were, have passed over, and what open ones wait for when all `has_ended`.

        Without an engine of ours it is only known of what another client got.
        """
        if self._seen is not None:
            ordered = [sorted(numbers) for numbers in self._seen]
            return self.order.lost(lambda *span: _within(ordered, *span))
        waiting = sum(
            self.published[stream] + 1 - number
            for client in self.clients
            if has_ended and client.is_open and not client.is_slow
            for stream, number in client.waits_for.items()
        )
        return waiting + self.order.lost(lambda stream, first, after: after - first)


def _receive(client: Client) -> bytes | None:
    """What there is; nothing when the connection is gone, and None when there is nothing yet."""
    try:
        return client.recv(_READ)
    except (BlockingIOError, ssl.SSLWantReadError):
        return None
    except OSError:
        return b""


def _within(ordered: list[list[int]], stream: int, first: int, after: int) -> int:
    numbers = ordered[stream]
    return bisect_left(numbers, after) - bisect_left(numbers, first)
