"""Runs one scenario: a client in a process of its own, the server that the scenario writes, and what the client told.

1. Steps are done one after the other, each to its end: a command until the adapter has done it, what is awaited until
   it is there. Nothing goes by time.
2. The server speaks on the newest connection that it has accepted.
3. In the end the server hears from the client once more, where it can, so that whatever came late is in the log.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from tests.conformance.scenarios import log_of, matches, steps_of
from tests.conformance.scripted import BINARY, PING, TEXT, Peer, ScriptedServer, frame
from tests.system.harness import Harness, Process

__all__ = ["START", "Adapter", "Run"]

START = 1_790_000_000_000
"""The moment at which every scenario begins, in ms since 1970, by the client's clock."""


class Adapter:
    """A client that does what it is told. `log`: all that it has told, in order. `trusted`: the file of an authority
    that it trusts.
    """

    def __init__(self, harness: Harness, command: list[str], trusted: Path | None = None) -> None:
        names = () if trusted is None else ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")
        self._process: Process = harness.spawn(command, dict.fromkeys(names, str(trusted)))
        ended: Deferred[int] = Deferred()
        ended.addCallback(lambda status: self._process.lines.feed(b'{"ended":%d}\n' % status))
        self._process.ended.append(ended)
        self._commands = 0
        self._read = 0
        self.log: list[dict[str, Any]] = []
        self.noise: list[str] = []

    async def do(self, command: dict[str, Any]) -> None:
        """Give it a command; returns when that is done."""
        self._commands += 1
        line = json.dumps({**command, "id": self._commands}).encode() + b"\n"
        since = len(self._process.lines.all)
        self._process.process.write(line)
        await self._line(rf'^{{"done":\s*{self._commands}}}$', since)
        self.read()

    async def end(self) -> int:
        """Let it end; its status."""
        self._process.process.write(json.dumps({"do": "end", "id": 0}).encode() + b"\n")
        status = await self._process.wait()
        self.read()
        return status

    def read(self) -> None:
        """Sort what it has said by now."""
        lines = self._process.lines.all
        for line in lines[self._read :]:
            try:
                told = json.loads(line)
            except ValueError:
                told = None
            if not isinstance(told, dict):
                self.noise.append(line)
            elif "event" in told:
                self.log.append(told)
        self._read = len(lines)

    async def until(self, pattern: dict[str, Any], since: int) -> int:
        """Wait for what is so, from this place of the log on; the place behind it."""
        place = since
        while True:
            self.read()
            while place < len(self.log):
                place += 1
                if matches(pattern, self.log[place - 1], is_part=True):
                    return place
            await self._line("", len(self._process.lines.all))

    async def _line(self, pattern: str, since: int) -> None:
        """Wait for a line, from this one on."""
        found = await self._process.expect(rf'{pattern}|^{{"ended"', since)
        if found.string.startswith('{"ended"'):
            raise ChildProcessError(found.string)


class Run:
    """One scenario, with one client."""

    def __init__(self, harness: Harness, scenario: dict[str, Any], command: list[str]) -> None:
        self._scenario = scenario
        self._server = ScriptedServer(harness)
        self._adapter = Adapter(harness, command)
        self._peer: Peer | None = None
        self._ids: dict[str, int] = {}
        self._place = 0
        self._sizes = {name: len(frame(encode(message))) for name, message in scenario.get("frames", {}).items()}
        self._sizes["handshake"] = len(_HANDSHAKE)

    async def run(self) -> tuple[list[Any], list[Any]]:
        """What was expected to be told, and what was told."""
        for number, step in enumerate(steps_of(self._scenario, self._sizes)):
            try:
                await self._step(step)
            except Exception as fault:
                self._adapter.read()
                last = json.dumps(self._adapter.log[-8:])
                said = "\n".join(self._adapter.noise)
                raise AssertionError(f"step {number}, {step}: {fault!r}\nthe log ends with {last}\n{said}") from fault
        expected = log_of(self._scenario, self._sizes)
        if self._peer is not None and not self._peer.is_gone and self._scenario.get("sync", True):
            await self._sync()
        if len(self._adapter.log) < len(expected):
            await self._adapter.until(expected[-1], max(0, len(self._adapter.log) - 1))
        assert await self._adapter.end() == 0, self._adapter.noise
        assert self._adapter.noise == [], "\n".join(self._adapter.noise)
        return expected, self._adapter.log

    async def _step(self, step: dict[str, Any]) -> None:
        (name,) = set(step) & set(_STEPS)
        await getattr(self, f"_{name}")(step[name], step)

    # What the application does.

    async def _client(self, command: dict[str, Any], _: dict[str, Any]) -> None:
        if command["do"] == "start":
            options = {"affinity": "here", **command.get("options", {})}
            command = {"url": self._server.url, "time": START, "random": [0], **command, "options": options}
        await self._adapter.do(command)

    async def _await(self, pattern: dict[str, Any], _: dict[str, Any]) -> None:
        self._place = await self._adapter.until(pattern, self._place)

    # What the server does.

    @property
    def _connection(self) -> Peer:
        assert self._peer is not None, "nobody was accepted yet"
        return self._peer

    async def _accept(self, how: dict[str, Any], step: dict[str, Any]) -> None:
        peer = self._peer = await self._server.next()
        assert peer.token == how.get("token"), f"the token {peer.token}, not {how.get('token')}"
        await self._write(peer.handshake(), step)

    async def _refuse(self, how: dict[str, Any], _: dict[str, Any]) -> None:
        peer = self._peer = await self._server.next()
        lines = [f"HTTP/1.1 {how['status']} No", "Content-Length: 0", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in how.get("headers", {}).items()]
        peer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        peer.end()

    async def _visit(self, _: Any, __: Any) -> None:
        """Somebody has come, and gets no answer."""
        self._peer = await self._server.next()

    async def _greet(self, _: Any, __: Any) -> None:
        for name in ("offsets", "snapshot"):
            await self._receive({"method": "SET_PROPERTY", "params": [name, True]}, {"reply": {}})

    async def _receive(self, pattern: dict[str, Any], step: dict[str, Any]) -> None:
        peer = self._connection

        def find() -> dict[str, Any] | None:
            for request in peer.requests:
                if matches({"id": {"$any": True}, **pattern}, request):
                    peer.requests.remove(request)
                    return request
            assert not peer.is_gone, f"the connection is gone, and what came on it is {peer.requests}"
            return None

        request = await self._server.waiting.until(find)
        if "as" in step:
            self._ids[step["as"]] = request["id"]
        for e in ("reply", "error"):
            if e in step:
                peer.write(frame(encode(_answer(e, request["id"], step[e]))))

    async def _answer(self, name: str, step: dict[str, Any]) -> None:
        """A request that was received before."""
        (e,) = {"reply", "error"} & set(step)
        await self._write(frame(encode(_answer(e, self._ids[name], step[e]))), step)

    async def _send(self, message: Any, step: dict[str, Any]) -> None:
        messages = message if isinstance(message, list) else [message]
        data = b"".join(
            self._framed(each, step.get("fragments", 1), BINARY if step.get("binary") else TEXT) for each in messages
        )
        await self._write(data, step)

    def _framed(self, message: Any, fragments: int, opcode: int) -> bytes:
        if isinstance(message, dict) and set(message) == {"frame"}:
            message = self._scenario["frames"][message["frame"]]
        payload = encode(message)
        size = -(-len(payload) // fragments)
        parts = [payload[start : start + size] for start in range(0, len(payload), size)]
        framed = [frame(part, 0 if place else opcode, place == len(parts) - 1) for place, part in enumerate(parts)]
        return b"".join(framed)

    async def _raw(self, text: str, step: dict[str, Any]) -> None:
        await self._write(bytes.fromhex(text), step)

    async def _write(self, data: bytes, step: dict[str, Any]) -> None:
        peer = self._connection
        if "upto" in step:
            peer.write(data[: step["upto"]])
        elif "torn" in step:
            await self._server.write_torn(peer, data, 1 if step["torn"] == "every" else step["torn"])
        else:
            peer.write(data)

    async def _close(self, how: dict[str, Any], _: dict[str, Any]) -> None:
        self._connection.close(how["code"], how.get("reason", ""))

    async def _die(self, how: str, _: dict[str, Any]) -> None:
        """End it without a word, behind what was written or at once."""
        peer = self._connection
        if how == "reset":
            peer.reset()
        else:
            peer.end()

    async def _closed(self, code: int, _: dict[str, Any]) -> None:
        """The client has closed the connection, with this code."""
        peer = self._connection
        found = await self._server.waiting.until(lambda: peer.close_code or (1006 if peer.is_gone else None))
        assert found == code, f"the client has closed with {found}"

    async def _nothing(self, _: Any, __: Any) -> None:
        """No request has come that was not received."""
        await self._sync()
        assert self._connection.requests == []

    async def _sync(self) -> None:
        """Hear from the client: what was sent before has come, and what it has told of that is in the log."""
        peer = self._connection
        pongs = peer.pongs
        peer.write(frame(b"", PING))
        await self._server.waiting.until(lambda: True if peer.pongs > pongs or peer.is_gone else None)
        await self._adapter.do({"do": "sync"})


_STEPS = (
    "client",
    "await",
    "accept",
    "refuse",
    "visit",
    "greet",
    "receive",
    "answer",
    "send",
    "raw",
    "close",
    "die",
    "closed",
    "nothing",
)

_HANDSHAKE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def encode(message: Any) -> bytes:
    """What goes on the wire: a text as it is, anything else as JSON."""
    return message.encode() if isinstance(message, str) else json.dumps(message, separators=(",", ":")).encode()


def _answer(e: str, request: int, more: dict[str, Any]) -> dict[str, Any]:
    usual = {"result": None} if e == "reply" else {}
    return {"stream": f"!{e}", "data": {"e": e, "id": request, **usual, **more}}
