"""`marketfeed status` of the real daemon, as a health check runs it and as a person watches it."""

from __future__ import annotations

import sys

import pytest_twisted

from tests.system.admin_port import ADMIN, AdminPort
from tests.system.harness import AT_EASE, DEADLINE, Harness, Process

_PATIENT = (
    f"import sys; from marketfeed.commands.status import asking; asking.SECONDS = {DEADLINE}; "
    "from marketfeed.commands import main; sys.exit(main())"
)
_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
"""A Python program that runs a command in a terminal; what is typed comes from its own stdin."""


def status(harness: Harness, *arguments: str, before: tuple[str, ...] = ()) -> Process:
    return harness.spawn([*before, sys.executable, "-c", _PATIENT, "status", *arguments])


@pytest_twisted.ensureDeferred
async def test_a_health_check(harness: Harness) -> None:
    """0 while all is well, 1 when Redis is away, 2 when there is no daemon; and each says why."""
    redis = await harness.redis()
    daemon = await harness.daemon(*ADMIN, redis=redis, program=AT_EASE)
    url = (await AdminPort.of(daemon)).url
    client = await harness.client(daemon)
    await client.subscribe("trade@A")
    healthy = status(harness, url)
    assert await healthy.wait() == 0
    assert healthy.lines.all[0] == "Healthy. 1 client."
    text = "\n".join(healthy.lines.all)
    for figure in ("1 subscription; ready", "\nclients ", "\nredis           up     unix:", "  127.0.0.1:"):
        assert figure in text
    await redis.kill()
    assert (await client.next())["data"]["e"] == "gap"
    away = status(harness, url)
    assert await away.wait() == 1
    assert away.lines.all[0].startswith("Redis is away since ")
    assert "1 client was told. 1 client." in away.lines.all[0]
    await daemon.stop()
    gone = status(harness, url)
    assert await gone.wait() == 2
    told = f"marketfeed status: {url}: Connection refused; expected the address of a daemon's --admin"
    assert gone.lines.all == [told]


@pytest_twisted.ensureDeferred
async def test_watching_in_a_terminal(harness: Harness) -> None:
    """Each picture is drawn over the one before it, through all that becomes of the daemon, until Ctrl-C."""
    redis = await harness.redis()
    daemon = await harness.daemon(*ADMIN, redis=redis, program=AT_EASE)
    url = (await AdminPort.of(daemon)).url
    watching = status(harness, url, "--watch", before=(sys.executable, "-c", _TERMINAL))
    await watching.expect(r"^\x1b\[2J\x1b\[HHealthy\. 0 clients\.\x1b\[K")
    await watching.expect(r"^\x1b\[J\x1b\[HHealthy\. 0 clients\.\x1b\[K")
    await redis.kill()
    await watching.expect(r"\x1b\[HRedis is away since ")
    await daemon.stop()
    await watching.expect(r"\x1b\[Hhttp://.*: Connection refused; expected the address")
    await watching.expect(r"^The last answer, of \d\d:\d\d:\d\d UTC:")
    watching.process.writeToChild(0, b"\x03")
    assert await watching.wait() == 2
    assert not any("Traceback" in line for line in watching.lines.all)
