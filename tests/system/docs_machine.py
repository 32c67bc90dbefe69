"""What the documentation's commands need around them: the programs, the server and the files that they name."""

from __future__ import annotations

import os
import re
import shlex
import sys

from tests.system.docs_stage import TOKEN_KEY
from tests.system.forwarder import Authority
from tests.system.harness import TWISTD, Harness, Process, Redis, RedisServer, trade

__all__ = ["Engine", "Machine"]

_REDIS_CLI = """
import hiredis, socket, sys
link, reader = socket.socket(socket.AF_UNIX), hiredis.Reader()
link.connect({path!r})
link.sendall(hiredis.pack_command(tuple(sys.argv[1:])))
while (reply := reader.gets()) is False:
    reader.feed(link.recv(65536))
if isinstance(reply, hiredis.ReplyError):
    sys.exit(str(reply))
print("(integer) %d" % reply if isinstance(reply, int) else reply)
"""


class Machine:
    """Where the documentation's commands find what they name: the programs, the server, the daemons, their files.

    A daemon started here uses this server, unless its command says otherwise.
    """

    def __init__(self, harness: Harness, server: RedisServer) -> None:
        self._harness = harness
        self._server = server
        self._programs = harness.directory / "programs"
        self._programs.mkdir()
        self._program("twistd", *TWISTD, "-n", "--pidfile=")
        self._program("marketfeed", "-m", "marketfeed")
        self._program("redis-cli", "-c", _REDIS_CLI.format(path=server.path))
        Authority().issue("localhost").write(harness.directory)
        self.token_key = harness.directory / "token.key"
        self.token_key.write_text(TOKEN_KEY, encoding="utf-8")

    def run(self, command: str, ports: dict[str, int]) -> Process:
        """Run a command, or a script, whose ports are those of the documentation."""
        path = f"{self._programs}:{os.environ['PATH']}"
        environment = {"PATH": path, "REDIS_URL": self._server.url}
        return self._harness.spawn(["sh", "-ec", self._here(command, ports)], environment)

    def _here(self, command: str, ports: dict[str, int]) -> str:
        for written, port in ports.items():
            command = command.replace(f"localhost:{written}", f"127.0.0.1:{port}")
        for pattern, replacement in (
            (r"redis://localhost:6379", self._server.url),
            (r"(/opt/marketfeed(?:-0\.2)?|env)/bin", str(self._programs)),
            (r"(/etc|/run)/marketfeed", str(self._harness.directory)),
            (r"(--port |PORT=)\d+(?=\s|$)", r"\1tcp:0:interface=127.0.0.1"),
            (r"(--admin )tcp:\d+(?=\s|$)", r"\1tcp:0:interface=127.0.0.1"),
            (r"(tcp|ssl):\d+:(?!interface)", r"\1:0:interface=127.0.0.1:"),
            (r"(tcp|ssl):\d+:interface", r"\1:0:interface"),
        ):
            command = re.sub(pattern, replacement, command)
        return command

    def _program(self, name: str, *arguments: str) -> None:
        path = self._programs / name
        path.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *arguments])} "$@"\n', encoding="utf-8")
        path.chmod(0o755)


class Engine:
    """Publishes trades, once somebody has subscribed to them."""

    def __init__(self, harness: Harness, redis: Redis, subscribers: int = 1) -> None:
        self._harness = harness
        self._redis = redis
        self._subscribers = subscribers
        self._number = 0

    async def publish_until(self, process: Process, pattern: str | None) -> None:
        """Publish until the process has printed what is looked for; None: until it has ended."""
        await self._harness.eventually(self._is_heard)

        async def is_done() -> bool:
            self._number += 1
            await self._redis.publish("trade@TATA_INR", trade(number=self._number))
            if pattern is None:
                return process.status is not None
            return any(re.search(pattern, line) for line in process.lines.all)

        await self._harness.eventually(is_done)

    async def _is_heard(self) -> bool:
        _, count = await self._redis.command("PUBSUB", "NUMSUB", "trade@TATA_INR")
        return bool(count == self._subscribers)
