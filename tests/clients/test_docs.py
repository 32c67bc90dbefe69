"""The documentation's programs that use other people's clients, each with the client that it is for."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import pytest_twisted
from packaging.utils import canonicalize_name
from twisted.internet.defer import ensureDeferred

from tests.clients.bots import REQUIREMENTS, Bot, needs, package_of
from tests.clients.engine import Engine, Writes
from tests.clients.scenes import AS_IT_IS, declared, meanwhile
from tests.docs_runner import Block, blocks, tables
from tests.system.forwarder import Forwarder
from tests.system.harness import DaemonProcess, Harness

PROGRAMS = [(package, block) for block in blocks("python") if (package := package_of(block.text))]


@pytest.mark.parametrize(
    ("package", "block"),
    [pytest.param(package, block, marks=needs(package), id=package) for package, block in PROGRAMS],
)
@pytest_twisted.ensureDeferred
async def test_a_program_prints_what_is_published(harness: Harness, package: str, block: Block) -> None:
    """Its market's messages, or what it makes of them."""
    daemon = await harness.daemon("--demo", *AS_IT_IS)
    program = harness.directory / "program.py"
    address = f"127.0.0.1:{daemon.port}"
    program.write_text(block.text.replace("localhost:8080", address), encoding="utf-8")
    bot = Bot(harness, package, "snippet", daemon.port, program=str(program))
    await bot.printed(r"(TATA.INR.*\d)")


@pytest.mark.parametrize(
    ("package", "block"),
    [
        pytest.param(package, block, marks=needs(package), id=package)
        for package, block in PROGRAMS
        if package in ("python-binance", "ccxt")
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_program_goes_on_after_a_restart(harness: Harness, package: str, block: Block) -> None:
    """Of the daemon; what each of these clients makes of it by itself is an end."""
    redis = await harness.redis()
    engine = Engine(await redis.connect(), random.Random(1), Writes.BINANCE)
    await engine.begin()

    async def start(name: str) -> tuple[DaemonProcess, str]:
        path = str(harness.directory / name)
        options = (*AS_IT_IS, *declared(harness), "--port", f"unix:{path}")
        daemon = await harness.daemon(*options, redis=redis, wait=False)
        await daemon.expect(r"redis: connected")
        return daemon, path

    daemon, path = await start("one")
    door = Forwarder(harness, path)
    program = harness.directory / "program.py"
    program.write_text(block.text.replace("localhost:8080", f"127.0.0.1:{door.port}"), encoding="utf-8")
    bot = Bot(harness, package, "snippet", door.port, program=str(program))

    async def update() -> None:
        await engine.keep()
        if await engine.is_followed():
            await engine.update(2)

    await meanwhile(harness, update, ensureDeferred(bot.printed(r"^(TATA.INR .*\d)")))
    _, door.path = await start("another")
    assert await daemon.stop("TERM") == 0
    await meanwhile(harness, update, ensureDeferred(bot.printed(r"^(once more, in a second: .*)")))
    await meanwhile(harness, update, ensureDeferred(bot.printed(r"^(TATA.INR .*\d)")))


def test_every_client_has_a_program_and_its_version() -> None:
    """The documentation names the clients that are tested, and no others, in the versions that are installed."""
    (table,) = [each for each in tables("docs/market-data.md") if each.heading == "Clients made for Binance"]
    named = {re.findall(r"[\w-]+", package)[0]: version for package, version, _ in table.rows}
    assert named == {path.stem: _version(path) for path in REQUIREMENTS.glob("*.txt")}
    assert sorted(package for package, _ in PROGRAMS) == sorted(named)


def _version(path: Path) -> str:
    """The client's own, of the versions in its file."""
    pins = dict(line.split("==") for line in path.read_text(encoding="utf-8").splitlines()[1:])
    return next(version for name, version in pins.items() if canonicalize_name(name) == path.stem)
