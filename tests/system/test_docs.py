"""The documentation's examples, executed with real parts."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, connectProtocol

from marketfeed.access.keys import load_keys
from marketfeed.access.tokens import TokenVerifier
from marketfeed.commands.recording.format import Begin, End, Publication, read_records, write_record
from marketfeed.config.options import OPTIONS
from marketfeed.demo.embedded import find_server
from tests.clients.bots import package_of
from tests.docs_runner import DOCUMENTS, ROOT, Block, blocks, commands, inline_code, is_for_the_machine
from tests.programs import find
from tests.system.admin_port import ADMIN, AdminPort
from tests.system.docs_machine import Engine, Machine
from tests.system.docs_stage import UPGRADE, Stage, scenes
from tests.system.forwarder import Forwarder
from tests.system.harness import (
    AT_EASE,
    DEADLINE,
    DaemonProcess,
    Harness,
    Process,
    RawConnection,
    Redis,
    RedisServer,
    trade,
)

SCENES = scenes(blocks("transcript"))
SCRIPTS = [block for block in blocks("sh") if not all(map(is_for_the_machine, commands(block)))]
ARGUMENTS = sorted(
    {
        arguments
        for document in DOCUMENTS
        for code in inline_code(document)
        for arguments in re.findall(r'make run ARGS="(.+)"', code)
    }
)
"""What `make run` is given for the daemon."""

NODE = shutil.which("node")
NGINX = find("nginx")
HAPROXY = find("haproxy")


@pytest.mark.parametrize("scene", SCENES, ids=[str(scene[0]) for scene in SCENES])
@pytest_twisted.ensureDeferred
async def test_transcripts_are_what_happens(scene: list[Block], harness: Harness) -> None:
    """Every message, answer and close that a transcript shows comes as it is shown, and nothing beyond."""
    stage = Stage(harness)
    await stage.prepare()
    for transcript in scene:
        await stage.play(transcript)


# Commands.


@pytest.mark.parametrize("block", SCRIPTS, ids=str)
@pytest_twisted.ensureDeferred
async def test_commands_do_what_they_are_shown_for(block: Block, harness: Harness) -> None:
    """A daemon listens, a watcher shows trades, a script ends without a complaint."""
    server = await harness.redis()
    redis = await server.connect()
    machine = Machine(harness, server)
    lines = [command for command in commands(block) if not is_for_the_machine(command)]
    script = "\n".join(lines)
    if "redis-server" in script:
        await a_restart_loses_nothing(harness, machine, script)
        return
    if "twistd" in script:
        (command,) = lines
        await a_daemon_runs(machine.run(f"exec env {command}", {}), "--help" not in command)
        return
    if "marketfeed check" in script:
        await an_engine_is_checked(harness, redis, machine, script)
        return
    if "market.jsonl.gz" in script or "marketfeed record" in script:
        await a_recording_is_made_or_read(harness, redis, machine, script)
        return
    if "marketfeed bridge" in script:
        await a_bridge_copies(harness, redis, machine, script)
        return
    if "marketfeed candles" in script:
        await candles_are_made(harness, redis, machine, script)
        return
    if "marketfeed simulate" in script:
        await a_market_is_simulated(harness, server, redis, machine, script)
        return
    if "redis-cli" in script and "PUBLISH" not in script:
        await streams_are_set_up(harness, redis, machine, script)
        return
    if "admin.token" in script or "marketfeed status" in script:
        await a_status_is_shown(harness, server, machine, script)
        return
    access = ("--auth", "required", "--auth-key", str(machine.token_key)) if "?token=" in script else ()
    daemons = {port: await harness.daemon(*access, redis=server) for port in ("8080", "8090") if port in script}
    ports = {written: daemon.port for written, daemon in daemons.items()}
    if "marketfeed token" in script and not daemons:
        await a_token_is_printed(machine, script)
    elif "redis-cli" in script:
        await a_client_gets_what_is_published(harness, server, machine, script)
    elif "|" in script:
        process = machine.run(script, ports)
        await Engine(harness, redis, len(daemons)).publish_until(process, None)
        assert process.status == 0, process.lines.all
    else:
        process = machine.run(f"exec {script}", ports)
        await Engine(harness, redis).publish_until(process, r"TATA_INR +trade +1000\.50 +10 +buy$")
        process.signal("INT")
        assert await process.wait() == 0


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest_twisted.ensureDeferred
async def test_what_make_run_is_given(arguments: str, harness: Harness) -> None:
    """The demo starts with it. The console with which README begins may connect then, as may what it is given for."""
    daemon = await harness.daemon("--demo", *shlex.split(arguments))
    await daemon.expect("A simulated market is open")
    for origin in (f"http://localhost:{daemon.port}", *(["null"] if "null" in arguments else [])):
        raw = await harness.raw(daemon)
        raw.send(f"GET / HTTP/1.1\n{UPGRADE}\nOrigin: {origin}\n\n".replace("\n", "\r\n").encode())
        assert (await raw.until(lambda data: b"\r\n" in data)).startswith(b"HTTP/1.1 101 "), origin

    async def has_a_book() -> bool:  # as soon as the past of the market is written, and it is open
        status, _, body = await harness.http(daemon, "GET /api/v3/depth?symbol=TATA_INR HTTP/1.1\nHost: localhost")
        return (status, bool(json.loads(body).get("bids"))) == (200, True)

    await harness.eventually(has_a_book)


async def a_daemon_runs(process: Process, is_endless: bool) -> None:
    if is_endless:
        await process.expect("marketfeed .* clients on ")
        await process.expect(r"redis: connected")
        process.signal("INT")
    assert await process.wait() == 0, process.lines.all


async def a_token_is_printed(machine: Machine, script: str) -> None:
    """One that the key verifies, whether the key was there before or not."""
    if "--new-key" in script:
        machine.token_key.unlink()
    process = machine.run(script, {})
    assert await process.wait() == 0, process.lines.all
    tokens = [line for line in process.lines.all if re.fullmatch(r"eyJ[\w.-]+", line)]
    assert len(tokens) == script.count("--user")
    verifier = TokenVerifier(lambda: load_keys(str(machine.token_key), None), time.time)
    for token in tokens:
        assert verifier.verify(token).user in script


async def a_status_is_shown(harness: Harness, server: RedisServer, machine: Machine, script: str) -> None:
    """That of a daemon which is healthy."""
    (harness.directory / "admin.token").write_text("0123456789abcdef\n", encoding="utf-8")
    daemon = await harness.daemon(*ADMIN, redis=server, program=AT_EASE)
    url = (await AdminPort.of(daemon)).url
    script = re.sub(r"http://marketfeed.internal:8081|(?<=marketfeed status)$", f" {url}", script.strip())
    if "--watch" in script:
        process = machine.run(f"exec {script}", {})
        await process.expect("^Healthy. 0 clients.$")
        process.signal("INT")
        await process.wait()
        return

    async def is_healthy() -> bool:  # a daemon that has the core to itself later than it was waited for is so then
        process = machine.run(f"{script}\necho", {})  # the JSON has no end of line
        return await process.wait() == 0 and "Healthy. 0 clients." in "".join(process.lines.all)

    await harness.eventually(is_healthy)


async def a_client_gets_what_is_published(harness: Harness, server: RedisServer, machine: Machine, script: str) -> None:
    daemon = await harness.daemon(redis=server)
    client = await harness.client(daemon)
    await client.subscribe("trade@TATA_INR")
    assert await machine.run(script, {}).wait() == 0
    assert (await client.next())["data"] == json.loads(shlex.split(script)[-1])


async def a_recording_is_made_or_read(harness: Harness, redis: Redis, machine: Machine, script: str) -> None:
    """A recorder records until it is interrupted; everything else finds a recording, and ends."""
    records = [Begin(1, 1, ("*",)), *(Publication(2, b"depth@A", b"{}") for _ in range(9)), End(3, 9)]
    if "marketfeed record" not in script:
        packed = gzip.compress(b"".join(map(write_record, records)))
        (harness.directory / "market.jsonl.gz").write_bytes(packed)
        process = machine.run(script, {})
        assert await process.wait() == 0, process.lines.all
        return
    process = machine.run(f"exec {script}", {})

    async def is_heard() -> bool:
        return bool(await redis.command("PUBLISH", "trade@TATA_INR", trade()))

    await harness.eventually(is_heard)
    process.signal("INT")
    assert await process.wait() == 0, process.lines.all
    (path,) = (path for path in harness.directory.rglob("*.jsonl.gz"))
    assert isinstance([record for _, record in read_records([path.read_bytes()])][-1], End)


async def an_engine_is_checked(harness: Harness, redis: Redis, machine: Machine, script: str) -> None:
    """What is said of a good one is status 0."""
    records = [Begin(1, 1, ("*",)), Publication(2, b"trade@TATA_INR", trade()), End(3, 1)]
    (harness.directory / "market.jsonl.gz").write_bytes(gzip.compress(b"".join(map(write_record, records))))
    process = machine.run(f"exec {script}", {})
    if "--recording" not in script:
        numbers = itertools.count(1)

        async def is_heard() -> bool:
            await redis.command("PUBLISH", "trade@TATA_INR", trade(number=next(numbers)))
            return any("the first publication is here" in line for line in process.lines.all)

        await harness.eventually(is_heard)
        process.signal("INT")
    assert await process.wait() == 0, process.lines.all
    assert any(line.startswith("trade ") for line in process.lines.all)


async def candles_are_made(harness: Harness, redis: Redis, machine: Machine, script: str) -> None:
    """Of the trades that an engine publishes while the service runs."""
    process = machine.run(f"exec {script}", {})
    await process.expect("every channel is listened to")

    async def are_there() -> bool:
        await redis.publish("trade@TATA_INR", trade())
        return bool(await redis.command("EXISTS", "candles:{TATA_INR}:state"))

    await harness.eventually(are_there)
    process.signal("INT")
    assert await process.wait() == 0


async def a_bridge_copies(harness: Harness, redis: Redis, machine: Machine, script: str) -> None:
    """What is published is in a stream, which the daemon could read."""
    process = machine.run(f"exec {script}", {})
    await process.expect("every channel is listened to")
    await process.expect("appender: connected")
    await redis.publish("trade@TATA_INR", trade())

    async def is_copied() -> bool:
        return bool(await redis.command("XLEN", "trade@TATA_INR"))

    await harness.eventually(is_copied)
    process.signal("INT")
    assert await process.wait() == 0, process.lines.all
    ((_, fields),) = await redis.command("XRANGE", "trade@TATA_INR", "-", "+")
    assert fields == [b"d", trade()]


async def a_market_is_simulated(
    harness: Harness, server: RedisServer, redis: Redis, machine: Machine, script: str
) -> None:
    """Its streams are there, and a daemon that reads them has the book for the first who asks."""
    process = machine.run(f"exec {script}", {})

    async def is_added() -> bool:
        return bool(await redis.command("EXISTS", "depth@TATA_INR"))

    await harness.eventually(is_added)
    daemon = await harness.daemon("--source", "streams", redis=server)

    async def has_a_book() -> bool:  # as soon as the past of the market is written, and it is open
        status, _, body = await harness.http(daemon, "GET /api/v3/depth?symbol=TATA_INR HTTP/1.1\nHost: localhost")
        return (status, bool(json.loads(body).get("bids"))) == (200, True)

    await harness.eventually(has_a_book)
    process.signal("INT")
    assert await process.wait() == 0, process.lines.all


async def a_restart_loses_nothing(harness: Harness, machine: Machine, script: str) -> None:
    """The program of the Python client's page, which listens meanwhile, is told so, and all ends by itself. Here the
    daemon is ended when it has been seen to serve, and not by the clock.
    """
    redis, door = harness.directory / "tried.redis", Forwarder(harness, str(harness.directory / "tried"))
    pid = harness.directory / "tried.pid"
    for shown, here in (
        ("redis-server --port 6390", f"{shlex.quote(find_server())} --port '0' --unixsocket {redis}"),
        ("redis://localhost:6390", f"unix://{redis}"),
        ("--port 8080", f"--port unix:{door.path}"),
        ("timeout 20 twistd -n --pidfile= ", f"twistd -n --pidfile={pid} "),
    ):
        assert shown in script
        script = script.replace(shown, here)
    page = (ROOT / "clients" / "python" / "README.md").read_text(encoding="utf-8")
    (code,) = [each for each in re.findall(r"```python\n(.*?)```", page, re.S) if "Recovered(" in each]
    program = harness.directory / "program.py"
    program.write_text(code.replace("localhost:8080", f"127.0.0.1:{door.port}"), encoding="utf-8")
    process = machine.run(script, {})
    listener = harness.spawn([sys.executable, "-u", str(program)])
    for served in (r"^trade \d+", r"^nothing is missing: \d+ came late"):
        await listener.expect(served)
        os.kill(int(pid.read_text()), signal.SIGTERM)
    listener.signal("KILL")
    await listener.wait()
    assert await process.wait() == 0, process.lines.all


async def streams_are_set_up(harness: Harness, redis: Redis, machine: Machine, script: str) -> None:
    """An entry is there for the daemon to read, a user may read it, the server does what it is told to."""
    process = machine.run(script, {})
    assert await process.wait() == 0, process.lines.all
    words = shlex.split(script)
    if "XADD" in words:
        assert (await redis.command("XLEN", words[2])) == 1
        assert json.loads(words[-1])["s"] == words[2].partition("@")[2]
    elif "SETUSER" in words:
        path = (await redis.command("CONFIG", "GET", "unixsocket"))[1].decode()
        daemon = await harness.daemon("--redis-url", f"unix://marketfeed:s3cret@{path}", "--source", "streams")
        client = await harness.client(daemon)
        assert (await client.subscribe("trade@TATA_INR"))["data"]["result"] is None
        await redis.command("XADD", "trade@TATA_INR", "*", "d", trade())
        assert (await client.next())["stream"] == "trade@TATA_INR"
        assert not any("250 ms" in line or "NOPERM" in line for line in daemon.lines)


# Programs.


def interpreter(kind: str) -> list[str] | None:
    """The command that runs a program; None where there is no Node with a browser's WebSocket."""
    if kind == "python":
        return [sys.executable, "-u"]
    for options in ([], ["--experimental-websocket"]):  # Node 20.10 and 21 have it behind that option
        test = [NODE or "node", *options, "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)"]
        if NODE is not None and subprocess.run(test, capture_output=True, check=False).returncode == 0:
            return [NODE, *options]
    return None


def start_program(block: Block, harness: Harness, port: int) -> Process:
    """Run the program, which connects to this port."""
    run = interpreter(block.kind)
    if run is None:
        pytest.skip("needs Node 20.10 or later")
    if "docs/" in block.text and not (harness.directory / "docs").exists():
        (harness.directory / "docs").symlink_to(ROOT / "docs")
    program = harness.directory / "program"
    program.write_text(block.text.replace("localhost", "127.0.0.1").replace("8080", str(port)), encoding="utf-8")
    return harness.spawn([*run, str(program)])


@pytest.mark.parametrize("block", [each for each in blocks("python", "js") if not package_of(each.text)], ids=str)
@pytest_twisted.ensureDeferred
async def test_programs_print_what_is_published(block: Block, harness: Harness) -> None:
    """A program subscribes and shows trades; one that says it comes back does so, when the daemon goes away."""
    server = await harness.redis()
    redis = await server.connect()
    daemon, path = await daemon_on_a_socket(harness, server, "one")
    door = Forwarder(harness, path)
    process = start_program(block, harness, door.port)
    await Engine(harness, redis).publish_until(process, r"1000\.50")
    if "onclose" in block.text:
        _, door.path = await daemon_on_a_socket(harness, server, "another")
        assert await daemon.stop("TERM") == 0
        process.lines.all.clear()
        await Engine(harness, redis).publish_until(process, r"1000\.50")


@pytest.mark.parametrize("block", [block for block in blocks("js") if "since" in block.text], ids=str)
@pytest_twisted.ensureDeferred
async def test_a_program_that_loses_nothing(block: Block, harness: Harness) -> None:
    """Its link cut again and again, it has every trade once, in order; what nobody has, it says that it has not."""
    server = await harness.redis()
    redis = await server.connect()
    daemon, path = await daemon_on_a_socket(harness, server, "one")
    door = Forwarder(harness, path)
    process = start_program(block, harness, door.port)

    def printed() -> list[str]:
        """The ids of trades and of depth messages, and the complaints, in order."""
        return re.findall(r"\bt: \d+|\bu: \d+|\w+@\w+ something", "\n".join(process.lines.all))

    def book(first: int, last: int, kind: bytes = b"") -> bytes:
        return b'{"e":"depth","U":%d,"u":%d,"a":[["1.0","2"]],"b":[]%b}' % (first, last, kind)

    await harness.eventually(lambda: watched(redis))
    await redis.publish("depth@TATA_INR", book(1, 1), book(2, 2, b',"snapshot":true'), book(3, 3))
    expected = ["u: 2", "u: 3"]

    def has_all() -> bool:
        return printed() == expected

    for number in range(0, 40, 10):
        await redis.publish("trade@TATA_INR", *(trade(number=each) for each in range(number, number + 5)))
        expected += [f"t: {each}" for each in range(number, number + 5)]
        await harness.eventually(has_all)
        door.cut()
        await redis.publish("trade@TATA_INR", *(trade(number=each) for each in range(number + 5, number + 10)))
        expected += [f"t: {each}" for each in range(number + 5, number + 10)]
        await harness.eventually(has_all)
    await redis.publish("depth@TATA_INR", book(4, 4), book(6, 6), book(7, 7), book(8, 8, b',"snapshot":true'))
    expected += ["u: 4", "depth@TATA_INR something", "u: 8"]
    await harness.eventually(has_all)
    since = len(daemon.lines)
    await server.kill()
    await daemon.expect(r"redis: .*trying again", since)
    await server.start()
    await daemon.expect(r"redis: connected", since)
    redis = await server.connect()
    await harness.eventually(lambda: watched(redis))
    numbers = iter(range(100, 10_000))

    async def goes_on() -> bool:
        await redis.publish("trade@TATA_INR", trade(number=next(numbers)))
        return len(printed()) > len(expected) + 2

    await harness.eventually(goes_on)  # what comes before its question is answered is in what is missing
    assert printed()[: len(expected) + 1] == [*expected, "trade@TATA_INR something"]
    assert printed().count("trade@TATA_INR something") == 1


async def watched(redis: Redis) -> bool:
    return {"trade@TATA_INR", "depth@TATA_INR"} <= await redis.channels()


async def daemon_on_a_socket(harness: Harness, server: RedisServer, name: str) -> tuple[DaemonProcess, str]:
    """A daemon, and the path of the Unix socket that it listens on."""
    path = str(harness.directory / name)
    daemon = await harness.daemon("--port", f"unix:{path}", redis=server, wait=False)
    await daemon.expect(r"redis: connected")
    return daemon, path


# Logs.

_CHANGING = (
    (r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|\+00:00)", "TIME"),
    (r"\d+\.\d+\.\d+\.\d+:\d+", "PEER"),
    (r"(redis|unix)://\S*?(?=[:;,]? |$)", "REDIS"),
    (r"port \d+", "PORT"),
    (r"(Python|Twisted|Autobahn|OpenSSL) \d\S*(?=[,:])", r"\1 VERSION"),
    (r"up to \d+ clients", "up to N clients"),
    (r"\b[0-9a-f]{8}-(?=\d)", "RUN-"),
    (r"\d+\.\d s", "SECONDS"),
    (r"\((not )?compiled\)", "(BUILD)"),
)


def shape(line: str) -> str:
    """A line of a log without what differs from run to run."""
    if line.startswith("{"):
        fields = {name: value for name, value in json.loads(line).items() if name != "age"}
        return json.dumps({name: shape(value) if isinstance(value, str) else value for name, value in fields.items()})
    for pattern, word in _CHANGING:
        line = re.sub(pattern, word, line)
    return line


@pytest.mark.parametrize("block", blocks("log"), ids=str)
@pytest_twisted.ensureDeferred
async def test_logs_look_like_that(block: Block, harness: Harness) -> None:
    """What happens in the sample happens to a daemon, which logs these lines in this order."""
    is_json = block.text.startswith("{")
    server = await harness.redis()
    daemon = await harness.daemon("--log-format", "json" if is_json else "text", redis=server)
    client = await harness.client(daemon)
    await client.subscribe("trade@TATA_INR")
    await (await server.connect()).publish("trade@TATA_INR", b'{"e":"trade","m":true,"p":"1","q":"1","s":"TATA_INR"}')
    await daemon.expect("bad publication")
    await server.kill()
    await client.next()
    since = len(daemon.lines)
    await server.start()
    await daemon.expect("redis: connected", since)
    client.sendClose(1000)
    await daemon.expect(r"client \S+-1 disconnected")
    assert await daemon.stop("TERM") == 0
    logged = iter([shape(line) for line in daemon.lines])
    for line in block.text.splitlines():
        assert shape(line) in logged, f"{block}: {shape(line)}\nis not, in this order, among\n" + "\n".join(
            daemon.lines
        )


# The proxies.


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
@pytest.mark.parametrize("block", blocks("nginx"), ids=str)
@pytest_twisted.ensureDeferred
async def test_nginx_lets_in_who_may_come_in(block: Block, harness: Harness) -> None:
    """With the variables of the service. Another site's page gets 403; one connection too many from an address 429,
    whatever address the client says that it has.
    """
    server = await harness.redis()
    variables = service_variables()
    flags = [
        word
        for option in OPTIONS
        if option.environment in variables and option.group in ("Access", "Limits")
        for word in (f"--{option.flag}", variables[option.environment])
    ]
    daemon = await harness.daemon(*flags, redis=server)
    path = start_nginx(block, harness, daemon)
    await harness.eventually(lambda: answers(path))
    engine = await server.connect()

    async def connect(origin: str = "") -> bytes:
        raw = RawConnection(harness.reactor)
        await connectProtocol(UNIXClientEndpoint(harness.reactor, path), raw)
        harness.on_close(lambda: hang_up(raw))
        raw.send(request("/ws/trade@TATA_INR", origin, f"203.0.113.{len(connections)}"))
        connections.append(raw)
        return (await raw.until(lambda data: b"\r\n\r\n" in data)).split(b"\r\n")[0]

    connections: list[RawConnection] = []
    admitted = ("", "https://app.example.com", "https://beta.example.com")
    for origin in admitted:
        assert await connect(origin) == b"HTTP/1.1 101 Switching Protocols", origin
    for origin in ("https://example.org", "http://app.example.com", "https://app.example.com.example.org", "null"):
        assert await connect(origin) == b"HTTP/1.1 403 Forbidden", origin
    most = int(variables["MARKETFEED_MAX_CONNECTIONS_PER_ADDRESS"])
    for _ in range(most - len(admitted)):
        assert await connect() == b"HTTP/1.1 101 Switching Protocols"
    assert await connect() == b"HTTP/1.1 429 Too Many Requests"
    await publish_once_heard(harness, engine)
    await connections[0].until_ends(trade())


def service_variables() -> dict[str, str]:
    """What the file of variables has that the documentation shows."""
    (block,) = blocks("env")
    return dict(line.split("=", 1) for line in block.text.splitlines())


async def publish_once_heard(harness: Harness, engine: Redis) -> None:
    """Publish one trade when the daemon has subscribed to its channel."""

    async def is_heard() -> bool:
        return "trade@TATA_INR" in await engine.channels()

    await harness.eventually(is_heard)
    await engine.publish("trade@TATA_INR", trade())


def hang_up(raw: RawConnection) -> Deferred[bytes] | None:
    if raw.lost.called:
        return None
    assert raw.transport is not None
    raw.transport.abortConnection()  # type: ignore[attr-defined]
    return raw.lost


def request(path: str, origin: str = "", forwarded: str = "") -> bytes:
    """A WebSocket handshake."""
    headers = {"Origin": origin, "X-Forwarded-For": forwarded}
    lines = [f"GET {path} HTTP/1.1", *UPGRADE.splitlines()]
    lines += [f"{name}: {value}" for name, value in headers.items() if value]
    return "\r\n".join([*lines, "", ""]).encode()


def start_nginx(block: Block, harness: Harness, daemon: DaemonProcess) -> str:
    """Start nginx with the block as its only site; returns the path of the socket that it will listen on."""
    directory = harness.directory
    path = directory / "nginx.sock"
    site = re.sub(r"listen \d+", f"listen unix:{path}", block.text)
    site = site.replace("127.0.0.1:8090", f"127.0.0.1:{daemon.port}")
    temporary = "".join(
        f"{name}_temp_path {directory / name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {directory / 'nginx.pid'};\n"
        f"events {{ worker_connections 256; }}\nhttp {{ access_log off;\n{temporary}\n{site} }}\n",
        encoding="utf-8",
    )
    assert NGINX is not None
    arguments = ["-e", "stderr", "-p", str(directory), "-c", "nginx.conf"]
    tested = subprocess.run([NGINX, "-t", *arguments], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, f"{block}: {tested.stderr}"
    harness.spawn([NGINX, *arguments])
    return str(path)


def answers(path: str) -> bool:
    """Whether somebody listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


@pytest.mark.skipif(HAPROXY is None, reason="HAProxy is not installed")
@pytest.mark.parametrize("block", blocks("haproxy"), ids=str)
@pytest_twisted.ensureDeferred
async def test_haproxy_passes_clients_on(block: Block, harness: Harness) -> None:
    """HAProxy finds the daemon ready, and a client gets publications through it."""
    server = await harness.redis()
    daemon = await harness.daemon("--port", "haproxy:tcp:0:interface=127.0.0.1", redis=server)
    port = start_haproxy(block, harness, daemon)
    raw = RawConnection(harness.reactor)
    await connectProtocol(TCP4ClientEndpoint(harness.reactor, "127.0.0.1", port, timeout=DEADLINE), raw)
    harness.on_close(lambda: hang_up(raw))
    raw.send(request("/ws/trade@TATA_INR"))
    await raw.until(lambda data: b"101 Switching Protocols" in data)
    await publish_once_heard(harness, await server.connect())
    await raw.until_ends(trade())


def start_haproxy(block: Block, harness: Harness, daemon: DaemonProcess) -> int:
    """Start HAProxy with the block as its configuration; returns its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        text = block.text.replace("bind :8080", f"bind fd@{listening.fileno()}")
        path = harness.directory / "haproxy.cfg"
        path.write_text(text.replace("127.0.0.1:8090", f"127.0.0.1:{daemon.port}"), encoding="utf-8")
        assert HAPROXY is not None
        harness.spawn([HAPROXY, "-q", "-f", str(path)], files=(listening.fileno(),))
        return int(listening.getsockname()[1])
