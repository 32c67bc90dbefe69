"""The compiled daemon that is measured beside the other one."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from benchmarks import processes
from benchmarks.processes import build_compiled


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A checkout with one module, and a pip that makes a wheel of it; what it was asked to make."""
    asked: list[str] = []

    def run(command: list[str], *, env: dict[str, str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(env["MARKETFEED_COMPILED"])
        with zipfile.ZipFile(Path(command[command.index("--wheel-dir") + 1]) / "a.whl", "w") as wheel:
            wheel.write(tmp_path / "marketfeed" / "a.py", "marketfeed/a.py")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(processes, "ROOT", tmp_path)
    monkeypatch.setattr(processes, "COMPILED", tmp_path / "build" / "benchmarks")
    monkeypatch.setattr(processes.subprocess, "run", run)
    for name in ("marketfeed/a.py", "tools/compiling.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return asked


def test_it_is_built_when_a_source_has_changed(built: list[str], tmp_path: Path) -> None:
    """And the wheel's content is what is there; nothing is left of the last one."""
    place = tmp_path / "build" / "benchmarks"
    assert build_compiled() is None
    assert build_compiled() is None
    assert (place / "marketfeed" / "a.py").read_text() == "marketfeed/a.py"
    assert built == ["yes"]
    (place / "left").touch()
    (tmp_path / "marketfeed" / "a.py").write_text("other")
    assert build_compiled() is None
    assert (place / "marketfeed" / "a.py").read_text() == "other"
    assert built == ["yes", "yes"]
    assert not (place / "left").exists()


def test_why_it_cannot_be_built(built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One line of what pip says: the one that names the wish, if there is any."""
    for said, told in (
        (
            "error: x\n  MARKETFEED_COMPILED=yes: there is no compiler\nhint: y\n",
            "MARKETFEED_COMPILED=yes: there is no compiler",
        ),
        ("error: x\nhint: y\n", "hint: y"),
        ("", "pip made no wheel"),
    ):
        failed = subprocess.CompletedProcess([], 1, "", said)
        monkeypatch.setattr(processes.subprocess, "run", lambda *_, failed=failed, **__: failed)
        assert build_compiled() == told
