"""The processes of a benchmark: the Redis-compatible server, the servers that are measured, the load generator.

1. Only processes that were started here are ended, and all of them are.
2. Where there are two cores, the measured server has one, and everything else the other.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.workloads import Server
from marketfeed.commands.bench.report import Report
from marketfeed.demo.embedded import find_server
from marketfeed.runtime.file_limit import raise_file_limit

__all__ = ["COMPILED", "Cores", "Failed", "Stage", "build_compiled", "install_peers"]

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "benchmarks" / "peers"
COMPILED = ROOT / "build" / "benchmarks"
"""What a compiled wheel holds."""

_START_SECONDS = 30.0
_STOP_SECONDS = 20.0
_LOOK_SECONDS = 0.05
_SHOWN = 1000
_TWISTD = ("-c", "from twisted.scripts.twistd import run; run()")
_LISTEN = "tcp:0:backlog=4096:interface=127.0.0.1"
_LISTEN_TLS = "ssl:0:backlog=4096:interface=127.0.0.1:privateKey={key}:certKey={certificate}"


class Failed(Exception):
    """Something could not be started, or did not do its work; the message says what, and what it printed."""


class Cores(msgspec.Struct, frozen=True):
    """The numbers of the cores; None: whichever the system likes."""

    server: int | None
    load: int | None

    @classmethod
    def found(cls) -> Cores:
        """The last two that this process may use: the first has the interrupts, more often than not."""
        usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        return cls(usable[-1], usable[-2]) if len(usable) > 1 else cls(None, None)

    @property
    def pinned(self) -> bool:
        return self.server is not None


def install_peers() -> str | None:
    """Install the packages of the Node programs, once; returns why they cannot be used, in one line."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return "node and npm are not installed"
    wanted = (PEERS / "package.json").read_bytes()
    mark = PEERS / "node_modules" / ".installed"
    if mark.exists() and mark.read_bytes() == wanted:
        return None
    command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=PEERS, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        return f"npm cannot install their packages: {reason}"
    mark.write_bytes(wanted)
    return None


def build_compiled() -> str | None:
    """Put the daemon into `COMPILED` as a compiled wheel has it, unless that of the same sources is there; returns why
    it cannot be done, in one line.
    """
    sources = sorted([*(ROOT / "marketfeed").rglob("*.py"), ROOT / "tools" / "compiling.py"])
    wanted = sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    mark = COMPILED / ".built"
    if mark.exists() and mark.read_text(encoding="ascii") == wanted:
        return None
    with tempfile.TemporaryDirectory(prefix="marketfeed-wheel-") as directory:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
        command += ["--no-build-isolation", "--wheel-dir", directory, str(ROOT)]
        variables = {**os.environ, "MARKETFEED_COMPILED": "yes"}
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
        wheels = list(Path(directory).glob("*.whl"))
        if done.returncode or not wheels:
            said = done.stderr.strip().splitlines() or ["pip made no wheel"]
            return next((line.strip() for line in said if "MARKETFEED_COMPILED" in line), said[-1].strip())
        shutil.rmtree(COMPILED, ignore_errors=True)
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(COMPILED)
    mark.write_text(wanted, encoding="ascii")
    return None


class Stage:
    """Where a benchmark takes place. `directory`: for a socket and for what the processes print."""

    def __init__(self, directory: Path, cores: Cores) -> None:
        raise_file_limit()
        self._directory = directory
        self._cores = cores
        self._redis_socket = directory / "redis.sock"
        self.redis_path = str(self._redis_socket)
        self.redis_url = f"unix://{self._redis_socket}"

    @contextlib.contextmanager
    def redis(self) -> Iterator[None]:
        """The Redis-compatible server is there for so long. Raises `Failed`, and `NoServerFound`."""
        command = [find_server(), "--port", "0", "--unixsocket", str(self._redis_socket)]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self._directory)]
        with self._running("redis", command, {}, self._cores.load) as (process, log):
            self._expect(process, log, r"[Rr]eady to accept connections")
            yield

    @contextlib.contextmanager
    def server(self, server: Server, *options: str, tls: bool = False) -> Iterator[tuple[int, int]]:
        """A server is there for so long: its process id and its port. `options`: of the daemon. Raises `Failed`."""
        variables = {"REDIS_SOCKET": str(self._redis_socket)}
        listen = _LISTEN
        if tls:
            certificate, key = self._certificate
            variables |= {"TLS_CERTIFICATE": str(certificate), "TLS_KEY": str(key)}
            listen = _LISTEN_TLS.format(key=key, certificate=certificate)
        if server.script is None:
            command = [sys.executable, *_TWISTD, "-n", "--pidfile=", "marketfeed"]
            command += ["--port", listen, "--redis-url", self.redis_url, *options]
        else:
            command = [shutil.which("node") or "node", str(PEERS / server.script)]
        if server.is_compiled:
            variables["PYTHONPATH"] = str(COMPILED)
        with self._running(server.key, command, variables, self._cores.server) as (process, log):
            if server.is_compiled:
                self._expect(process, log, r"\(compiled\)")
            port = int(self._expect(process, log, r"listening on port (\d+)")[1])
            if server.script is None:
                self._expect(process, log, r"redis: connected")
            yield process.pid, port

    @contextlib.contextmanager
    def candles(self, *options: str) -> Iterator[int]:
        """`marketfeed candles` is there for so long: its process id. Raises `Failed`."""
        command = [sys.executable, "-m", "marketfeed", "candles", "--redis-url", self.redis_url, *options]
        with self._running("candles", command, {}, self._cores.server) as (process, log):
            self._expect(process, log, r"this one leads")
            yield process.pid

    @cached_property
    def _certificate(self) -> tuple[Path, Path]:
        """The files of a certificate for 127.0.0.1, which vouches for itself, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "marketfeed benchmarks")])
        now = datetime.now(UTC)
        hosts = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(hosts, critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        files = self._directory / "certificate.pem", self._directory / "key.pem"
        files[0].write_bytes(certificate.public_bytes(pem))
        files[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        return files

    @contextlib.contextmanager
    def attacker(self, name: str, port: int, seconds: float) -> Iterator[None]:
        """One of `attackers.ATTACKS` goes on for so long, at most `seconds`."""
        command = [sys.executable, "-m", "benchmarks.attackers", name, str(port), "--seconds", f"{seconds:g}"]
        with self._running(name, command, {}, self._cores.load):
            yield

    def load(self, port: int, pid: int, options: Sequence[str], *, publishes: bool, tls: bool = False) -> Report:
        """Run `marketfeed bench` on the server that is this process and its children. Raises `Failed`."""
        url = f"{'wss' if tls else 'ws'}://127.0.0.1:{port}"
        pids = [f"--server-pid={each}" for each in (pid, *_children(pid))]
        trusted = {"SSL_CERT_FILE": str(self._certificate[0])} if tls else {}
        command = [sys.executable, "-m", "marketfeed", "bench", url, *pids]
        command += [*options, *(["--redis-url", self.redis_url] if publishes else [])]
        done = subprocess.run(
            command,
            cwd=self._directory,
            env=_environment(trusted),
            preexec_fn=_pin(self._cores.load),
            capture_output=True,
            check=False,
        )
        try:
            return msgspec.json.decode(done.stdout, type=Report)
        except msgspec.DecodeError:
            raise Failed(f"marketfeed bench: {done.stderr.decode(errors='replace')[-_SHOWN:].strip()}") from None

    @contextlib.contextmanager
    def _running(
        self, name: str, command: Sequence[str], variables: Mapping[str, str], core: int | None
    ) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        log = self._directory / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self._directory,
                env=_environment(variables),
                preexec_fn=_pin(core),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process, log
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @staticmethod
    def _expect(process: subprocess.Popen[bytes], log: Path, pattern: str) -> re.Match[str]:
        end = time.monotonic() + _START_SECONDS
        while True:
            text = log.read_text(encoding="utf-8", errors="replace")
            found = re.search(pattern, text)
            if found is not None:
                return found
            if process.poll() is not None or time.monotonic() > end:
                raise Failed(f"{log.stem} does not start: {text[-_SHOWN:].strip()}")
            time.sleep(_LOOK_SECONDS)


def _pin(core: int | None) -> Callable[[], None] | None:
    return None if core is None else lambda: os.sched_setaffinity(0, {core})


def _children(pid: int) -> list[int]:
    """The processes that a process has started, as Linux tells; elsewhere none."""
    try:
        return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Ours, without what the daemon would read as options."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("MARKETFEED_", "REDIS_", "PORT"))}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, **variables}
