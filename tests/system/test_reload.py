"""SIGHUP while clients are connected: what of the file, the keys and the certificates changes, and who notices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest_twisted

from tests.by_hand import handshake, say
from tests.certificates import Authority
from tests.system.harness import DaemonProcess, Harness, RawConnection, trade
from tests.system.test_access import knock, token
from tests.tokens import SECRET

A, B = "https://a.example", "https://b.example"


class Reloaded:
    """A daemon, and its file."""

    def __init__(self, harness: Harness, daemon: DaemonProcess, file: Path) -> None:
        self.harness = harness
        self.daemon = daemon
        self._file = file

    async def says(self, text: str, *lines: str) -> None:
        """The file does from now on, and this is what the daemon says to that."""
        self._file.write_text(text)
        since = len(self.daemon.lines)
        self.daemon.process.signal("HUP")
        for line in lines:
            await self.daemon.expect(f" {line}$", since)

    async def status(self, **headers: str) -> int:
        """What somebody gets who comes now, and leaves again."""
        answer = await knock(self.harness, self.daemon, **headers)
        await self.harness.hang_up(answer.raw)
        return answer.status


@pytest_twisted.ensureDeferred
async def test_what_can_change_does_and_nobody_leaves(harness: Harness) -> None:
    """Origins, limits, keys: for who comes from then on. What cannot change is named, what cannot be used changes
    nothing.
    """
    redis = await harness.redis()
    file = harness.directory / "marketfeed.toml"
    one, other = harness.directory / "one", harness.directory / "other"
    one.write_bytes(SECRET)
    other.write_bytes(b"another secret, which is as long as it must be")
    auth = 'auth = "optional"\nauth_key = "{}"\n'
    before = f'allowed_origin = "{A}"\nmax_streams = 2\n' + auth.format(one)
    file.write_text(before)
    reloaded = Reloaded(
        harness, await harness.daemon("--config", str(file), "--client-queue", "500000", redis=redis), file
    )
    bearer = {"Authorization": f"Bearer {token()}"}
    old = await harness.client(reloaded.daemon, "/ws", headers=bearer)
    await old.subscribe("trade@A", "trade@B")

    after = f'allowed_origin = "{B}"\nmax_streams = 1\nmax_connections = 2\n' + auth.format(other)
    unfit = f"error nothing is reloaded: request_burst in {file}: 'much' cannot be used; expected .*"
    await reloaded.says(after + 'request_burst = "much"\n', unfit)
    assert await reloaded.status(Origin=A, **bearer) == 101
    assert await reloaded.status(Origin=B, **bearer) == 403

    await reloaded.says(
        after + 'channel_prefix = "x"\nclient_queue = 400000\n',
        "info  reloaded: allowed_origin, auth_key, max_connections, max_streams",
        "warn  it takes a restart to change channel_prefix",
        "warn  client_queue of the file is not used: --client-queue says otherwise, until a restart",
    )
    assert await reloaded.status(Origin=A) == 403
    assert await reloaded.status(Origin=B) == 101
    assert await reloaded.status(**bearer) == 401
    new = await harness.client(reloaded.daemon, "/ws")
    assert "error" in await new.subscribe("trade@A", "trade@B")
    assert await reloaded.status() == 503

    await old.ask({"method": "UNSUBSCRIBE", "params": ["trade@B"], "id": 2})
    assert await old.subscribe("trade@C") == {"result": None, "id": 1}  # two at a time, as when it came
    engine = await redis.connect()
    await engine.publish("trade@A", trade())
    assert await old.next() == json.loads(trade())

    await reloaded.says(before, "info  reloaded: allowed_origin, auth_key, max_connections, max_streams")
    assert await reloaded.status(Origin=A, **bearer) == 101
    assert await reloaded.daemon.stop() == 0
    for client in (old, new):
        assert (await client.closed)[0] == 1012


@pytest_twisted.ensureDeferred
async def test_certificates(harness: Harness) -> None:
    """One that cannot be used is said at once; one that can be used is shown to new clients. Who is there stays."""
    authority = Authority()
    first, second = authority.issue("localhost"), authority.issue("localhost")
    certificate, key = first.write(harness.directory)
    description = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
    file = harness.directory / "marketfeed.toml"
    file.touch()
    reloaded = Reloaded(harness, await harness.daemon("--port", description, "--config", str(file)), file)

    async def connected() -> RawConnection:
        raw = await harness.raw(reloaded.daemon, authority.client_options())
        raw.send(handshake())
        await raw.until(lambda data: b"\r\n\r\n" in data)
        return raw

    async def shown() -> int:
        raw = await connected()
        raw.transport.loseConnection()  # type: ignore[union-attr]
        return raw.transport.getPeerCertificate().to_cryptography().serial_number  # type: ignore[union-attr,no-any-return]

    old = await connected()
    certificate.write_bytes(second.pem)
    fault = (
        "error nothing is reloaded: --port: .*certKey: .*: its first certificate is not of the key in privateKey; .*"
    )
    await reloaded.says("max_streams = 5\n", fault)
    assert await shown() == first.certificate.serial_number

    second.write(harness.directory)
    await reloaded.says("max_streams = 5\n", "info  reloaded: max_streams")

    async def is_renewed() -> bool:
        return await shown() == second.certificate.serial_number

    await harness.eventually(is_renewed)
    old.send(say({"method": "PING", "id": 7}))
    await old.until_ends(b'{"result":"PONG","id":7}')
    assert await reloaded.daemon.stop() == 0
