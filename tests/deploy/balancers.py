"""HAProxy and nginx with their files of deploy/, and instances behind them, which keep their ports over a restart."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.certificates import ServerCertificate
from tests.deploy.files import DEPLOY
from tests.programs import find
from tests.system.harness import DaemonProcess, Harness, Process, RedisServer

__all__ = ["BALANCERS", "Balancer", "Instance"]

HAPROXY, NGINX = find("haproxy"), find("nginx")
_NAMES = ("one", "two", "three")
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class ReservedPort:
    """A port that is nobody else's while the test runs, whether somebody listens there or not."""

    def __init__(self, harness: Harness) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number = int(self._socket.getsockname()[1])
        harness.on_close(self._socket.close)


class Instance:
    """One of the daemons behind a balancer. `name`: what HAProxy calls it. `daemon`: the process that is there now."""

    def __init__(self, name: str, harness: Harness, redis: RedisServer, proxied: str, options: Sequence[str]) -> None:
        self.name = name
        self._harness = harness
        self._redis = redis
        self._port = ReservedPort(harness)
        self.address = f"127.0.0.1:{self._port.number}"
        self._options = ("--port", f"{proxied}tcp:{self._port.number}:interface=127.0.0.1:backlog=4096", *options)
        self.daemon: DaemonProcess

    async def start(self) -> None:
        """Done when clients can come."""
        self.daemon = await self._harness.daemon(*self._options, redis=self._redis)

    async def kill(self) -> None:
        """As a machine goes."""
        self.daemon.process.signal("KILL")
        await self.daemon.process.wait()


class Balancer:
    """One kind of them. `proxied`: what stands before the daemons' own port; `options`: what else they are told.

    `looks`: it asks the daemons whether they are ready, and remembers who was on which.
    """

    def __init__(
        self,
        program: str | None,
        start: Callable[..., DaemonProcess],
        *,
        proxied: str = "",
        options: tuple[str, ...] = (),
        looks: bool,
    ) -> None:
        self._program = program
        self._start = start
        self._proxied = proxied
        self._options = options
        self.looks = looks

    async def instances(self, harness: Harness, redis: RedisServer, *options: str) -> list[Instance]:
        """Three of them, that run. Skips the test where the balancer is not installed."""
        if self._program is None:
            pytest.skip("it is not installed")
        found = [Instance(name, harness, redis, self._proxied, (*self._options, *options)) for name in _NAMES]
        for instance in found:
            await instance.start()
        return found

    async def start(
        self,
        harness: Harness,
        instances: Sequence[Instance],
        certificate: ServerCertificate | None = None,
        edit: Callable[[str], str] = str,
    ) -> DaemonProcess:
        """It runs, and lets clients come. `edit`: what is to be otherwise in its file."""
        process = self._start(harness, [instance.address for instance in instances], certificate, edit)
        await harness.eventually(lambda: _listens(process.port))
        return process

    async def restart(self, proxy: DaemonProcess, instance: Instance) -> None:
        """As an operator does it: another one has its turn when this one lets clients come again."""
        since = len(proxy.lines)
        instance.daemon.process.signal("TERM")
        if self.looks:
            await proxy.expect(f"Server daemons/{instance.name} is DOWN", since)
        assert await instance.daemon.process.wait() == 0
        await instance.start()
        if self.looks:
            await proxy.expect(f"Server daemons/{instance.name} is UP", since)


def _haproxy(
    harness: Harness, addresses: Sequence[str], certificate: ServerCertificate | None, edit: Callable[[str], str]
) -> DaemonProcess:
    """HAProxy with its file, and the variables that the file names."""
    assert HAPROXY is not None
    path = harness.directory / "haproxy.cfg"
    path.write_text(edit((DEPLOY / "haproxy" / "haproxy.cfg").read_text(encoding="utf-8")), encoding="utf-8")
    variables = {f"DAEMON_{name.upper()}": address for name, address in zip(_NAMES, addresses, strict=True)}
    if certificate is not None:
        pem = harness.directory / "balancer.pem"
        pem.write_bytes(certificate.pem + certificate.pem_between + certificate.pem_key())
        variables["CERTIFICATE"] = str(pem)
    port = ReservedPort(harness).number
    variables["CLIENTS"] = f"127.0.0.1:{port}"
    return _at(port, harness.spawn([HAPROXY, "-db", "-f", str(path)], variables))


def _nginx(
    harness: Harness, addresses: Sequence[str], certificate: ServerCertificate | None, edit: Callable[[str], str]
) -> DaemonProcess:
    """nginx with its file as the only site, at another address; without a certificate, without TLS."""
    assert NGINX is not None
    directory, port = harness.directory, ReservedPort(harness).number
    site = edit((DEPLOY / "nginx" / "marketfeed.conf").read_text(encoding="utf-8"))
    listen = f"listen 127.0.0.1:{port}"
    if certificate is None:
        site = re.sub(r"\n +ssl_.+", "", site).replace("listen 443 ssl", listen)
    else:
        (directory / "balancer.pem").write_bytes(certificate.pem + certificate.pem_between)
        (directory / "balancer.key").write_bytes(certificate.pem_key())
        site = site.replace("listen 443", listen).replace("/etc/nginx/marketfeed", str(directory / "balancer"))
    for written, address in zip(re.findall(r"server (10\.\S+)", site), addresses, strict=True):
        site = site.replace(written, address)
    (directory / "nginx.conf").write_text(_around(site, directory), encoding="utf-8")
    return _at(port, harness.spawn([NGINX, "-e", "stderr", "-p", str(directory), "-c", "nginx.conf"]))


def _around(site: str, directory: Path) -> str:
    temporary = "".join(f"{name}_temp_path {directory / name};\n" for name in _TEMPORARY)
    return (
        f"daemon off; master_process off; pid {directory / 'nginx.pid'};\n"
        f"events {{ worker_connections 8192; }}\nhttp {{ access_log off;\n{temporary}\n{site} }}\n"
    )


def _at(port: int, process: Process) -> DaemonProcess:
    found = DaemonProcess(process)
    found.port = port
    return found


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


BALANCERS = {
    "haproxy": Balancer(HAPROXY, _haproxy, proxied="haproxy:", looks=True),
    "nginx": Balancer(NGINX, _nginx, options=("--trusted-proxy", "127.0.0.1"), looks=False),
}
