"""Two workers behind one port, as real processes: who gets which client, what a death costs, how they are replaced."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from tests.by_hand import handshake
from tests.certificates import Authority
from tests.system.admin_port import ADMIN, AdminPort
from tests.system.browser import CHROMIUM
from tests.system.harness import TWISTD, Client, DaemonProcess, Harness, Redis, trade, with_constants
from tests.system.page import page_at, problems_of, until
from tests.system.test_status_page import TILES
from tests.system.test_systemd import AS_SYSTEMD, Told
from tests.system.workers import PATIENT, Crew, make_crew


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    os.kill(pid, number)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def roll(daemon: DaemonProcess) -> None:
    kill(daemon.process.pid, signal.SIGUSR2)


async def answers(client: Client) -> bool:
    """Whether it is served, having nothing else on the way."""
    return bool(await client.ask({"method": "PING", "id": 7}) == {"result": "PONG", "id": 7})


async def connect(harness: Harness, daemon: DaemonProcess, count: int) -> list[Client]:
    """So many clients, all at the same time."""
    return await gatherResults([Deferred.fromCoroutine(harness.client(daemon, "/ws")) for _ in range(count)])


@pytest_twisted.ensureDeferred
async def test_clients_are_split_and_all_get_everything(harness: Harness) -> None:
    """Between four and six of ten are at each; chance alone goes beyond that once in a billion times."""
    redis = await harness.redis()
    crew = await make_crew(harness, redis=redis)
    clients = await connect(harness, crew.daemon, 1000)
    split = list((await crew.where()).values())
    assert len(split) == 1000
    assert 400 <= split.count(1) <= 600
    for client in clients[:20]:
        await client.subscribe("trade@TATA_INR")
    engine = await redis.connect()
    await engine.publish("trade@TATA_INR", trade(number=1), trade(number=2))
    for client in clients[:20]:
        assert [(await client.next())["t"] for _ in range(2)] == [1, 2]
    assert await crew.daemon.stop("INT") == 0


@pytest_twisted.ensureDeferred
async def test_the_death_of_one_costs_the_others_nothing(harness: Harness) -> None:
    """Clients of the one that is killed come back, some of them to its successor; those of the other get every
    publication, once, in order.
    """
    redis = await harness.redis()
    crew = await make_crew(harness, redis=redis)
    pids = await crew.pids()
    clients = await connect(harness, crew.daemon, 40)
    for client in clients:
        await client.subscribe("trade@TATA_INR")
    before = await crew.where()
    assert set(before.values()) == {1, 2}
    numbers = list(before.values())
    engine = await redis.connect()
    last = 200
    for number in range(1, last + 1):
        await engine.publish("trade@TATA_INR", trade(number=number))
        if number == 100:
            kill(pids[1])
    await harness.eventually(lambda: sum(client.closed.called for client in clients) == numbers.count(1))
    stayed = [client for client in clients if not client.closed.called]
    for client in stayed:
        assert [(await client.next())["t"] for _ in range(last)] == list(range(1, last + 1))
    await crew.until_all(2, without=(pids[1],))
    assert (await crew.pids())[2] == pids[2]
    back = await connect(harness, crew.daemon, numbers.count(1))
    for client in (*stayed, *back):
        assert await answers(client)

    async def are_all_there() -> bool:
        return len(await crew.where()) == 40

    await harness.eventually(are_all_there)
    samples = await crew.admin.samples(harness)
    assert (samples["worker_restarts_total 1"], samples["worker_restarts_total 2"]) == (1, 0)
    assert await crew.daemon.stop("INT") == 0


@pytest_twisted.ensureDeferred
async def test_while_a_worker_is_away_nobody_waits_for_it(harness: Harness) -> None:
    """What arrives at a worker that is started again and again is taken by the other one."""
    crew = await make_crew(harness)
    two = (await crew.pids())[2]
    killed: list[int] = []
    for _ in range(2):
        pid = (await crew.until_all(2, without=tuple(killed)))[1]
        kill(pid)
        killed.append(pid)
    await crew.daemon.expect(r"worker 1 ended by signal 9; it is started again in \d+ s")
    for client in await connect(harness, crew.daemon, 30):
        assert await answers(client)
    assert is_alive(two)
    assert await crew.daemon.stop("INT") == 0


@pytest_twisted.ensureDeferred
async def test_a_roll_refuses_nobody(harness: Harness) -> None:
    """Clients connect all the time while both workers are replaced; those who were there are sent away with a hint."""
    crew = await make_crew(harness, "--drain-seconds", "0.5")
    old = await crew.pids()
    first = await connect(harness, crew.daemon, 10)
    roll(crew.daemon)
    count = 0
    while not any("the workers have been replaced" in line for line in crew.daemon.lines):
        client = await harness.client(crew.daemon, "/ws")
        answer = await client.ask({"method": "PING", "id": 7})
        assert (
            answer == {"result": "PONG", "id": 7} or answer["e"] == "serverShutdown"
        )  # it came before the old one left
        await harness.hang_up(client)
        count += 1
    assert count > 1
    new = await crew.pids()
    assert new.keys() == old.keys()
    assert not set(new.values()) & set(old.values())
    for client in first:
        assert (await client.closed)[0] == 1012
        assert json.loads(client.received.pop())["e"] == "serverShutdown"
    await harness.eventually(lambda: not any(map(is_alive, old.values())))
    assert not [line for line in crew.daemon.lines if " error " in line and "redis" not in line]
    assert await crew.daemon.stop("INT") == 0


@pytest_twisted.ensureDeferred
async def test_a_roll_brings_what_has_changed_in_the_file(harness: Harness) -> None:
    """Also what a reload could not change."""
    file = harness.directory / "marketfeed.toml"
    file.write_text("max_payload = 1000\n")
    crew = await make_crew(harness, "--config", str(file))
    file.write_text("max_payload = 1000\nlinger = 0\ncompression = 'off'\n")
    roll(crew.daemon)
    await crew.daemon.expect("the workers have been replaced")
    headers = "Sec-WebSocket-Extensions: permessage-deflate\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: " + "A" * 22
    status, answer, _ = await _upgrade(harness, crew, headers + "==")
    assert status == 101
    assert "sec-websocket-extensions" not in answer
    assert await crew.daemon.stop("INT") == 0


async def _upgrade(harness: Harness, crew: Crew, headers: str) -> tuple[int, dict[str, str], bytes]:
    raw = await harness.raw(crew.daemon)
    request = f"GET /ws HTTP/1.1\nHost: localhost\nUpgrade: websocket\nConnection: Upgrade\n{headers}\n\n"
    raw.send(request.replace("\n", "\r\n").encode())
    head = (await raw.until(lambda data: b"\r\n\r\n" in data)).partition(b"\r\n\r\n")[0].decode().split("\r\n")
    await harness.hang_up(raw)
    return int(head[0].split()[1]), {k.lower(): v for k, v in (line.split(": ", 1) for line in head[1:])}, b""


@pytest_twisted.ensureDeferred
async def test_a_roll_that_fails_leaves_the_old_ones(harness: Harness) -> None:
    """Here the new ones cannot read their file. The daemon says so, and serves on."""
    file = harness.directory / "marketfeed.toml"
    file.write_text("")
    crew = await make_crew(harness, "--config", str(file))
    old = await crew.pids()
    client = await harness.client(crew.daemon, "/ws")
    file.write_text("nonsense = 1\n")
    roll(crew.daemon)
    await crew.daemon.expect("worker 1 printed: marketfeed: nonsense in .*: unknown; expected")
    await crew.daemon.expect("error worker 1 could not be replaced: it ended with status 1; the old one stays")
    assert await crew.pids() == old
    assert await answers(client)
    file.write_text("")
    roll(crew.daemon)
    await crew.daemon.expect("the workers have been replaced")
    assert await crew.daemon.stop("INT") == 0


@pytest_twisted.ensureDeferred
async def test_a_new_worker_that_hangs_is_killed_and_the_old_one_stays(harness: Harness) -> None:
    """Its server name cannot be resolved for ever: it is stopped before it is ready."""
    program = with_constants(daemon__workers__supervision__ROLL_SECONDS=2.0)
    crew = await make_crew(harness, program=program)
    old = await crew.pids()
    roll(crew.daemon)

    def stop_successor() -> bool:
        children = Path(f"/proc/{crew.daemon.process.pid}/task/{crew.daemon.process.pid}/children").read_text().split()
        new = [int(child) for child in children if int(child) not in old.values()]
        # What is not a program of its own yet would keep its parent from going on.
        new = [pid for pid in new if b"ROLL_SECONDS" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
        for pid in new:
            kill(pid, signal.SIGSTOP)
        return bool(new)

    await harness.eventually(stop_successor)
    await crew.daemon.expect("error worker 1 is not ready within 2 s, and is killed")
    await crew.daemon.expect("worker 1 could not be replaced: it was not ready within 2 s; the old one stays")
    assert await crew.pids() == old
    assert await crew.daemon.stop("INT") == 0


@pytest_twisted.ensureDeferred
async def test_a_worker_that_hangs_is_replaced(harness: Harness) -> None:
    """It says nothing any more, and the admin port says so meanwhile."""
    program = with_constants(daemon__workers__supervision__SILENT_SECONDS=4.0)
    crew = await make_crew(harness, program=program)
    pids = await crew.pids()
    kill(pids[1], signal.SIGSTOP)
    status = await crew.ask("/status.json")
    if len(status["workers"]) == 1:  # or it has been killed already
        assert "Worker 1" in status["summary"]
        assert {"worker-silent", "worker-down"} & {each["name"] for each in status["news"]}
    await crew.daemon.expect("error worker 1 has not been heard of for .* s, and is killed")
    await crew.until_all(2, without=(pids[1],))
    assert await crew.daemon.stop("INT") == 0


@pytest_twisted.ensureDeferred
async def test_when_the_parent_is_killed_the_workers_end(harness: Harness) -> None:
    """They leave the port to another daemon at once, and send their clients away."""
    crew = await make_crew(harness, "--drain-seconds", "0.2")
    pids = await crew.pids()
    clients = await connect(harness, crew.daemon, 10)
    crew.daemon.process.signal("KILL")
    for client in clients:
        assert (await client.closed)[0] == 1012
    await harness.eventually(lambda: not any(map(is_alive, pids.values())))
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", crew.daemon.port))


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("number", ["TERM", "INT"])
async def test_all_drain_at_the_same_time(harness: Harness, number: str) -> None:
    """SIGINT does it at once. The last line is the parent's."""
    crew = await make_crew(harness, "--drain-seconds", "0.5")
    pids = await crew.pids()
    clients = await connect(harness, crew.daemon, 20)
    assert set((await crew.where()).values()) == {1, 2}
    assert await crew.daemon.stop(number) == 0
    for client in clients:
        assert (await client.closed)[0] == 1012
    assert not any(map(is_alive, pids.values()))
    assert crew.daemon.lines[-1].endswith("info  stopped")
    assert sum("stopped" in line for line in crew.daemon.lines) == 3


@pytest_twisted.ensureDeferred
async def test_a_second_signal_hurries_all(harness: Harness) -> None:
    """A drain of an hour ends at once."""
    crew = await make_crew(harness, "--drain-seconds", "3600")
    clients = await connect(harness, crew.daemon, 10)
    crew.daemon.process.signal("TERM")
    await crew.daemon.expect("ending: SIGTERM")
    for number in set((await crew.where()).values()):
        await crew.daemon.expect(f"worker {number}: sending .* clients away")
    assert await crew.daemon.stop("TERM") == 0
    for client in clients:
        assert (await client.closed)[0] == 1012


@pytest_twisted.ensureDeferred
async def test_a_reload_is_for_all_and_good_where_all_are(harness: Harness) -> None:
    """What cannot be used reaches none of them."""
    file = harness.directory / "marketfeed.toml"
    file.write_text("")
    crew = await make_crew(harness, "--config", str(file))
    file.write_text("max_streams = 1\n")
    crew.daemon.process.signal("HUP")
    for number in (1, 2):
        await crew.daemon.expect(f"info  worker {number}: reloaded: max_streams$")
    for client in await connect(harness, crew.daemon, 20):
        assert "error" in await client.subscribe("trade@A", "trade@B")
    samples = await crew.admin.samples(harness)
    assert [samples[f"last_reload_successful {who}"] for who in ("parent", "1", "2")] == [1, 1, 1]
    file.write_text("max_streams = 0\n")
    crew.daemon.process.signal("HUP")
    await crew.daemon.expect("error nothing is reloaded: max_streams in .*: '0' cannot be used")
    samples = await crew.admin.samples(harness)
    assert [samples[f"last_reload_successful {who}"] for who in ("parent", "1", "2")] == [0, 1, 1]
    assert "reload" in [each["name"] for each in (await crew.ask("/status.json"))["news"]]
    assert await crew.daemon.stop("INT") == 0


@pytest_twisted.ensureDeferred
async def test_the_admin_port_speaks_for_all(harness: Harness) -> None:
    """One scrape, one status, one list of clients and one of streams; any client and stream by its name."""
    redis = await harness.redis()
    crew = await make_crew(harness, "--max-connections", "101", "--memory-limit", "1GiB", redis=redis)

    async def is_ready() -> bool:
        return bool(await crew.ask("/readyz") == {"ready": True, "reasons": []})

    await harness.eventually(is_ready)
    clients = await connect(harness, crew.daemon, 30)
    for client in clients:
        await client.subscribe("trade@TATA_INR")
    where = await crew.where()
    assert len(where) == 30
    samples = await crew.admin.samples(harness)
    count = {number: list(where.values()).count(number) for number in (1, 2)}
    for number in (1, 2):
        assert samples[f"clients {number}"] == count[number] > 0
        assert samples[f"clients_limit {number}"] == 51
        assert samples[f"memory_limit_bytes {number}"] == 1 << 29
        assert samples[f"worker_up {number}"] == 1
        assert samples[f"process_resident_memory_bytes {number}"] > 1 << 20
    assert samples["workers"] == 2
    assert samples["process_resident_memory_bytes parent"] > 1 << 20

    status = await crew.ask("/status.json")
    assert status["healthy"]
    assert status["summary"].endswith(" 30 clients.")
    assert [row["limits"]["clients"]["value"] for row in status["workers"]] == [count[1], count[2]]
    assert status["workers"][0]["options"]["--workers"] == "2"

    first = await crew.ask("/clients.json?sort=age&limit=3")
    assert len(first) == 3
    assert [row["age"] for row in first] == sorted([row["age"] for row in first], reverse=True)
    for name, worker in list(where.items())[:5]:
        facts = await crew.ask(f"/clients/{name}.json")
        assert (facts["worker"], facts["names"]) == (worker, ["trade@TATA_INR"])
    assert (await crew.admin.ask(harness, "/clients/nobody.json"))[0] == 404

    async def are_all_listed() -> bool:
        rows = await crew.ask("/streams.json")  # a list is kept for a second
        listed = {(row["stream"], row["worker"], row["clients"]) for row in rows}
        return listed == {("trade@TATA_INR", number, count[number]) for number in (1, 2)}

    await harness.eventually(are_all_listed)
    engine = await redis.connect()
    await engine.publish("trade@TATA_INR", trade(number=5))
    stream = await crew.ask("/streams/trade@TATA_INR.json")
    assert (stream["clients"], len(stream["subscribers"])) == (30, 30)
    assert {row["worker"] for row in stream["subscribers"]} == {1, 2}
    assert [json.loads(each["data"])["t"] for each in stream["last"]] == [5]
    assert await crew.daemon.stop("INT") == 0


@pytest_twisted.ensureDeferred
async def test_what_one_worker_says_is_said_of_it_and_what_all_say_once(harness: Harness) -> None:
    """Redis is away for both; each has been told by another number of clients."""
    crew = await make_crew(harness, "--redis-url", "unix:///nowhere/redis.sock")
    status = await crew.ask("/status.json")
    assert [each["name"] for each in status["news"]].count("source-never-reached") == 1
    assert not status["healthy"]
    assert status["summary"].startswith("Redis at unix:///nowhere/redis.sock has not been reached yet")
    assert await crew.ask("/readyz") == {"ready": False, "reasons": ["source-never-reached"]}
    assert await crew.daemon.stop("INT") == 0


@pytest_twisted.ensureDeferred
async def test_a_worker_that_does_not_answer_is_left_out_and_that_is_said(harness: Harness) -> None:
    """In the header of a list, in the metrics, and in the status."""
    crew = await make_crew(harness)
    await connect(harness, crew.daemon, 20)
    where, pids = await crew.where(), await crew.pids()
    kill(pids[1], signal.SIGSTOP)
    try:
        _, headers, body = await crew.admin.ask(harness, "/clients.json")
        assert {row["client"]: row["worker"] for row in json.loads(body)} == {
            name: worker for name, worker in where.items() if worker == 2
        }
        assert headers["marketfeed-left-out"] == "1"
        samples = await crew.admin.samples(harness)
        assert (samples["worker_up 1"], samples["worker_up 2"]) == (0, 1)
        assert "clients 1" not in samples
    finally:
        kill(pids[1], signal.SIGCONT)
    assert await crew.daemon.stop("INT") == 0


@pytest_twisted.ensureDeferred
async def test_one_log_in_which_each_line_says_whose_it_is(harness: Harness) -> None:
    """As JSON, with all facts of the line; to a file that is opened again by its name."""
    log = harness.directory / "daemon.log"
    daemon = DaemonProcess(
        harness.spawn(
            [
                *(sys.executable, *TWISTD, "-n", "--pidfile=", "--logfile", str(log), "marketfeed"),
                *("--port", "tcp:0:interface=127.0.0.1", "--workers", "2", "--log-format", "json", *ADMIN),
            ]
        )
    )

    def lines(path: Path = log) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def found(text: str, path: Path = log) -> list[dict[str, Any]]:
        return [line for line in lines(path) if text in line["message"]]

    await harness.eventually(lambda: len(found("listening on port")) == 3)
    daemon.port = int(found("listening on port")[0]["address"].split()[1])
    await connect(harness, daemon, 1)
    await harness.eventually(lambda: found("connected from"))
    (line,) = found("connected from")
    assert line["worker"] in (1, 2)
    assert line["message"] == f"worker {line['worker']}: client {line['client']} connected from {line['peer']}, raw"
    assert line["logger"] == "marketfeed.websocket.connections.UserManager"
    moved = log.rename(harness.directory / "old.log")
    kill(daemon.process.pid, signal.SIGUSR1)
    daemon.process.signal("HUP")
    await harness.eventually(lambda: len(found("reloaded: no option")) == 2)
    assert {line["worker"] for line in found("reloaded: no option")} == {1, 2}
    assert len(found("listening on port", moved)) == 3
    assert await daemon.stop("INT") == 0
    assert [line.get("worker") for line in found("stopped")][-1] is None


@pytest_twisted.ensureDeferred
async def test_systemd_opens_the_port_and_is_told_when_all_accept(harness: Harness) -> None:
    """One queue is for all. The workers know nothing of systemd, and a death is no reason to tell it anything."""
    told, path = Told(), str(harness.directory / "notify")
    harness.on_close(harness.reactor.listenUNIXDatagram(path, told).stopListening)
    twistd = [sys.executable, *PATIENT, "-n", "--pidfile=", "marketfeed"]
    options = ["--port", "systemd:domain=INET:name=clients", "--workers", "2", "--drain-seconds", "0.1", *ADMIN]
    environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000000"}
    daemon = DaemonProcess(harness.spawn([sys.executable, "-c", AS_SYSTEMD, *twistd, *options], environment))
    daemon.port = int((await daemon.expect(r"info  listening on port (\d+)"))[1])
    await harness.eventually(lambda: told.messages.count("WATCHDOG=1") >= 2 and "READY=1" in told.messages)
    crew = Crew(harness, daemon, await AdminPort.of(daemon))
    pids = await crew.until_all(2)
    for each in await connect(harness, daemon, 20):
        assert await answers(each)
    kill(pids[1])
    await crew.until_all(2, without=(pids[1],))
    daemon.process.signal("HUP")
    await harness.eventually(lambda: told.messages.count("READY=1") == 2)
    assert [each for each in told.messages if each != "WATCHDOG=1"] == ["READY=1", "RELOADING=1", "READY=1"]
    roll(daemon)
    await daemon.expect("the workers have been replaced")
    assert await answers(await harness.client(daemon, "/ws"))
    assert await daemon.stop("TERM") == 0
    await harness.eventually(lambda: "STOPPING=1" in told.messages)


@pytest_twisted.ensureDeferred
async def test_a_unix_socket(harness: Harness) -> None:
    """It is the parent's: its file and its mode stay when a worker goes, and go with the daemon."""
    path = harness.directory / "clients.sock"
    options = "--port", f"unix:{path}:mode=600", "--workers", "2", *ADMIN
    daemon = await harness.daemon(*options, wait=False, program=PATIENT)
    crew = Crew(harness, daemon, await AdminPort.of(daemon))
    pids = await crew.until_all(2)
    kill(pids[1])
    await crew.until_all(2, without=(pids[1],))
    roll(daemon)
    await daemon.expect("the workers have been replaced")
    assert path.stat().st_mode & 0o777 == 0o600
    for _ in range(10):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(path))
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
    assert await daemon.stop("INT") == 0
    assert not path.exists()


@pytest_twisted.ensureDeferred
async def test_a_port_that_is_taken_is_taken(harness: Harness) -> None:
    """Also by another daemon with workers of the same user, with which the kernel would share it."""
    crew = await make_crew(harness)
    again = await harness.daemon("--workers", "2", "--port", str(crew.daemon.port), wait=False)
    await again.expect(f"port {crew.daemon.port} is taken; try another")
    assert await again.process.wait() == 1
    assert await crew.daemon.stop("INT") == 0


@pytest_twisted.ensureDeferred
async def test_one_market_and_one_server_for_all(harness: Harness) -> None:
    """The simulated market is not there twice: of each trade all clients get the same."""
    crew = await make_crew(harness, "--demo")
    clients = await connect(harness, crew.daemon, 12)
    for client in clients:
        await client.subscribe("trade@TATA_INR")
    assert set((await crew.where()).values()) == {1, 2}
    seen = [[(await client.next())["t"] for _ in range(5)] for client in clients]
    for numbers in seen:
        assert numbers == list(range(numbers[0], numbers[0] + 5))
    assert max(numbers[0] for numbers in seen) - min(numbers[0] for numbers in seen) < 100
    request = "GET / HTTP/1.1\nHost: localhost\nAccept: text/html"
    assert {(await harness.http(crew.daemon, request))[0] for _ in range(8)} == {200}, "the page is each worker's"
    assert await crew.daemon.stop("INT") == 0


@pytest_twisted.ensureDeferred
async def test_one_worker_is_supervised_too(harness: Harness) -> None:
    """And rolled."""
    crew = await make_crew(harness, workers=1)
    pids = await crew.pids()
    roll(crew.daemon)
    await crew.daemon.expect("the workers have been replaced")
    kill((await crew.until_all(1, without=(pids[1],)))[1])
    await crew.daemon.expect("worker 1 ended by signal 9; it is started again")
    await crew.until_all(1)
    assert await answers(await harness.client(crew.daemon, "/ws"))
    assert await crew.daemon.stop("INT") == 0


@pytest_twisted.ensureDeferred
async def test_without_workers_sigusr2_is_ignored(harness: Harness) -> None:
    daemon = await harness.daemon()
    roll(daemon)
    await daemon.expect("warn  SIGUSR2 is ignored: there are no workers to be replaced without --workers")
    assert await answers(await harness.client(daemon, "/ws"))
    assert await daemon.stop("INT") == 0


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
@pytest_twisted.ensureDeferred
async def test_the_status_page_adds_all_workers_up(harness: Harness) -> None:
    """One sentence, one figure of each kind, and of each row whose it is; also once a worker has been replaced."""
    redis = await harness.redis()
    crew = await make_crew(harness, redis=redis)
    for client in await connect(harness, crew.daemon, 24):
        await client.subscribe("trade@TATA_INR")
    assert set((await crew.where()).values()) == {1, 2}

    def look() -> None:
        with page_at(f"{crew.admin.url}/") as (page, seen):
            until(page, r"\b24 clients\.$")  # a busy machine has more to say
            page.wait_for_function("() => document.querySelectorAll('#slowest tr').length > 5")
            tiles = page.evaluate(TILES)
            assert (tiles["clients"], tiles["subscriptions"]) == ("24", "24")
            assert page.locator("#process").inner_text().split(", ")[2] == "2 workers"
            assert page.locator("#slowest th").all_inner_texts()[-1].lower() == "worker"
            workers = page.evaluate("[...document.querySelectorAll('#links td:last-child')].map((e) => e.textContent)")
            assert sorted(set(workers)) == ["1", "2"]
            page.wait_for_function("() => document.querySelectorAll('#busiest tr').length === 3")
            page.click("#busiest button")
            page.wait_for_function("() => document.querySelectorAll('#detail-facts table tr').length === 25")
            page.keyboard.press("Escape")
            assert problems_of(page) == []
            assert seen.errors == []

    await deferToThread(look)
    kill((await crew.pids())[1])
    await crew.daemon.expect("worker 1 ended by signal 9")
    await crew.until_all(2)

    def look_again() -> None:
        with page_at(f"{crew.admin.url}/") as (page, seen):
            until(page, r"\d clients\.$")
            page.wait_for_function("() => document.querySelectorAll('#links td').length > 0")
            assert seen.errors == []

    await deferToThread(look_again)
    assert await crew.daemon.stop("INT") == 0


@pytest_twisted.ensureDeferred
async def test_the_status_in_a_terminal(harness: Harness) -> None:
    """The sentence is of all, the figures are of each."""
    redis = await harness.redis()
    crew = await make_crew(harness, redis=redis)
    process = harness.spawn([sys.executable, "-m", "marketfeed", "status", crew.admin.url])
    assert await process.wait() == 0
    assert process.lines.all[0].endswith(" 0 clients.")
    for number, pid in (await crew.pids()).items():
        assert [line for line in process.lines.all if f"worker {number}, process {pid}, up for" in line]
    assert await crew.daemon.stop("INT") == 0


@pytest_twisted.ensureDeferred
async def test_tls_and_the_proxy_protocol_are_the_workers(harness: Harness) -> None:
    """The parent opens the port; what comes on it is as its description says, and an address is the client's own."""
    authority = Authority()
    certificate, key = authority.issue("localhost").write(harness.directory)
    port = f"haproxy:ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
    daemon = await harness.daemon("--port", port, "--workers", "2", *ADMIN, wait=False)
    daemon.port = int((await daemon.expect(r"info  listening on port (\d+)"))[1])
    crew = Crew(harness, daemon, await AdminPort.of(daemon))
    await crew.until_all(2)
    for number in range(6):
        raw = await harness.raw(daemon)
        raw.send(b"PROXY TCP4 203.0.113.%d 192.0.2.1 5000 443\r\n" % number)
        raw.transport.startTLS(authority.client_options())
        raw.send(handshake())
        await raw.until(lambda data: b" 101 " in data)
    peers = [row["peer"] for row in await crew.ask("/clients.json")]
    assert sorted(peer.rpartition(":")[0] for peer in peers) == [f"203.0.113.{number}" for number in range(6)]
    samples = await crew.admin.samples(harness)
    assert all(samples[f"certificate_expiry_timestamp_seconds {number}"] > 0 for number in (1, 2))
    assert await daemon.stop("INT") == 0


@pytest_twisted.ensureDeferred
async def test_in_the_background(harness: Harness) -> None:
    """The workers are those of the process that stays, and its log is in its file."""
    log, pid_file = harness.directory / "daemon.log", harness.directory / "daemon.pid"
    twistd = [sys.executable, *TWISTD, "--pidfile", str(pid_file), "--logfile", str(log), "marketfeed"]
    start = harness.spawn([*twistd, "--port", "tcp:0:interface=127.0.0.1", "--workers", "2", *ADMIN])
    assert await start.wait() == 0
    pid = int(pid_file.read_text())
    try:
        await harness.eventually(lambda: log.read_text().count("listening on port") == 3)
    finally:
        kill(pid, signal.SIGTERM)
    await harness.eventually(lambda: not is_alive(pid))
    assert "info  stopped\n" in log.read_text()
    assert not pid_file.exists()


STREAM = "trade@TATA_INR"


async def with_offsets(harness: Harness, daemon: DaemonProcess) -> Client:
    """A client that gets offsets with what it will follow."""
    client = await (await harness.client(daemon, "/stream")).hear_events()
    await client.ask({"method": "SET_PROPERTY", "params": ["offsets", True], "id": 1})
    return client


async def follows(harness: Harness, daemon: DaemonProcess) -> Client:
    client = await with_offsets(harness, daemon)
    await client.subscribe(STREAM)
    return client


async def crew_with_offsets(harness: Harness) -> tuple[Crew, Redis, list[str]]:
    """Two workers, an engine, and the offset that each worker has given to its first publication."""
    redis = await harness.redis()
    crew = await make_crew(harness, redis=redis)
    engine = await redis.connect()
    clients = [await follows(harness, crew.daemon) for _ in range(20)]
    assert set((await crew.where()).values()) == {1, 2}
    await engine.publish(STREAM, trade(number=1))
    offsets = sorted({(await client.next())["offset"] for client in clients})
    assert len(offsets) == 2
    return crew, engine, offsets


def resuming(offset: str) -> dict[str, Any]:
    """The request of one that comes back with this offset."""
    return {"method": "SUBSCRIBE", "params": [STREAM], "since": {STREAM: offset}, "id": 2}


async def comes_back(harness: Harness, daemon: DaemonProcess, offset: str) -> Client:
    """One that has asked for what it has missed, and has not read the reply."""
    client = await with_offsets(harness, daemon)
    client.send(resuming(offset))
    return client


@pytest_twisted.ensureDeferred
async def test_whichever_worker_a_client_comes_back_to_it_gets_what_it_missed(harness: Harness) -> None:
    """Forty of them, again and again, while publications go on: everything once, in order."""
    redis = await harness.redis()
    crew = await make_crew(harness, "--linger", "600", redis=redis)
    engine = await redis.connect()
    clients = [await follows(harness, crew.daemon) for _ in range(40)]
    before = await crew.where()
    assert set(before.values()) == {1, 2}
    published = 0
    for _ in range(3):
        offsets = []
        for number in range(published + 1, published + 6):
            await engine.publish(STREAM, trade(number=number))
        for client in clients:
            got = [await client.next() for _ in range(5)]
            assert [each["data"]["t"] for each in got] == list(range(published + 1, published + 6))
            offsets.append(got[-1]["offset"])
        published += 5
        for client in clients:
            await harness.hang_up(client)
        back = []
        for at, offset in enumerate(offsets):
            await engine.publish(STREAM, trade(number=published + at + 1))
            back.append(await comes_back(harness, crew.daemon, offset))
        published += len(clients)
        for client in back:
            assert await client.next() == {"result": None, "id": 2, "recovered": {STREAM: True}}
            got = [(await client.next())["data"]["t"] for _ in clients]
            assert got == list(range(published - len(clients) + 1, published + 1))
        clients = back
    assert await crew.daemon.stop("INT") == 0


@pytest_twisted.ensureDeferred
async def test_a_worker_that_has_just_begun_has_nothing_to_give(harness: Harness) -> None:
    """Also where the one that gave the offset still knows it; and one who has missed nothing goes on."""
    crew, engine, offsets = await crew_with_offsets(harness)
    pids = await crew.pids()
    kill(pids[1])
    await crew.until_all(2, without=(pids[1],))
    await engine.publish(STREAM, trade(number=2))
    recovered = set()
    for offset in offsets:
        back = [await comes_back(harness, crew.daemon, offset) for _ in range(20)]
        recovered.add(tuple([(await client.next())["recovered"][STREAM] for client in back]))
    where = await crew.where()
    assert set(where.values()) == {1, 2}
    known = [answers for answers in recovered if any(answers)]
    assert len(known) == 1, "the epoch of the one that is dead is nobody's"
    assert not all(known[0])
    assert await crew.daemon.stop("INT") == 0


@pytest_twisted.ensureDeferred
async def test_a_worker_that_hangs_keeps_nobody_waiting(harness: Harness) -> None:
    """Who comes with its offset to another one is answered long before it is given up, and told what is not known."""
    crew, _, offsets = await crew_with_offsets(harness)
    clients = [await with_offsets(harness, crew.daemon) for _ in range(40)]
    pids = await crew.pids()
    kill(pids[1], signal.SIGSTOP)
    answers: list[tuple[str, bool]] = []

    async def resume(client: Client, offset: str) -> None:
        reply = await client.ask(resuming(offset))
        answers.append((offset, reply["recovered"][STREAM]))

    for number, client in enumerate(clients):
        Deferred.fromCoroutine(resume(client, offsets[number % 2])).addErrback(lambda _: None)
    await harness.eventually(lambda: len(set(answers)) == 2)
    given_up = [line for line in crew.daemon.lines if "has not been heard of" in line]
    kill(pids[1], signal.SIGCONT)
    assert not given_up
    assert {recovered for _, recovered in answers} == {True, False}
    assert len({offset for offset, _ in answers}) == 2
    assert await crew.daemon.stop("INT") == 0
