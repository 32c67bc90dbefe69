"""What `make` says on a machine that cannot set the checkout up: one line, with the fix, before anything is made."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs_runner import ROOT

STARTED = "started: -n --pidfile= marketfeed --demo --port tcp:8080:interface=127.0.0.1"
GOALS = (
    "run",
    "dev",
    "test",
    "check",
    "fuzz",
    "faults",
    "bench",
    "pictures",
    "schemas",
    "docs",
    "wheel",
    "compiled",
    "constraints",
)

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the Makefile needs of a checkout, never set up, under a path with a space."""
    copy = tmp_path / "a checkout"
    copy.mkdir()
    for name in ("Makefile", "setup.cfg", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "tools", copy / "tools")
    (copy / "clients" / "python").mkdir(parents=True)
    shutil.copy(ROOT / "clients" / "python" / "pyproject.toml", copy / "clients" / "python")
    return copy


def script(path: Path, body: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def python(path: Path, change: str) -> Path:
    """A Python that is this one but for a change, and that does nothing else than answer `-c`."""
    return script(
        path,
        f'[ "$1" = -c ] || {{ echo "asked for $*"; exit 9; }}\n'
        f"exec '{sys.executable}' -c 'import sys; {change}; exec(sys.argv[1])' \"$2\"",
    )


def old_python(path: Path) -> Path:
    return python(path, 'sys.version_info = (3, 10, 12, "final", 0)')


def python_without_venv(path: Path) -> Path:
    return python(path, 'sys.version_info = (3, 12, 3, "final", 0); sys.modules["ensurepip"] = None')


def make(checkout: Path, *arguments: str, path: str | None = None, **environment: str) -> tuple[int, list[str]]:
    """The status of make and the lines that it printed."""
    foreign = ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "PYTHON", "PORT", "HOST", "ARGS", "CONSTRAINTS")
    inherited = {name: value for name, value in os.environ.items() if name not in foreign}
    inherited["PATH"] = path or os.environ["PATH"]
    found = shutil.which("make")
    assert found is not None
    done = subprocess.run(
        [found, *arguments],
        cwd=checkout,
        env=inherited | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


def tools_only(directory: Path, *names: str) -> str:
    """A PATH with nothing on it but the named programs."""
    directory.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found is not None
        (directory / name).symlink_to(found)
    return str(directory)


class TestRefusals:
    @pytest.mark.parametrize("goal", GOALS)
    def test_an_old_python_is_refused_with_the_way_to_name_another(
        self, checkout: Path, tmp_path: Path, goal: str
    ) -> None:
        """Python 3.10 gets one line that shows the same goal with another Python."""
        status, lines = make(checkout, goal, PYTHON=str(old_python(tmp_path / "python3.10")))
        assert status == 2  # make's own: it has no other for a failure
        assert len(lines) == 1, lines
        assert "python3.10 is Python 3.10.12, too old" in lines[0]
        assert f"PYTHON=python3.12 make {goal}" in lines[0]
        assert not (checkout / "env").exists()

    def test_a_python_without_venv_is_refused_with_the_package_to_install(self, checkout: Path, tmp_path: Path) -> None:
        """Debian and Ubuntu ship venv apart; the package is named after the version of that Python."""
        fake = python_without_venv(tmp_path / "no venv" / "python3")
        status, lines = make(checkout, "run", PYTHON=str(fake))
        assert status == 2
        assert len(lines) == 1, lines
        assert "apt-get install python3.12-venv, then" in lines[0]
        assert not (checkout / "env").exists()

    def test_the_python_of_the_path_is_examined_alike(self, checkout: Path, tmp_path: Path) -> None:
        """Without PYTHON, python3 is what is used and named."""
        old_python(tmp_path / "bin" / "python3")
        status, lines = make(checkout, "test", path=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        assert status == 2
        assert len(lines) == 1, lines
        assert "python3 is Python 3.10.12, too old" in lines[0]

    def test_no_python_at_all(self, checkout: Path, tmp_path: Path) -> None:
        """A machine without python3 is told the packages."""
        status, lines = make(checkout, "run", path=tools_only(tmp_path / "bin", "sh", "cat"))
        assert status == 2
        assert len(lines) == 1, lines
        assert "no python3 here: apt-get install python3 python3-venv" in lines[0]

    def test_a_python_that_is_not_there(self, checkout: Path) -> None:
        """A mistyped PYTHON is named, with an example that would do."""
        status, lines = make(checkout, "run", PYTHON="pythn 3")
        assert status == 2
        assert len(lines) == 1, lines
        assert "pythn 3 does not run" in lines[0]
        assert "PYTHON=python3.12 make run" in lines[0]

    def test_the_line_is_the_only_one_with_parallel_jobs(self, checkout: Path, tmp_path: Path) -> None:
        """`make -j` says the same, once."""
        status, lines = make(checkout, "-j4", "run", "test", PYTHON=str(old_python(tmp_path / "python3.10")))
        assert status == 2
        assert len(lines) == 1, lines

    def test_a_good_python_is_not_complained_about(self, checkout: Path) -> None:
        """The Python that runs the tests can make an env/."""
        status, lines = make(checkout, "--dry-run", "test", PYTHON=sys.executable)
        assert status == 0, lines
        assert not (checkout / "env").exists()


class TestUnfinishedSetUp:
    @pytest.mark.parametrize("left_behind", ["empty", "without-bin", "dangling", "not-marked"])
    def test_what_an_interruption_left_behind_is_not_used(
        self, checkout: Path, tmp_path: Path, left_behind: str
    ) -> None:
        """An env/ without the mark of a finished set-up counts as none: the machine is examined, env/ made anew."""
        binaries = checkout / "env" / "bin"
        if left_behind == "empty":
            binaries.parent.mkdir()
        elif left_behind == "without-bin":
            (checkout / "env" / "lib").mkdir(parents=True)
        elif left_behind == "dangling":
            binaries.mkdir(parents=True)
            (binaries / "python").symlink_to(tmp_path / "gone")
            (checkout / "env" / ".finished").write_text(f"3.11 /usr in {checkout}\n", encoding="utf-8")
        else:
            binaries.mkdir(parents=True)
            (binaries / "python").symlink_to(sys.executable)
        asked = script(
            tmp_path / "python3",
            f'[ "$1" = -c ] && exec \'{sys.executable}\' "$@"\necho "would run: $*"; exit 1',
        )
        status, lines = make(checkout, "run", PYTHON=str(asked))
        assert status == 2
        assert "would run: -m venv --clear env" in lines
        assert any("the next run tries again" in line for line in lines), lines
        assert not (checkout / "env" / ".finished").exists()


class TestFinishedSetUp:
    @pytest.fixture
    def finished(self, checkout: Path, tmp_path: Path) -> Path:
        """A checkout whose env/ was set up, by stand-ins for venv and pip that note how often they were called."""
        log = tmp_path / "calls"
        inside = tmp_path / "inside"
        script(inside, f'[ "$1" = -c ] && exec \'{sys.executable}\' "$@"\necho "$2" >>\'{log}\'')
        script(
            tmp_path / "bin" / "python3",
            f'[ "$1" = -c ] && exec \'{sys.executable}\' "$@"\n'
            f"echo \"$2\" >>'{log}'; mkdir -p env/bin; cp '{inside}' env/bin/python\n"
            "printf '#!/bin/sh\\necho started: \"$@\"\\n' >env/bin/twistd; chmod +x env/bin/twistd",
        )
        return checkout

    def make(self, checkout: Path, *arguments: str, **environment: str) -> tuple[int, list[str]]:
        path = f"{checkout.parent / 'bin'}:{os.environ['PATH']}"
        return make(checkout, *arguments, path=path, **environment)

    def calls(self, checkout: Path) -> list[str]:
        return (checkout.parent / "calls").read_text(encoding="utf-8").split()

    def test_it_is_done_once(self, finished: Path) -> None:
        """The second run starts the daemon at once, on the port that was asked for."""
        status, lines = self.make(finished, "run")
        assert (status, lines[-1]) == (0, STARTED)
        status, lines = self.make(finished, "run", PORT="8090")
        assert (status, lines) == (0, [STARTED.replace("8080", "8090") + " --admin tcp:8091:interface=127.0.0.1"])
        assert self.calls(finished) == ["venv", "pip"]

    @pytest.mark.parametrize(
        ("variables", "port"),
        [
            ({"HOST": "0.0.0.0"}, "tcp:8080:interface=0.0.0.0"),
            ({"PORT": "unix:demo.sock"}, "unix:demo.sock"),
            ({"PORT": "tcp:8090:interface=::1"}, "tcp:8090:interface=::1"),
            (
                {"PORT": "8090", "ARGS": "--admin-token-file x"},
                "tcp:8090:interface=127.0.0.1 --admin tcp:8091:interface=127.0.0.1 --admin-token-file x",
            ),
            ({"PORT": "8090", "ARGS": "--admin off"}, "tcp:8090:interface=127.0.0.1 --admin off"),
            ({"PORT": "8090", "ARGS": "--admin=off"}, "tcp:8090:interface=127.0.0.1 --admin=off"),
            ({"ARGS": "--source streams"}, "tcp:8080:interface=127.0.0.1 --source streams"),
        ],
    )
    def test_the_demo_is_for_this_machine_unless_it_is_told_otherwise(
        self, finished: Path, variables: dict[str, str], port: str
    ) -> None:
        """It has no token and no limit that would fit the whole network."""
        self.make(finished, "run")
        status, lines = self.make(finished, "run", **variables)
        assert (status, lines) == (0, [f"started: -n --pidfile= marketfeed --demo --port {port}"])

    @pytest.mark.parametrize("name", ["setup.cfg", "pyproject.toml", "constraints.txt"])
    def test_changed_requirements_are_installed_into_the_same_env(self, finished: Path, name: str) -> None:
        """What env/ was made from has changed: pip runs again, venv does not."""
        self.make(finished, "run")
        with (finished / name).open("a", encoding="utf-8") as file:
            file.write("\n")
        self.make(finished, "run")
        assert self.calls(finished) == ["venv", "pip", "pip"]

    @pytest.mark.parametrize(("goals", "installed"), [(["run", "test", "run"], 2), (["test", "run", "test"], 1)])
    def test_what_a_goal_needs_is_installed_when_it_is_missing(
        self, finished: Path, goals: list[str], installed: int
    ) -> None:
        """The tests' extra includes the demo's, not the other way round."""
        for goal in goals:
            self.make(finished, goal)
        assert [call for call in self.calls(finished) if call != "pytest"] == ["venv"] + ["pip"] * installed

    @pytest.mark.parametrize("constraints", ["constraints.txt", "", "other.txt"])
    def test_the_versions_are_those_of_the_constraints_or_the_newest(self, finished: Path, constraints: str) -> None:
        """What was installed with others before is brought to these."""
        script(finished.parent / "inside", f'[ "$1" = -c ] && exec \'{sys.executable}\' "$@"\necho "$*" >said')
        (finished / "other.txt").write_text("# none\n", encoding="utf-8")
        self.make(finished, "run")
        (finished / "said").unlink()
        (finished / "setup.cfg").open("a", encoding="utf-8").write("\n")
        status, lines = self.make(finished, "run", CONSTRAINTS=constraints)
        assert (status, lines[-1]) == (0, STARTED)
        said = (finished / "said").read_text(encoding="utf-8")
        expected = f"--constraint {constraints}" if constraints else "--upgrade --upgrade-strategy eager"
        assert f" {expected} --editable .[demo]" in said
        assert (finished / "env" / ".constraints").read_text(encoding="utf-8") == f"{constraints}\n"

    def test_constraints_that_are_not_there(self, checkout: Path) -> None:
        """Are pip's own complaint, and no env/ is finished."""
        status, lines = make(checkout, "run", CONSTRAINTS="missing.txt", PYTHON=sys.executable)
        assert status == 2
        assert any("missing.txt" in line for line in lines), lines
        assert not (checkout / "env" / ".finished").exists()

    @pytest.mark.parametrize(("clients", "made"), [("yes", 2), ("", 0)])
    def test_clients_are_set_up_once_each_unless_they_are_not_wanted(
        self, finished: Path, clients: str, made: int
    ) -> None:
        """A virtualenv for each, with the versions of its file; a file that has changed makes its own anew."""
        requirements = finished / "tests" / "clients" / "requirements"
        requirements.mkdir(parents=True)
        for name in ("one", "two"):
            (requirements / f"{name}.txt").write_text(f"{name}==1.0\n", encoding="utf-8")
        log = finished.parent / "calls"
        script(
            finished.parent / "inside",
            f'[ "$1" = -c ] && exec \'{sys.executable}\' "$@"\necho "$*" >>\'{log}\'\n'
            '[ "$2" != venv ] || mkdir -p "$5"',  # -m venv --clear --without-pip DIRECTORY
        )
        for _ in range(2):
            assert self.make(finished, "test", CLIENTS=clients)[0] == 0
        with (requirements / "two.txt").open("a", encoding="utf-8") as file:
            file.write("other==1.0\n")
        assert self.make(finished, "test", CLIENTS=clients)[0] == 0
        said = log.read_text(encoding="utf-8")
        assert (
            len(re.findall(r"--constraint tests/clients/requirements/one\.txt one$", said, re.MULTILINE)) == made // 2
        )
        assert len(re.findall(r"--constraint tests/clients/requirements/two\.txt two$", said, re.MULTILINE)) == made
        assert len(re.findall(r"venv --clear --without-pip env/clients/", said)) == made + made // 2

    def test_a_moved_checkout_is_set_up_anew(self, finished: Path) -> None:
        """The scripts of a virtualenv hold its path."""
        self.make(finished, "run")
        moved = finished.rename(finished.with_name("moved"))
        status, lines = self.make(moved, "run")
        assert (status, lines[-1]) == (0, STARTED)
        assert self.calls(moved) == ["venv", "pip", "venv", "pip"]

    def test_python_is_named_once(self, finished: Path, tmp_path: Path) -> None:
        """A finished env/ stands whatever python3 is now."""
        self.make(finished, "run")
        old_python(tmp_path / "bin" / "python3")
        status, lines = self.make(finished, "run")
        assert (status, lines) == (0, [STARTED])


class TestHelp:
    def test_make_alone_lists_the_goals(self, checkout: Path) -> None:
        """Every goal has its line, and nothing is set up for it."""
        status, lines = make(checkout)
        assert status == 0
        listed = [found[1] for line in lines if (found := re.match(r"  (\w+) +\S", line))]
        assert listed == ["help", *GOALS, "clean"]
        assert not (checkout / "env").exists()
