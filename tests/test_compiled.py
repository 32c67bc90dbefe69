"""What is compiled of a wheel (tools/compiling.py): all that is listed, or nothing, and real twistd serves with it.

The tests of the source hold for the compiled modules as well: `make compiled` runs them so.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import msgspec
import pytest
import pytest_twisted

import marketfeed
from marketfeed.hub.publishing import IS_COMPILED
from tests.docs_runner import ROOT
from tests.programs import printed
from tests.system.admin_port import AdminPort
from tests.system.harness import TWISTD, DaemonProcess, Harness, trade
from tests.test_packaging import build, can_build_without_downloads, copy_of_the_source

SUFFIX: str = sysconfig.get_config_var("EXT_SUFFIX")


def asked(expression: str, **environment: str) -> str:
    """What an expression about `compiling` is, in a Python of its own: setuptools puts what it needs on the path."""
    code = f"import compiling; print({expression}, end='')"
    environment = {"PYTHONPATH": str(ROOT / "tools"), "PATH": os.environ["PATH"], **environment}
    return printed([sys.executable, "-c", code], ROOT, environment)


MODULES = asked("*compiling.MODULES").split()
NAMES = [name.removesuffix(".py").replace("/", ".") for name in MODULES]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of what is packaged."""
    return copy_of_the_source(tmp_path / "source")


@pytest_twisted.ensureDeferred
async def test_all_that_is_listed_is_compiled_and_serves(harness: Harness, source: Path, tmp_path: Path) -> None:
    """In a virtualenv that has the wheel, and besides only what it needs."""
    obstacle = asked("compiling.obstacle() or ''")
    if obstacle or not can_build_without_downloads() or importlib.util.find_spec("mypyc") is None:
        pytest.skip(obstacle or "setuptools or mypyc is missing")
    wheel, _ = build(source, tmp_path / "wheel", "yes")
    made = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(SUFFIX)}
    assert made == {name.removesuffix(".py") + SUFFIX for name in MODULES} | {f"marketfeed__mypyc{SUFFIX}"}

    place = tmp_path / "venv"
    venv.create(place)
    python = place / "bin" / "python"
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    install = ("-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    printed([sys.executable, *install], tmp_path, {})
    shown = f"from importlib import import_module\nfor name in {NAMES}: print(import_module(name).__file__)"
    files = printed([python, "-c", shown], tmp_path, {}).split()
    assert files == [str(packages / name.removesuffix(".py")) + SUFFIX for name in MODULES]

    redis = await harness.redis()
    command = [str(python), *TWISTD, "-n", "--pidfile=", "marketfeed", "--port", "tcp:0:interface=127.0.0.1"]
    command += ["--redis-url", redis.url, "--admin", "tcp:0:interface=127.0.0.1"]
    daemon = DaemonProcess(harness.spawn(command, {"PYTHONPATH": ""}))
    daemon.port = int((await daemon.expect(r"listening on port (\d+)"))[1])
    admin = await AdminPort.of(daemon)
    await daemon.expect(rf"marketfeed {marketfeed.__version__} \(compiled\)")
    await daemon.expect("redis: connected")
    (build_info,) = [name for name in await admin.samples(harness) if name.startswith("build_info")]
    assert build_info.split()[1] == "yes"
    client = await harness.client(daemon)
    await client.subscribe("trade@TATA_INR")
    engine = await redis.connect()
    await engine.publish("trade@TATA_INR", trade())
    assert (await client.next())["data"] == msgspec.json.decode(trade())
    assert await daemon.stop() == 0


class TestWithoutACompiler:
    def test_the_wheel_is_pure_python_and_one_line_says_so(self, source: Path, tmp_path: Path) -> None:
        """It is for every machine then."""
        wheel, said = build(source, tmp_path / "wheel", "", CC="false")
        assert wheel.name.endswith("-py3-none-any.whl")
        assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]
        assert said.count("marketfeed is not compiled, and takes more of the processor: there is no C compiler") == 1

    def test_nothing_is_built_where_it_was_to_be_compiled(self, source: Path, tmp_path: Path) -> None:
        """The line says why."""
        with pytest.raises(AssertionError, match="MARKETFEED_COMPILED=yes, but nothing can be compiled: there is no C"):
            build(source, tmp_path / "wheel", "yes", CC="false")

    def test_a_wish_that_is_none_is_refused(self) -> None:
        with pytest.raises(AssertionError, match="MARKETFEED_COMPILED is 'on': expected yes, no, or nothing"):
            asked("compiling.obstacle()", MARKETFEED_COMPILED="on")

    def test_pip_gets_the_compiler_only_where_it_is_of_use(self) -> None:
        """It is as large as all the rest."""
        assert asked("*compiling.needed_for_a_wheel()", MARKETFEED_COMPILED="no") == ""
        assert asked("*compiling.needed_for_a_wheel()", CC="false") == ""


def test_what_is_edited_is_what_runs(source: Path, tmp_path: Path) -> None:
    """An installation in development has no compiled module, whatever could be compiled."""
    code = "import compiling, sys; compiling.build_editable(sys.argv[1])"
    environment = {"PYTHONPATH": str(source / "tools"), "PATH": os.environ["PATH"]}
    printed([sys.executable, "-c", code, tmp_path], source, environment)
    (wheel,) = tmp_path.glob("*.whl")
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]
    assert not list(source.rglob("*.so"))


@pytest.mark.parametrize("name", MODULES)
def test_no_class_of_msgspecs_is_compiled(name: str) -> None:
    """mypyc would make another class of it, without saying so."""
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    bases = [ast.unparse(base) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases]
    assert not [base for base in bases if base in ("msgspec.Struct", "Struct", "Plain")]


def test_it_is_known_whether_this_is_compiled() -> None:
    """Of the modules that are tested here."""
    found = importlib.util.find_spec("marketfeed.hub.publishing")
    assert found is not None
    assert IS_COMPILED is str(found.origin).endswith(SUFFIX)
