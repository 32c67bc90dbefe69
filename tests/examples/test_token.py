"""Tokens that end one after the other: both clients go on without a gap, and come back when the issuer does."""

from __future__ import annotations

import json
import re
import shutil
import time
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from tests.examples.shown import commands, run
from tests.javascript.places import needs_node
from tests.system.harness import DaemonProcess, Harness, Process, with_constants

SECONDS = 6
NOTICE = 3.0
SHORT = with_constants(websocket__token_expiry__NOTICE=NOTICE)
"""A daemon that says it so long before the end of a token."""
NEW_KEY, MAKE, _, ISSUER, *CLIENTS = commands("Tokens")


class Market:
    """The market and its issuer, as they are shown, but for the ports and the life of a token."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.daemon: DaemonProcess
        self.issuer: Process
        self._port = 0

    async def begin(self) -> None:
        options = re.fullmatch(r'make run ARGS="(.+)"', MAKE)
        assert options is not None
        assert await run(self.harness, None, NEW_KEY).wait() == 0
        self.daemon = await self.harness.daemon("--demo", *options[1].split(), program=SHORT)
        await self.issue()

    async def issue(self) -> None:
        """Start the issuer, on the port of the one before."""
        words = ISSUER.replace("--seconds 90", f"--seconds {SECONDS}").replace("8070", str(self._port))
        self.issuer = run(self.harness, self.daemon, words)
        self._port = int((await self.issuer.expect(r"^tokens are at http://localhost:(\d+)/token$"))[1])

    def client(self, command: str) -> Process:
        return run(self.harness, self.daemon, command.replace("localhost:8070", f"127.0.0.1:{self._port}"))

    def ends(self) -> list[int]:
        """When the tokens end that were issued, in seconds since 1970."""
        found = (re.fullmatch(r"alice: a token until (\d+)", line) for line in self.issuer.lines.all)
        return [int(each[1]) for each in found if each]

    def ask(self, session: str, path: str = "token") -> tuple[int, dict[str, str]]:
        """The issuer's answer, to be called in a thread."""
        url = f"http://127.0.0.1:{self._port}/{path}"
        request = Request(url, method="POST", headers={"Authorization": f"Bearer {session}"})
        try:
            with build_opener(ProxyHandler({})).open(request) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)


def trades(client: Process) -> list[int]:
    found = (re.fullmatch(r"TATA_INR (\d+) [\d.]+", line) for line in client.lines.all)
    return [int(each[1]) for each in found if each]


def said(client: Process, word: str) -> list[str]:
    return [line for line in client.lines.all if line.startswith(f"{word} ")]


@pytest.mark.parametrize(
    "command", [pytest.param(CLIENTS[0], id="python"), pytest.param(CLIENTS[1], id="javascript", marks=needs_node)]
)
@pytest_twisted.ensureDeferred
async def test_a_client_outlives_its_tokens(command: str, harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    if command.startswith("node"):
        monkeypatch.setenv("NODE_OPTIONS", "--experimental-websocket")
        assert shutil.which("node")
    market = Market(harness)
    await market.begin()
    client = market.client(command)
    await client.expect("^TATA_INR ")
    await harness.eventually(lambda: len(market.ends()) > 2 and time.time() > market.ends()[0] + 1)
    seen = len(trades(client))
    await harness.eventually(lambda: len(trades(client)) > seen + 2)
    numbers = trades(client)
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert said(client, "gap") == []

    market.issuer.signal("INT")
    assert await market.issuer.wait() == 0
    since = len(client.lines.all)
    await client.expect("^error .*(4401|401)", since)
    since = len(client.lines.all)
    await market.issue()
    await client.expect(r"^recovered \d+$", since)
    seen = len(trades(client))
    await harness.eventually(lambda: len(trades(client)) > seen)
    numbers = trades(client)
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert said(client, "gap") == []
    client.signal("INT")
    assert await client.wait() == 0
    assert client.lines.all[-1] == "stopped"
    assert await market.daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_nobody_else_gets_a_token(harness: Harness) -> None:
    market = Market(harness)
    await market.begin()
    assert await deferToThread(market.ask, "guessed") == (401, {"error": "log in first"})
    assert (await deferToThread(market.ask, "a-session-of-alice", "else"))[0] == 404
    assert market.ends() == []
    status, answer = await deferToThread(market.ask, "a-session-of-alice")
    assert status == 200
    who = {"protocols": ["marketfeed", f"bearer.{answer['token']}"]}
    client = await harness.client(market.daemon, **who)
    assert (await client.subscribe("trade@TATA_INR"))["data"]["result"] is None
    refused = await client.ask({"method": "SUBSCRIBE", "params": ["ticker@TATA_INR"], "id": 2})
    while refused["stream"].startswith("trade"):
        refused = await client.next()
    assert "does not cover ticker@TATA_INR" in refused["data"]["msg"]
