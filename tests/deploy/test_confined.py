"""The daemon confined as the unit says, with TLS for clients and to Redis: it does all that it does elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
import pytest_twisted

from tests.by_hand import handshake, say
from tests.certificates import Authority
from tests.deploy.files import ROOT
from tests.system.forwarder import Forwarder
from tests.system.harness import Harness, trade

_FORBIDDEN = """
import os, socket
from tests.deploy.sandboxed import confine
confine()
for call in (
    lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    lambda: os.setuid(os.getuid()),
    lambda: os.nice(1),
    lambda: os.chroot("/"),
):
    try:
        call()
    except OSError as fault:
        print(type(fault).__name__)
socket.socket(socket.AF_UNIX)
"""


def _can_be_confined() -> bool:
    """Whether libseccomp and systemd's sets of calls are here."""
    if shutil.which("systemd-analyze") is None:
        return False
    command = [sys.executable, "-c", "from tests.deploy.sandboxed import confine; confine()"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not _can_be_confined(), reason="no libseccomp, or no systemd-analyze")


def test_it_is_confined() -> None:
    """What the unit forbids is refused, and what is left is not: otherwise the test below says nothing."""
    done = subprocess.run([sys.executable, "-c", _FORBIDDEN], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["OSError", *["PermissionError"] * 3]


@pytest_twisted.ensureDeferred
async def test_tls_for_clients_and_to_redis(harness: Harness) -> None:
    """Handshakes good and bad, a link that is lost and comes back, a reload, a drain: the log has no complaint."""
    authority = Authority()
    certificate, key = authority.issue("localhost").write(harness.directory)
    ca = authority.write(harness.directory / "ca.pem")
    redis = await harness.redis()
    way = Forwarder(harness, redis.path, authority.issue("localhost"))
    daemon = await harness.daemon(
        *("--port", f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}", "--drain-seconds", "0.1"),
        *("--client-queue", str(1 << 26)),  # no client is too slow
        *("--redis-url", f"rediss://localhost:{way.port}", "--redis-ca", str(ca)),
        *("--admin", f"unix:{harness.directory / 'admin.sock'}", "--log-format", "json"),
        program=("-m", "tests.deploy.sandboxed"),
    )
    await daemon.expect("redis: connected to rediss://")

    client = await harness.raw(daemon, authority.client_options())
    client.send(handshake() + say({"method": "SUBSCRIBE", "params": ["trade@A"], "id": 1}))
    await client.until_ends(b'{"result":null,"id":1}')
    engine = await redis.connect()
    await engine.publish("trade@A", *(trade("A", number, filler="x" * 5000) for number in range(500)))
    await client.until(lambda data: data.count(b'"filler"') == 500)

    stranger = await harness.raw(daemon)
    stranger.send(b"GET / HTTP/1.1\r\n\r\n")
    await stranger.until_closed()
    await daemon.expect("TLS: ")
    since = len(daemon.lines)
    way.cut()
    await daemon.expect("redis: connected to rediss://", since)
    daemon.process.signal("HUP")
    await daemon.expect("reloaded: no option has changed")
    assert await daemon.stop("TERM") == 0
    assert b"serverShutdown" in await client.until_closed()
    complaints = [line for line in daemon.lines if re.search(r"not permitted|Traceback|internal error", line)]
    assert complaints == []
