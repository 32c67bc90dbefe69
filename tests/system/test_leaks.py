"""What a client leaves behind when it is gone, however it goes: nothing. Seen in the real process."""

from __future__ import annotations

import json
import random
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol

from tests.system.harness import DEADLINE, DaemonProcess, Harness, RawConnection, Redis, trade
from tests.system.lean import HANDSHAKE, LeanClient, LeanClients, all_of, client_frame, within
from tests.system.secure import Secure, also_tls, tls_in_full

TEST_SECONDS = 5 * DEADLINE
FIRST, AT_ONCE = 2_000, 50
WARM_UP, FURTHER, FURTHER_WITH_TLS = 5_000, 15_000, 3_000
"""Clients: what keeps a bounded number of things, such as tables that have grown once, is full after the first."""
MORE_KIB = 5 * 1024
"""How much the daemon may grow after the first cycles."""
MARKETS = [f"M{number:03}" for number in range(100)]
KINDS = {"ClientProtocol", "Deferred", "Group", "Join", "LiveStream", "Outbox", "RequestBudget", "Session"}
KINDS |= {"Server", "TcpConnection", "TlsConnection"}
"""The types of the objects that a connection consists of. The last ones are transports: Twisted's and ours."""

MOMENTARY = {"StreamRegistry._sweep", "BoundedLog._look", "Portions._next_turn"}
"""Timers of what is over soon."""
QUEUE = 8 * 2**20
"""Bytes that may wait for one client, where that matters."""
WIDE, PADDING = 120, "x" * 60_000
"""So many publications of this size are more than the kernel's buffers hold, but not more than the queue; thrice as
many are more than both."""


class Guest(LeanClient):
    """A client that notices the first text that it gets; that is empty if it gets none."""

    def __init__(self) -> None:
        super().__init__()
        self.answered: Deferred[bytes] = Deferred()
        self.is_polite = True

    def text_received(self, text: bytes) -> None:
        if not self.answered.called:
            self.answered.callback(text)

    def answer_close(self, code: bytes) -> None:
        if self.is_polite:
            super().answer_close(code)
        else:
            self.abort()

    def gone(self) -> None:
        if not self.answered.called:
            self.answered.callback(b"")


class Stage:
    """The real parts, with a window in the daemon."""

    def __init__(
        self, harness: Harness, daemon: DaemonProcess, window: RawConnection, engine: Redis, tls: Any = None
    ) -> None:
        self.harness = harness
        self.daemon = daemon
        self.engine = engine
        self.clients = LeanClients[Guest](harness, daemon, tls)
        self.rng = random.Random(1)
        self._window = window

    @classmethod
    async def build(cls, harness: Harness, *options: str, secure: bool = False) -> Stage:
        redis = await harness.redis()
        tls = None
        if secure:
            with_tls = Secure(harness.directory)
            options, tls = (*options, *with_tls.options), with_tls.client
        path = str(harness.directory / "window.sock")
        program = ("-m", "tests.system.observed", path)
        daemon = await harness.daemon("--linger", "0.2", *options, redis=redis, program=program)
        window = RawConnection(harness.reactor)
        await connectProtocol(UNIXClientEndpoint(harness.reactor, path), window)
        harness.on_close(window.transport.loseConnection)
        stage = cls(harness, daemon, window, await redis.connect(), tls)
        await stage.ask(b"look")  # answered, so that the connection to the window is open at both ends
        return stage

    async def ask(self, question: bytes) -> dict[str, Any]:
        """What the window in the daemon shows."""
        self._window.data = b""
        self._window.send(question + b"\n")
        answer: dict[str, Any] = json.loads(await self._window.until(lambda data: data.endswith(b"\n")))
        return answer

    async def publish_wide(self, numbers: range) -> None:
        """Publications of `trade@WIDE`, one after the other."""
        for number in numbers:
            await self.engine.publish("trade@WIDE", trade("WIDE", number, padding=PADDING))

    async def cycles(self, count: int) -> None:
        """So many clients come, and go in all of their ways."""
        ways = [WAYS[index % len(WAYS)] for index in range(count)]
        await all_of((self.cycle(way) for way in ways), at_once=AT_ONCE)

    async def cycle(self, way: Way) -> None:
        guest = await self.clients.connect(Guest())
        with suppress(TooLate):
            await way(self, guest)
        await guest.lost

    async def at_rest(self) -> dict[str, Any]:
        """What the window shows once no client is left anywhere."""
        seen: dict[str, Any] = {}

        async def is_quiet() -> bool:
            seen.update(await self.ask(b"look"), files=self.daemon.open_files(), kib=self.daemon.resident_kib())
            if seen["clients"] or seen["connections"] or seen["streams"] or not MOMENTARY.isdisjoint(seen["timers"]):
                return False  # somebody is there still, or has not been gone for long
            if seen["asked"]:
                return False  # an answer is under way
            if not any("RoleWatch" in timer for timer in seen["timers"]):
                return False  # an answer is under way, behind which it asks again
            return not await self.engine.channels()

        await self.harness.eventually(is_quiet)
        return seen


def of_clients(seen: dict[str, Any]) -> dict[str, int]:
    """The living objects that belong to clients, by type."""
    return {kind: count for kind, count in seen["objects"].items() if kind in KINDS}


Way = Callable[[Stage, Guest], Awaitable[None]]
"""What a client does from its TCP connection on, until it goes or is sent away."""


class TooLate(Exception):
    """The machine is so busy that the request came when nobody waited for it any more: one more way to go."""


async def _answered_with(guest: Guest, status: int) -> None:
    answer = await guest.handshake
    if answer == 408:
        raise TooLate
    assert answer == status


def _request(method: str, *params: object) -> bytes:
    return json.dumps({"method": method, "params": params, "id": 1}).encode()


def _a_stream(stage: Stage) -> str:
    return f"trade@{stage.rng.choice(MARKETS)}"


async def _open(guest: Guest, path: bytes = b"/") -> None:
    guest.transport.write(HANDSHAKE % path)
    await _answered_with(guest, 101)


async def _watch(stage: Stage, guest: Guest, path: bytes = b"/") -> None:
    """The life of a client up to its end: a handshake, a subscription, perhaps a publication."""
    stream = _a_stream(stage)
    await _open(guest, path)
    guest.send(_request("SUBSCRIBE", stream))
    assert b'"result":null' in await guest.answered
    await stage.engine.publish(stream, trade(stream[6:]))


async def closes(stage: Stage, guest: Guest) -> None:
    await _watch(stage, guest)
    guest.close()
    await guest.lost
    assert guest.close_code == 1000


async def hangs_up(stage: Stage, guest: Guest) -> None:
    await _watch(stage, guest)
    guest.transport.loseConnection()


async def is_cut_off(stage: Stage, guest: Guest) -> None:
    await _watch(stage, guest)
    guest.cut()


async def resets(stage: Stage, guest: Guest) -> None:
    await _watch(stage, guest)
    guest.abort()


async def closes_without_waiting_for_the_reply(stage: Stage, guest: Guest) -> None:
    await _open(guest, b"/ws")
    guest.send(_request("SUBSCRIBE", _a_stream(stage)))
    guest.close()


async def resets_without_waiting_for_the_reply(stage: Stage, guest: Guest) -> None:
    await _open(guest, b"/stream")
    guest.send_and_abort(client_frame(_request("SUBSCRIBE", _a_stream(stage))))


async def resets_without_waiting_for_the_handshake(stage: Stage, guest: Guest) -> None:
    guest.send_and_abort(HANDSHAKE % f"/ws/{_a_stream(stage)}/depth@M001".encode())


async def resets_in_the_handshake(stage: Stage, guest: Guest) -> None:
    guest.send_and_abort(HANDSHAKE[:60])


async def hangs_up_in_the_handshake(stage: Stage, guest: Guest) -> None:
    guest.transport.write(HANDSHAKE[:60])
    guest.transport.loseConnection()


async def is_refused(stage: Stage, guest: Guest) -> None:
    path, status = stage.rng.choice(((b"/nothing", 404), (b"/ws/a@b", 400), (b"/healthz", 200), (b"/a b", 400)))
    guest.transport.write(HANDSHAKE % path)
    await _answered_with(guest, status)


async def breaks_the_protocol(stage: Stage, guest: Guest) -> None:
    await _watch(stage, guest)
    guest.transport.write(b"\x81\x02{}")  # without a mask
    await guest.lost
    assert guest.close_code == 1002


async def leaves_a_close_unanswered(stage: Stage, guest: Guest) -> None:
    guest.is_polite = False
    await breaks_the_protocol(stage, guest)


async def changes_its_mind(stage: Stage, guest: Guest) -> None:
    await _watch(stage, guest, b"/stream")
    guest.send(_request("SET_PROPERTY", "combined", False))
    guest.send(_request("UNSUBSCRIBE", *(f"trade@{market}" for market in MARKETS)))
    guest.send(_request("SUBSCRIBE", _a_stream(stage), _a_stream(stage)))
    guest.close()


async def asks_for_nonsense(stage: Stage, guest: Guest) -> None:
    await _open(guest)
    for request in (b"{", b"[]", _request("SELL"), _request("SUBSCRIBE", "x"), _request("SUBSCRIBE", 1, 2)):
        guest.send(request)
    assert b'"error"' in await guest.answered
    guest.abort()


WAYS: list[Way] = [
    closes,
    hangs_up,
    is_cut_off,
    resets,
    closes_without_waiting_for_the_reply,
    resets_without_waiting_for_the_reply,
    resets_without_waiting_for_the_handshake,
    resets_in_the_handshake,
    hangs_up_in_the_handshake,
    is_refused,
    breaks_the_protocol,
    leaves_a_close_unanswered,
    changes_its_mind,
    asks_for_nonsense,
]


@tls_in_full
@pytest_twisted.ensureDeferred
@within(TEST_SECONDS)
async def test_twenty_thousand_clients_leave_nothing_behind(harness: Harness, tls: bool) -> None:
    """Files, timers and objects are back where they were, without a collection asked for; memory stays level. With TLS
    there are fewer, whose handshakes take longer.
    """
    further = FURTHER_WITH_TLS if tls else FURTHER
    stage = await Stage.build(harness, secure=tls)
    before = await stage.at_rest()
    await stage.cycles(WARM_UP)
    early = await stage.at_rest()
    await stage.cycles(further)
    after = await stage.at_rest()
    for what in ("files", "timers"):
        assert after[what] == before[what]
    assert of_clients(after) == of_clients(before)
    assert after["kib"] - early["kib"] <= MORE_KIB
    # Of nothing else, be it a string in some dictionary, was one kept for every tenth client.
    assert after["blocks"] - early["blocks"] < further / 10


@pytest_twisted.ensureDeferred
@within(TEST_SECONDS)
async def test_no_client_needs_the_collector_of_cycles(harness: Harness) -> None:
    """With the collector off all objects are freed as well: a client that is gone is in no cycle of references."""
    stage = await Stage.build(harness)
    await stage.ask(b"disable")
    before = await stage.at_rest()
    await stage.cycles(FIRST)
    assert of_clients(await stage.at_rest()) == of_clients(before)
    assert sum((await stage.ask(b"collect")).values()) < FIRST / 10


@pytest_twisted.ensureDeferred
@within(TEST_SECONDS)
async def test_no_client_with_tls_needs_it_either(harness: Harness) -> None:
    """Whether or not it says good-bye in the terms of TLS."""
    stage = await Stage.build(harness, secure=True)
    await stage.ask(b"disable")
    await stage.cycles(len(WAYS))  # what the first of them leave in OpenSSL and in caches stays
    before = await stage.at_rest()
    await stage.cycles(FIRST // 4)
    after = await stage.at_rest()
    for what in ("files", "timers"):
        assert after[what] == before[what]
    assert of_clients(after) == of_clients(before)
    assert sum((await stage.ask(b"collect")).values()) < FIRST / 10  # some for each time that nobody was there


async def never_finishes_the_handshake(stage: Stage, guest: Guest) -> None:
    guest.transport.write(HANDSHAKE[:60])
    assert await guest.handshake == 408


async def _stop_reading(guest: Guest, stream: str) -> None:
    await _open(guest)
    guest.send(_request("SUBSCRIBE", stream))
    await guest.answered
    guest.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    guest.transport.pauseProducing()


@also_tls
@pytest_twisted.ensureDeferred
@within(TEST_SECONDS)
async def test_a_client_that_is_given_up_leaves_nothing_behind(harness: Harness, tls: bool) -> None:
    """Neither the time-outs nor the backlog of clients that do not read, or do not go on, outlive them."""
    stage = await Stage.build(harness, "--client-queue", str(QUEUE), "--ping-interval", "0", secure=tls)
    await stage.ask(b"disable")
    before = await stage.at_rest()
    slow = [await stage.clients.connect(Guest()) for _ in range(8)]
    for guest in slow:
        await _stop_reading(guest, "trade@WIDE")
    silent = Deferred.fromCoroutine(stage.cycle(never_finishes_the_handshake))
    await stage.publish_wide(range(WIDE))
    assert (await stage.ask(b"look"))["clients"] == len(slow)
    for guest in slow[:2]:
        guest.abort()
    for guest in slow[2:4]:
        guest.transport.loseConnection()
    for guest in slow[4:6]:
        guest.close()
    await stage.publish_wide(range(WIDE, 3 * WIDE))
    await silent
    after = await stage.at_rest()
    for what in ("files", "timers"):
        assert after[what] == before[what]
    assert of_clients(after) == of_clients(before)
    ended = [line.partition(" disconnected ")[2].partition(": ")[2] for line in stage.daemon.lines]
    ends = Counter(end.partition(";")[0] for end in ended)
    assert ends["closed by the server with 4008 slow consumer"] == 2
    assert ends["closed by the client with 1000"] == 2
