"""How even a drain is: thousands of clients that get publications until the daemon is told to end.

    python -m benchmarks.drain [--clients 5000] [--seconds 10] [--rounds 3]

It prints a table in Markdown, and exits with 1 when in any round some second saw more than twice the mean of clients
sent away, somebody lost what was published before, or the daemon went on when the last had gone.
"""

from __future__ import annotations

import argparse
import os
import re
import selectors
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import hiredis
import msgspec

from benchmarks.processes import Cores, Failed, Stage
from benchmarks.workloads import SERVERS

__all__ = ["main"]

STREAM = "trade@TATA_INR"
_PUBLISHED = 20
_TRADE = '{"e":"trade","t":%d,"m":false,"p":"1000.50","q":"10","s":"TATA_INR"}'
_NUMBER = re.compile(rb'"t":(\d+)')
_REQUEST = (
    f"GET /ws/{STREAM} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n\r\n"
).encode()
_ANSWER_TO_CLOSE = b"\x88\x82\0\0\0\0\x03\xf4"
_CLOSE = b"\x88"
_PATIENCE = 30.0
_LAST_MOMENTS = 2.0
"""Seconds in which the daemon ends when nobody is there any more."""


class Client:
    """One of them: what it has got, and when it was sent away."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(_REQUEST)
        self.socket.setblocking(False)
        self.is_open = False
        self.data = b""
        self.away: float | None = None

    def read(self, now: float) -> bool:
        """Take what has come; False: that was the end."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        self.data += data
        self.is_open = self.is_open or b"\r\n\r\n" in self.data
        if self.away is None and b'"serverShutdown"' in self.data:
            self.away = now
            self.socket.send(_ANSWER_TO_CLOSE)
        return bool(data)

    @property
    def numbers(self) -> list[int]:
        return [int(number) for number in _NUMBER.findall(self.data)]


class Round(msgspec.Struct, frozen=True):
    """One drain. `most`: clients in its fullest second, in shares of the mean; `seconds`: until the last was sent away;
    `end`: from then until the daemon had ended.
    """

    clients: int
    most: float
    lost: int
    seconds: float
    end: float

    @property
    def is_good(self) -> bool:
        return self.most <= 2 and not self.lost and self.end <= _LAST_MOMENTS


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drain", description="Measure how even a drain is.")
    parser.add_argument("--clients", type=int, default=5000, help="that are sent away (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="over which (default: %(default)g)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args(argv)
    try:
        rounds = [_measure(arguments.clients, arguments.seconds) for _ in range(arguments.rounds)]
    except Failed as fault:
        sys.stderr.write(f"drain: {fault}\n")
        return 1
    sys.stdout.write(markdown(rounds))
    return 0 if all(each.is_good for each in rounds) else 1


def _measure(count: int, seconds: float) -> Round:
    with tempfile.TemporaryDirectory(prefix="marketfeed-drain-") as directory:
        stage = Stage(Path(directory), Cores.found())
        options = ("--drain-seconds", f"{seconds:g}", "--connect-rate", "0")
        with stage.redis(), stage.server(SERVERS[0], *options) as (pid, port):
            return _drain(Crowd(count, port), pid, stage.redis_url.removeprefix("unix://"), seconds)


class Crowd:
    """All clients, once they are in."""

    def __init__(self, count: int, port: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.clients = []
        for _ in range(count):
            client = Client(port)
            self.clients.append(client)
            self.selector.register(client.socket, selectors.EVENT_READ, client)
            self.turn(0.0)
        self.until(lambda: all(client.is_open for client in self.clients))

    def turn(self, pause: float) -> None:
        for key, _ in self.selector.select(pause):
            if not key.data.read(time.monotonic()):
                self.selector.unregister(key.fileobj)
                key.data.socket.close()

    def until(self, is_so: object) -> None:
        assert callable(is_so)
        end = time.monotonic() + _PATIENCE
        while not is_so():
            if time.monotonic() > end:
                raise Failed("nothing happens any more")
            self.turn(0.05)


def _drain(crowd: Crowd, pid: int, redis: str, seconds: float) -> Round:
    publisher = socket.socket(socket.AF_UNIX)
    publisher.connect(redis)
    _publish(publisher, range(_PUBLISHED))
    crowd.until(lambda: all(client.numbers[-1:] == [_PUBLISHED - 1] for client in crowd.clients))
    _publish(publisher, range(_PUBLISHED, 2 * _PUBLISHED))
    os.kill(pid, signal.SIGTERM)
    begun = time.monotonic()
    crowd.until(lambda: not crowd.selector.get_map())
    gone = time.monotonic()
    while _runs(pid) and time.monotonic() < gone + _PATIENCE:
        time.sleep(0.01)
    ended = time.monotonic()
    moments = [client.away - begun for client in crowd.clients if client.away is not None]
    in_seconds = Counter(int(moment) for moment in moments)
    lost = sum(client.numbers[: 2 * _PUBLISHED] != list(range(2 * _PUBLISHED)) for client in crowd.clients)
    mean = len(crowd.clients) / seconds
    return Round(len(crowd.clients), max(in_seconds.values()) / mean, lost, max(moments), ended - gone)


def _publish(publisher: socket.socket, numbers: range) -> None:
    """Done when the server has passed all of them on."""
    publisher.sendall(b"".join([hiredis.pack_command(("PUBLISH", STREAM, _TRADE % number)) for number in numbers]))
    answers = 0
    while answers < len(numbers):
        answers += publisher.recv(4096).count(b"\r\n")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def markdown(rounds: Sequence[Round]) -> str:
    """The table: a row for each round, then the least, the median and the most of all."""
    lines = ["| round | clients | fullest second : mean | clients that lost something | last after s | end after s |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    lines += [_row(str(number), *_figures(each)) for number, each in enumerate(rounds, 1)]
    columns = list(zip(*map(_figures, rounds), strict=True))
    for name, choose in (("least", min), ("median", median), ("most", max)):
        lines.append(_row(name, *[choose(column) for column in columns]))
    return "\n".join(lines) + "\n"


def _figures(each: Round) -> tuple[float, ...]:
    return each.clients, each.most, each.lost, each.seconds, each.end


def _row(name: str, clients: float, most: float, lost: float, seconds: float, end: float) -> str:
    return f"| {name} | {clients:,.0f} | {most:.2f} | {lost:.0f} | {seconds:.1f} | {end:.2f} |"


if __name__ == "__main__":
    sys.exit(main())
