"""The daemon as a process: in front and in the background, its signals, its files, its log, its demo."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol

from tests.by_hand import CLOSE, frame, handshake, say
from tests.certificates import Authority, ServerCertificate
from tests.system.admin_port import ADMIN, AdminPort
from tests.system.harness import DEADLINE, TWISTD, DaemonProcess, Harness, Process, RawConnection, trade, with_constants

LOCAL = ("--port", "tcp:0:interface=127.0.0.1")


def twistd(harness: Harness, *arguments: str, before: tuple[str, ...] = (), **environment: str) -> Process:
    """Run twistd with these arguments, from the directory of the harness. `before`: what is to start it."""
    command = [*before, sys.executable, *TWISTD, *arguments]
    command[0] = shutil.which(command[0]) or command[0]
    return harness.spawn(command, environment)


class Background:
    """A daemon that has gone to the background, with its files in the directory of the harness."""

    def __init__(self, harness: Harness, *arguments: str, rundir: str = ".") -> None:
        self.harness = harness
        self.pid_file = harness.directory / "daemon.pid"
        self.log_file = harness.directory / "daemon.log"
        files = ("--rundir", rundir, "--pidfile", "daemon.pid", "--logfile", "daemon.log")
        self.parent = twistd(harness, *files, "marketfeed", *arguments)
        self.pid = 0
        self.host = "127.0.0.1"
        self.port = 0

    async def start(self) -> None:
        """Wait until its parent has seen it start."""
        self.harness.on_close(self._kill)
        assert await self.parent.wait() == 0, self.parent.lines.all
        self.pid = int(self.pid_file.read_text())
        found = re.search(r"listening on port (\d+)", self.log)
        assert found
        self.port = int(found[1])

    async def end(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal, and wait until it is gone."""
        os.kill(self.pid, number)
        await self.harness.eventually(lambda: not is_running(self.pid))

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def _kill(self) -> None:
        if self.pid_file.exists():
            os.kill(int(self.pid_file.read_text()), signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Whether there is such a process; one whose end nobody has asked for yet is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # gone meanwhile
            if parent == pid and is_running(int(entry.name)):
                found.append(int(entry.name))
    return found


def that_mention(text: str) -> list[int]:
    """The processes on whose command line this stands, but for the one that runs the test."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if text.encode() in (entry / "cmdline").read_bytes() and is_running(int(entry.name)):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def complaints(lines: list[str]) -> list[str]:
    return [line for line in lines if " error " in line or " critical " in line or "Traceback" in line]


# In front.


@pytest.mark.parametrize("number", ["TERM", "INT"])
@pytest_twisted.ensureDeferred
async def test_in_front_it_ends_with_status_0(harness: Harness, number: str) -> None:
    """At each of the signals that mean an end, and takes the file of its process id away."""
    pid_file = harness.directory / "daemon.pid"
    process = twistd(harness, "-n", "--pidfile", str(pid_file), "marketfeed", *LOCAL)
    await process.expect("clients on port")
    assert int(pid_file.read_text()) == process.pid
    process.signal(number)
    assert await process.wait() == 0
    assert not pid_file.exists()
    text = "\n".join(process.lines.all)
    assert f"ending: SIG{number}" in text
    assert text.endswith("info  stopped")


@pytest_twisted.ensureDeferred
async def test_it_ends_while_redis_is_out_of_reach(harness: Harness) -> None:
    """It does not wait for a connection."""
    daemon = await harness.daemon("--redis-url", "redis://127.0.0.1:1")
    await daemon.expect("no connection to")
    assert await daemon.stop("TERM") == 0


@pytest_twisted.ensureDeferred
async def test_a_number_is_a_port_on_all_addresses(harness: Harness) -> None:
    """0 is any free one."""
    process = twistd(harness, "-n", "--pidfile=", "marketfeed", "--port", "0")
    daemon = DaemonProcess(process)
    daemon.port = int((await process.expect(r"clients on port (\d+),"))[1])
    client = await harness.client(daemon)
    assert await client.ask({"method": "PING"})
    assert await daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_a_unix_socket(harness: Harness) -> None:
    """For a proxy on the same machine."""
    path = harness.directory / "public.sock"
    process = twistd(harness, "-n", "--pidfile=", "marketfeed", "--port", f"unix:{path}")
    await process.expect(f"clients on {path},")
    raw = RawConnection(harness.reactor)
    await connectProtocol(UNIXClientEndpoint(harness.reactor, str(path)), raw)
    raw.send(handshake() + say({"method": "PING", "id": 1}))
    await raw.until_ends(b'{"result":"PONG","id":1}')
    process.signal("INT")
    assert await process.wait() == 0
    await raw.until_closed()
    assert not path.exists()
    assert complaints(process.lines.all) == []


@pytest_twisted.ensureDeferred
async def test_tls(harness: Harness) -> None:
    """Twisted's own description of it; publications come through it, all of them and in order, and so does a close."""
    authority = Authority()
    certificate, key = authority.issue("localhost").write(harness.directory)
    redis = await harness.redis()
    description = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
    program = with_constants(websocket__closing__CLOSE_SECONDS=2 * DEADLINE)  # no end is by a timer
    daemon = await harness.daemon("--port", description, redis=redis, program=program)
    raw = await harness.raw(daemon, authority.client_options())
    raw.send(handshake() + say({"method": "SUBSCRIBE", "params": ["trade@A"], "id": 1}))
    await raw.until_ends(b'{"result":null,"id":1}')
    engine = await redis.connect()
    await engine.publish("trade@A", *(trade(number=number, filler="x" * 5000) for number in range(500)))
    await raw.until(lambda data: data.count(b'"filler"') == 500)
    await raw.until_ends(b'x"}')
    assert [int(number) for number in re.findall(rb'"t":(\d+)', raw.data)] == list(range(500))
    other = await harness.raw(daemon, authority.client_options())
    other.send(handshake() + frame(b"\x03\xe8", CLOSE))
    assert (await other.until_closed()).endswith(b"\x88\x02\x03\xe8")
    await daemon.expect(r"client \S+-2 disconnected after \S+ s: closed by the client with 1000")
    assert await daemon.stop() == 0
    assert b"serverShutdown" in await raw.until_closed()
    assert complaints(daemon.lines) == []


@pytest_twisted.ensureDeferred
async def test_a_certificate_is_renewed_while_it_runs(harness: Harness) -> None:
    """A client who knows the root only gets publications, through both of the certificates; a broken one is logged."""
    root = Authority()
    below = Authority(root)
    first, second = below.issue("localhost"), below.issue("localhost")
    certificate, key = first.write(harness.directory)
    redis = await harness.redis()
    description = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
    daemon = await harness.daemon("--port", description, redis=redis)

    async def subscribed() -> RawConnection:
        raw = await harness.raw(daemon, root.client_options())
        raw.send(handshake() + say({"method": "SUBSCRIBE", "params": ["trade@A"], "id": 1}))
        await raw.until_ends(b'{"result":null,"id":1}')
        return raw

    def shown(raw: RawConnection) -> int:
        return raw.transport.getPeerCertificate().to_cryptography().serial_number  # type: ignore[union-attr]

    async def comes(what: ServerCertificate, line: str) -> RawConnection:
        """Connect until the daemon has logged that, which it does when somebody connects; then once more."""

        async def is_logged() -> bool:
            (await subscribed()).transport.loseConnection()  # type: ignore[union-attr]
            return any(line in each for each in daemon.lines)

        await harness.eventually(is_logged)
        raw = await subscribed()
        assert shown(raw) == what.certificate.serial_number
        return raw

    old = await subscribed()
    key.write_bytes(second.pem_key())
    await comes(first, "its first certificate is not of the key")
    second.write(harness.directory)
    new = await comes(second, "new connections get the renewed certificate")
    await (await redis.connect()).publish("trade@A", trade(number=7))
    for raw in (old, new):
        await raw.until(lambda data: b'"t":7' in data)
    assert await daemon.stop() == 0
    assert complaints(daemon.lines) == []


@pytest_twisted.ensureDeferred
async def test_tls_without_a_usable_key_is_one_line(harness: Harness) -> None:
    """Which names the option, the field and the file."""
    process = twistd(harness, "-n", "--pidfile=", "marketfeed", "--port", "ssl:0:privateKey=/nonexistent")
    assert await process.wait() == 1
    (line,) = process.lines.all
    assert line.startswith("marketfeed: --port: ")
    assert "privateKey: /nonexistent: No such file or directory; expected a PEM file" in line


@pytest_twisted.ensureDeferred
async def test_a_drain_loses_nothing_that_was_published_before(harness: Harness) -> None:
    """Each client gets all of it, then its farewell, and the daemon ends when the last has gone."""
    redis = await harness.redis()
    program = with_constants(websocket__connections___GRACE=DEADLINE)
    daemon = await harness.daemon("--drain-seconds", "1", redis=redis, program=program)
    clients = [await harness.client(daemon, "/ws/trade@A") for _ in range(30)]
    slower = [await harness.client(daemon, "/ws/ticker@A@1000ms") for _ in range(3)]
    engine = await redis.connect()
    for number in range(50):
        await engine.publish("trade@A", trade(number=number))
        await engine.publish("ticker@A", f'{{"e":"ticker","c":"{number}","s":"A"}}')
    daemon.process.signal("TERM")
    for client in clients:
        assert [(await client.next())["t"] for _ in range(50)] == list(range(50))
        assert (await client.next())["e"] == "serverShutdown"
        assert (await client.closed)[0] == 1012
    for client in slower:  # what waits for its time goes before the farewell
        assert (await client.closed)[0] == 1012
        *_, last, farewell = map(json.loads, client.received)
        assert (last["c"], farewell["e"]) == ("49", "serverShutdown")
    assert await daemon.process.wait() == 0
    assert complaints(daemon.lines) == []


# In the background.


@pytest_twisted.ensureDeferred
async def test_in_the_background(harness: Harness) -> None:
    """It serves, with a log and the file of its process id, which it takes away in the end."""
    redis = await harness.redis()
    (harness.directory / "run").mkdir()
    daemon = Background(harness, *LOCAL, "--redis-url", redis.url, rundir="run")
    await daemon.start()
    assert daemon.parent.lines.all == []
    client = await harness.client(daemon)  # type: ignore[arg-type]
    await client.subscribe("trade@A")
    engine = await redis.connect()
    await engine.publish("trade@A", trade())
    assert (await client.next())["data"] == json.loads(trade())
    await daemon.end()
    assert (await client.closed)[0] == 1012
    assert not daemon.pid_file.exists()
    assert "ending: SIGTERM" in daemon.log
    assert daemon.log.endswith("info  stopped\n")
    assert "twistd" not in daemon.log
    assert complaints(daemon.log.splitlines()) == []


@pytest_twisted.ensureDeferred
async def test_the_log_of_a_daemon_can_be_rotated(harness: Harness) -> None:
    """As logrotate does it: the file is moved, and at SIGUSR1 another one of the same mode is begun."""
    daemon = Background(harness, *LOCAL)
    await daemon.start()
    moved = harness.directory / "daemon.log.1"
    daemon.log_file.chmod(0o644)
    daemon.log_file.rename(moved)
    os.kill(daemon.pid, signal.SIGUSR1)
    await harness.eventually(daemon.log_file.exists)
    await daemon.end()
    assert "listening on" in moved.read_text()
    assert "ending: SIGTERM" not in moved.read_text()
    assert "listening on" not in daemon.log
    assert "ending: SIGTERM" in daemon.log
    assert daemon.log_file.stat().st_mode & 0o777 == 0o644


@pytest_twisted.ensureDeferred
async def test_at_sighup_it_reads_its_file_again(harness: Harness) -> None:
    """Nobody is sent away, not even by a file that cannot be used; what changes is there for the next one who comes."""
    redis = await harness.redis()
    file = harness.directory / "marketfeed.toml"
    file.write_text(f'redis_url = "{redis.url}"\n')
    (harness.directory / "run").mkdir()
    daemon = Background(harness, *LOCAL, "--config", "marketfeed.toml", rundir="run")
    await daemon.start()
    await harness.eventually(lambda: "redis: connected" in daemon.log)
    client = await harness.client(daemon)  # type: ignore[arg-type]
    await client.subscribe("trade@A")

    async def reload(text: str, line: str) -> None:
        file.write_text(text)
        os.kill(daemon.pid, signal.SIGHUP)
        await harness.eventually(lambda: line in daemon.log)

    await reload('client_queue = "much"\n', "nothing is reloaded: client_queue in marketfeed.toml: 'much' ")
    refused = await client.ask({"method": "SUBSCRIBE", "params": ["funding@A"], "id": 2})
    assert "the kind is none of" in refused["data"]["msg"]
    text = f'redis_url = "{redis.url}"\nchannel_prefix = "x"\nlog_level = "debug"\n[streams.funding]\nloss = "latest"\n'
    await reload(text, "reloaded: log_level, streams.funding")
    await harness.eventually(lambda: "it takes a restart to change channel_prefix" in daemon.log)
    await client.ask({"method": "SUBSCRIBE", "params": ["funding@A"], "id": 3})
    await harness.eventually(lambda: "wanted: funding@A" in daemon.log)  # which is for debugging
    engine = await redis.connect()
    for channel, payload in (("funding@A", b'{"e":"funding","r":"0.01"}'), ("trade@A", trade())):
        await engine.publish(channel, payload)
        assert (await client.next())["data"] == json.loads(payload)
    moved = harness.directory / "daemon.log.1"
    daemon.log_file.rename(moved)
    os.kill(daemon.pid, signal.SIGHUP)
    await harness.eventually(daemon.log_file.exists)
    await daemon.end()
    assert (await client.closed)[0] == 1012
    assert all("nothing is reloaded" in line for line in complaints(moved.read_text().splitlines()))


@pytest_twisted.ensureDeferred
async def test_a_demo_in_the_background(harness: Harness) -> None:
    """The server that it brings belongs to it, not to the process that started it."""
    daemon = Background(harness, *LOCAL, "--demo")
    await daemon.start()
    await harness.eventually(lambda: "redis: connected" in daemon.log)
    (child,) = children(daemon.pid)
    client = await harness.client(daemon, "/ws/trade@TATA_INR")  # type: ignore[arg-type]
    assert (await client.next())["e"] == "trade"
    await daemon.end()
    assert not is_running(child)
    assert complaints(daemon.log.splitlines()) == []


# A port that cannot be had.


@pytest.fixture
def taken() -> Any:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


TAKEN = "marketfeed: port {} is taken; try another, as --port 8090 (make run PORT=8090)"


@pytest_twisted.ensureDeferred
async def test_a_taken_port_in_front(harness: Harness, taken: int) -> None:
    """One line that says what to do, status 1, and no file is left."""
    pid_file = harness.directory / "daemon.pid"
    process = twistd(harness, "-n", "--pidfile", str(pid_file), "marketfeed", "--port", str(taken))
    assert await process.wait() == 1
    (line,) = process.lines.all
    assert line.endswith(f"Z error {TAKEN.format(taken)}")
    assert not pid_file.exists()


@pytest_twisted.ensureDeferred
async def test_a_taken_port_in_the_background(harness: Harness, taken: int) -> None:
    """Whoever starts it sees the line, and so does the log; nothing is left running, and no file."""
    daemon = Background(harness, "--port", str(taken), "--channel-prefix", str(harness.directory))
    assert await daemon.parent.wait() == 1
    assert daemon.parent.lines.all == [TAKEN.format(taken)]
    await harness.eventually(lambda: not that_mention(str(harness.directory)))
    assert not daemon.pid_file.exists()
    assert complaints(daemon.log.splitlines()) == [daemon.log.splitlines()[-1]]
    assert "is taken" in daemon.log.splitlines()[-1]


@pytest_twisted.ensureDeferred
async def test_a_taken_port_with_a_demo(harness: Harness, taken: int) -> None:
    """The server that it would bring is never started."""
    process = twistd(harness, "-n", "--pidfile=", "marketfeed", "--demo", "--port", str(taken))
    assert await process.wait() == 1
    assert "is taken" in process.lines.all[-1]
    assert "Traceback" not in "".join(process.lines.all)


# Options that cannot be used.


@pytest_twisted.ensureDeferred
async def test_what_is_wrong_is_one_line(harness: Harness) -> None:
    """Whether it is found in the options, between them, or in what they name; and the status is 1."""
    for says, arguments in {
        "--port: 'many' cannot be used": ["--port", "many"],
        "option --nonsense not recognized": ["--nonsense"],
        "--auth-key: /nonexistent: No such file": ["--auth", "required", "--auth-key", "/nonexistent"],
    }.items():
        process = twistd(harness, "-n", "--pidfile=", "marketfeed", *arguments)
        assert await process.wait() == 1
        (line,) = process.lines.all
        assert line.startswith(f"marketfeed: {says}")


@pytest_twisted.ensureDeferred
async def test_a_password_appears_nowhere(harness: Harness) -> None:
    """Given on the command line it draws a warning; the log never has it, however detailed, and whatever goes wrong."""
    redis = await harness.redis("--requirepass", "correct-horse")
    secrets = ("correct-horse", "battery-staple")
    good, bad = (f"unix://:{secret}@{redis.path}" for secret in secrets)
    for url, outcome in ((good, "redis: connected"), (bad, "the login was refused")):
        on_command_line = await harness.daemon("--redis-url", url, "--log-level", "debug")
        options = ("-n", "--pidfile=", "marketfeed", *LOCAL, "--log-level", "debug", "--log-format", "json")
        in_environment = twistd(harness, *options, REDIS_URL=url)
        for process in (on_command_line.process, in_environment):
            await process.expect(outcome)
            process.signal("INT")
            assert await process.wait() == 0
            assert not any(secret in line for line in process.lines.all for secret in secrets)
        warning = "--redis-url holds a password, which other users of this host can read: use REDIS_URL"
        assert sum(warning in line for line in on_command_line.lines) == 1
        assert not any("holds a password" in line for line in in_environment.lines.all)


# The log.


@pytest_twisted.ensureDeferred
async def test_publications_are_not_logged(harness: Harness) -> None:
    """Not even with every detail; those that are bad are, once a second at most."""
    redis = await harness.redis()
    daemon = await harness.daemon("--log-level", "debug", redis=redis)
    clients = [await harness.client(daemon, "/ws") for _ in range(3)]
    for client in clients:
        await client.subscribe("trade@A", "a@trade")
    engine = await redis.connect()
    begun = len(daemon.lines)
    await engine.publish("trade@A", *(trade(number=number) for number in range(1000)))
    for client in clients:
        for _ in range(2000):
            await client.next_bytes()
    assert await daemon.stop() == 0
    lines = daemon.lines[begun:]
    kinds = Counter(re.sub(r"\d+", "#", line.partition("Z ")[2]) for line in lines)
    assert max(kinds.values()) < 50, kinds


# Limits of the machine.


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit is not installed")
@pytest_twisted.ensureDeferred
async def test_open_files(harness: Harness) -> None:
    """The limit is raised as far as it goes, the number of clients lowered to what fits; all of those are served.

    Of the 32 files that are left, an eighth is for connections without a request.
    """
    redis = await harness.redis()
    limits = ("prlimit", "--nofile=64:160")
    process = twistd(harness, "-n", "--pidfile=", "marketfeed", *LOCAL, "--redis-url", redis.url, before=limits)
    daemon = DaemonProcess(process)
    daemon.port = int((await process.expect(r"listening on port (\d+)"))[1])
    await daemon.expect(r"info  marketfeed .*: up to 28 clients on port")
    assert not any("--max-connections" in line for line in daemon.lines)  # nobody has asked for more
    await daemon.expect("redis: connected")
    assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (160, 160)
    clients = [await harness.client(daemon) for _ in range(28)]
    for _ in range(3):
        raw = await harness.raw(daemon)
        raw.send(handshake())
        assert (await raw.until_closed()).startswith(b"HTTP/1.1 503 ")
    for client in clients:
        await client.subscribe("trade@A")
    engine = await redis.connect()
    await engine.publish("trade@A", trade())
    for client in clients:
        assert (await client.next())["data"] == json.loads(trade())
    assert await daemon.stop() == 0
    assert complaints(daemon.lines) == []


# The demo.

BROWSER = "GET / HTTP/1.1\nHost: localhost\nAccept: text/html,*/*;q=0.8"


@pytest_twisted.ensureDeferred
async def test_only_a_demo_has_a_page(harness: Harness) -> None:
    """Elsewhere a browser is told what the endpoint is for."""
    daemon = await harness.daemon(redis=await harness.redis())
    assert (await harness.http(daemon, BROWSER))[0] == 426
    assert (await harness.http(daemon, BROWSER.replace("/ ", "/market/app.js ")))[0] == 404
    assert await daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_a_demo_needs_nothing(harness: Harness) -> None:
    """No Redis at all, and there is a market: trades, tickers, a book. It says how to look at it."""
    daemon = await harness.daemon("--demo", *ADMIN)
    await daemon.expect(f"A simulated market is open: http://localhost:{daemon.port}/")
    status, headers, page = await harness.http(daemon, BROWSER)
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (await harness.http(daemon, BROWSER.replace("GET", "HEAD")))[1:] == (headers, b"")
    assert page.startswith(b"<!doctype html>")
    await daemon.expect(f"watch ws://localhost:{daemon.port} trade@TATA_INR")
    await daemon.expect(f"How it is doing: http://localhost:{(await AdminPort.of(daemon)).port}/")
    client = await harness.client(daemon)
    await client.subscribe("trade@TATA_INR", "ticker@TATA_INR", "depth@TATA_INR")
    seen: Counter[str] = Counter()
    while not seen.keys() >= {"trade@TATA_INR", "ticker@TATA_INR", "depth@TATA_INR"} or min(seen.values()) < 3:
        message = await client.next()
        assert message["stream"].startswith(message["data"]["e"])
        seen[message["stream"]] += 1
    _, _, markets = await harness.http(daemon, "GET /api/v3/exchangeInfo?symbol=TATA_INR HTTP/1.1\nHost: localhost")
    (market,) = json.loads(markets)["symbols"]
    assert (market["baseAsset"], market["filters"][0]["tickSize"]) == ("TATA", "0.05")
    (child,) = children(daemon.process.pid)
    assert await daemon.stop("TERM") == 0
    assert not is_running(child)
    assert (await client.closed)[0] == 1012
    assert complaints(daemon.lines) == []


@pytest_twisted.ensureDeferred
async def test_a_demo_whose_server_dies(harness: Harness) -> None:
    """Starts it again, and the market goes on; clients hear of the gap."""
    daemon = await harness.daemon("--demo")
    await daemon.expect("redis: connected")
    client = await harness.client(daemon)
    await client.subscribe("trade@TATA_INR")
    assert (await client.next())["stream"] == "trade@TATA_INR"
    (child,) = children(daemon.process.pid)
    os.kill(child, signal.SIGKILL)
    events = []
    while len(events) < 2:
        message = await client.next()
        if message["stream"] == "!gap":
            events.append(message["data"])
    assert (events[0]["to"], events[0]["from"]) == (None, events[1]["from"])
    assert (await client.next())["stream"] == "trade@TATA_INR"
    (new,) = children(daemon.process.pid)
    assert new != child
    assert await daemon.stop() == 0
    assert not is_running(new)
