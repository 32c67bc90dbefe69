"""Plays the documentation's transcripts with real parts: a server, a daemon, clients (see `tests.docs_runner`).

1. Every step is waited for, and nothing else: what is on its way when a transcript ends is found, and fails it.
2. A failure names the line of the document.
3. What the daemon really sends is as docs/asyncapi.yaml and docs/openapi.yaml say, whole, and nothing besides.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from marketfeed.model.streams import BadStreamName, StreamKinds
from tests.docs_runner import Block, Moments, Step, blocks, matches, read_message, steps
from tests.redis_servers.cluster import RedisCluster
from tests.schemas.contract import channel_of, fault_of_answer, fault_of_message
from tests.system.harness import DEADLINE, Client, DaemonProcess, Harness, Redis, RedisServer, trade

__all__ = ["TOKEN_KEY", "UPGRADE", "Stage", "needs_its_own_stage", "scenes"]

TOKEN_KEY = "the secret of the documentation's tokens"

UPGRADE = (
    "Host: localhost\nConnection: Upgrade\nUpgrade: websocket\n"
    "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
)
_LAST_STREAM = "trade@END.OF.TRANSCRIPT"
_AS_DOCUMENTED = ("--payloads", "binance")
"""The default, which other tests of daemons have not."""
_PRESENT = 1_790_000_000
"""What stands in a token for the moment at which it is made, in seconds since 1970."""


def needs_its_own_stage(block: Block) -> bool:
    """Whether a transcript has a daemon or a server to itself."""
    return any(step.verb in ("daemon", "signal", "redis stops") for step in steps(block))


def scenes(blocks: list[Block]) -> list[list[Block]]:
    """Transcripts, those together that can share a daemon: one scene for each document, others on their own."""
    shared: dict[str, list[Block]] = {}
    alone = []
    for block in blocks:
        if needs_its_own_stage(block):
            alone.append([block])
        else:
            shared.setdefault(block.document, []).append(block)
    return [*shared.values(), *alone]


class Stage:
    """The parts of one scene; the daemon is started when it is needed first."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._daemon: DaemonProcess | None = None
        self._options: list[str] = []
        self._clients: dict[str, Client] = {}
        self._channels: dict[str, str] = {}
        self._tokens: dict[str, str] = {}
        self._moments = Moments()
        self._is_down = False
        self._cluster: RedisCluster | None = None
        self._server: RedisServer
        self._engine: Redis

    async def prepare(self) -> None:
        """Start the server, and write the files that transcripts name."""
        directory = self._harness.directory
        (directory / "token.key").write_text(TOKEN_KEY, encoding="utf-8")
        (kinds,) = (block.text for block in blocks("toml") if "[streams.orders]" in block.text)
        (directory / "marketfeed.toml").write_text(self._here(kinds), encoding="utf-8")
        (markets,) = (block.text for block in blocks("toml") if "[markets." in block.text)
        (directory / "markets.toml").write_text(markets, encoding="utf-8")
        self._server = await self._harness.redis()
        self._engine = await self._server.connect()

    async def play(self, block: Block) -> None:
        """Play one transcript; its clients are gone at the end."""
        self._moments = Moments()
        coming = steps(block)
        while coming:
            step = self._with_names(coming.pop(0))
            headers = {}
            while coming and coming[0].verb == "header":
                name, _, value = self._with_names(coming.pop(0)).rest.partition(": ")
                headers[name] = value
            answer = coming.pop(0) if coming and coming[0].verb == "status" else None
            try:
                await self._take(step, headers, answer)
            except Exception as error:
                raise AssertionError(f"{block.document}:{step.line}: {step.verb} {step.rest}: {error!r}") from error
        await self._end(block)

    async def _take(self, step: Step, headers: dict[str, str], answer: Step | None) -> None:
        if answer is not None:
            await self._ask(step, headers, answer)
            return
        if step.verb == "connect":
            await self._connect(step, headers)
            return
        take: Callable[[Step], Any] = {
            "redis": self._redis,
            "redis stops": self._redis_stops,
            "redis starts": self._redis_starts,
            "daemon": self._start_daemon,
            "token": self._sign,
            "binary": self._send_binary,
            "send": self._send,
            "closed": self._closed,
            "expect": self._expect,
            "hangs up": self._hang_up,
            "signal": self._signal,
            "exits": self._exits,
        }[step.verb]
        done = take(step)
        if done is not None:
            await done

    # What names stand for, and the files of the daemon.

    def _sign(self, step: Step) -> None:
        text = re.sub(r"\b\d{10}\b", lambda found: str(int(found[0]) - _PRESENT + time.time()), step.rest)
        self._tokens[step.actor] = _signed(text)

    def _with_names(self, step: Step) -> Step:
        if step.verb == "token":
            return step
        known = {**self._moments.texts, **self._tokens}
        return replace(step, rest=re.sub(r"<(\w+)>", lambda found: known.get(found[1], found[0]), step.rest))

    def _here(self, text: str) -> str:
        return text.replace("/etc/marketfeed", str(self._harness.directory))

    # The Redis side.

    async def _redis(self, step: Step) -> None:
        name, _, rest = step.rest.partition(" ")
        if self._cluster is not None:
            words, _, payload = step.rest.partition(" {")
            await deferToThread(self._cluster.client().command, *words.split(), "{" + payload)
        elif name == "PUBLISH":
            channel, _, payload = rest.partition(" ")
            await self._engine.publish(channel, payload.encode())
        elif name == "XADD":
            words, _, payload = step.rest.partition(" d ")
            await self._engine.command(*words.split(), "d", payload)
        else:
            await self._engine.command(*shlex.split(step.rest))

    async def _redis_stops(self, _: Step) -> None:
        await self._server.kill()
        self._is_down = True

    async def _redis_starts(self, _: Step) -> None:
        since = len(self._daemon.lines) if self._daemon else 0
        await self._server.start()
        self._engine = await self._server.connect()
        self._is_down = False
        if self._daemon is not None:
            await self._daemon.expect(r"redis: connected", since)

    # The daemon's side.

    async def _start_daemon(self, step: Step) -> None:
        options = self._options = shlex.split(self._here(step.rest))
        for index, word in enumerate(options):
            url = urlsplit(word)
            if url.scheme == "redis-cluster":
                options[index] = (await self._start_cluster()).url
            if url.scheme == "redis":
                options[index] = f"unix://{url.username}:{url.password}@{self._server.path}"
        if self._cluster is not None:
            self._daemon = await self._harness.daemon(*_AS_DOCUMENTED, *options)
            await self._daemon.expect(r"redis cluster: .* 0 have none")
        elif self._is_down:
            self._daemon = await self._harness.daemon(*_AS_DOCUMENTED, "--redis-url", self._server.url, *options)
        else:
            self._daemon = await self._harness.daemon(*_AS_DOCUMENTED, *options, redis=self._server)

    async def _start_cluster(self) -> RedisCluster:
        cluster = RedisCluster(self._harness.directory / "cluster", "valkey")
        self._harness.on_close(cluster.close)
        self._cluster = await deferToThread(cluster.__enter__)
        return self._cluster

    async def _running(self) -> DaemonProcess:
        if self._daemon is None:
            self._daemon = await self._harness.daemon(*_AS_DOCUMENTED, redis=self._server)
        return self._daemon

    async def _signal(self, step: Step) -> None:
        (await self._running()).process.signal(step.rest)

    async def _exits(self, step: Step) -> None:
        status = await (await self._running()).process.wait()
        assert status == int(step.rest), f"it ended with {status}"

    # The clients' side.

    async def _ask(self, step: Step, headers: dict[str, str], answer: Step) -> None:
        """A request that is answered in plain HTTP."""
        lines = [f"GET {step.rest} HTTP/1.1", UPGRADE if step.verb == "connect" else "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        status, _, body = await self._harness.http(await self._running(), "\n".join(lines))
        got = body.decode().rstrip()
        expected_status, _, expected = answer.rest.partition(" ")
        is_json = expected.startswith(("{", "[", "…"))
        same = matches(read_message(expected), read_message(got), self._moments) if is_json else got == expected
        assert (str(status), same) == (expected_status, True), f"answered with {status} {got}"
        path = step.rest.partition("?")[0]
        if step.verb == "get" and path.startswith("/api/v3/"):
            fault = fault_of_answer(got, path.removeprefix("/api/v3/"), status)
            assert fault is None, f"answered with {got}: {fault}"

    async def _connect(self, step: Step, headers: dict[str, str]) -> None:
        assert step.actor not in self._clients, "there is a client of this name"
        offered = headers.pop("Sec-WebSocket-Protocol", "")  # Autobahn checks the answer against its own list
        protocols = [name.strip() for name in offered.split(",") if name.strip()]
        daemon = await self._running()
        self._clients[step.actor] = await self._harness.client(daemon, step.rest, headers=headers, protocols=protocols)
        self._channels[step.actor] = channel_of(step.rest)
        wanted = _named(step.rest)
        await self._harness.eventually(lambda: self._has(wanted))

    async def _has(self, wanted: set[str]) -> bool:
        return wanted <= await self._engine.channels() if wanted else True

    def _send(self, step: Step) -> None:
        self._clients[step.actor].send(step.rest.encode())

    def _send_binary(self, step: Step) -> None:
        self._clients[step.actor].sendMessage(bytes.fromhex(step.rest), isBinary=True)

    async def _expect(self, step: Step) -> None:
        got = (await self._clients[step.actor].next_bytes()).decode()
        assert matches(read_message(step.rest), read_message(got), self._moments), f"got {got}"
        if "warn" not in self._options:
            is_engines = "engine" in self._options
            fault = fault_of_message(got, self._channels[step.actor], is_engines=is_engines)
            assert fault is None, f"got {got}: {fault}"

    async def _hang_up(self, step: Step) -> None:
        client = self._clients.pop(step.actor)
        client.dropConnection(abort=True)
        await client.closed

    async def _closed(self, step: Step) -> None:
        client = self._clients.pop(step.actor)
        code, reason = await client.closed.addTimeout(DEADLINE, self._harness.reactor)
        assert f"{code} {reason}" == step.rest, f"closed with {code} {reason}"
        assert not client.received, f"got {client.received} before"

    async def _end(self, block: Block) -> None:
        """Whatever the clients get beyond the transcript, they have got now: then the connections are closed."""
        if self._clients and any(step.rest.startswith("PUBLISH") for step in steps(block)):
            token = _signed(json.dumps({"sub": "the.end", "exp": time.time() + 3600}))
            watcher = await self._harness.client(
                await self._running(), "/ws", headers={"Authorization": f"Bearer {token}"}
            )
            await watcher.subscribe(_LAST_STREAM)
            await self._engine.publish(_LAST_STREAM, trade())
            await watcher.next()
            self._clients["the end"] = watcher
        for name, client in self._clients.items():
            await _pong(client, self._harness.reactor)
            assert not client.received, f"{block}: {name or 'the client'} also got {list(client.received)}"
            client.dropConnection(abort=True)
            await client.closed
        self._clients.clear()


def _pong(client: Client, reactor: Any) -> Deferred[None]:
    """Fires when the server has answered everything that was sent to it."""
    answered = Deferred[None]()
    client.onPong = lambda payload: answered.callback(None)
    client.sendPing()
    return answered.addTimeout(DEADLINE, reactor)


def _signed(claims: str) -> str:
    return jwt.PyJWS().encode(claims.encode(), TOKEN_KEY, "HS256")


def _named(path: str) -> set[str]:
    """The streams that a path or query names."""
    url = urlsplit(path)
    names = url.path.split("/")[2:] + parse_qs(url.query).get("streams", [""])[0].split("/")
    found = set()
    for name in names:
        try:
            stream = StreamKinds().parse(name)
            made = stream.kind.from_book
            found.add(str(stream) if made is None else f"{made.of}@{stream.market}")
        except BadStreamName:
            pass
    return found
