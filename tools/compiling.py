"""The build of marketfeed: setuptools', which compiles the way of a publication where that can be done.

1. `MODULES` are plain Python, and compiled the same source: with mypyc, into C, as a wheel is built. Nothing else is
   ever compiled; an installation in development (`pip install --editable`) has no compiled module, which would hide
   what is edited.
2. All of them are compiled, or none: they call each other without asking what they are.
3. It is done where there is a C compiler with Python's headers; elsewhere the wheel is pure Python, and one line says
   so. `MARKETFEED_COMPILED=yes` makes that an error, `MARKETFEED_COMPILED=no` compiles nothing.
4. The types are those of this repository alone. What other packages have is treated as it would be if it were not there
   to be read, so that the same comes out on every machine. Therefore no class of msgspec's may be in `MODULES`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "MODULES",
    "build_editable",
    "build_sdist",
    "build_wheel",
    "extensions",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "needed_for_a_wheel",
    "obstacle",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

MODULES = (
    "marketfeed/hub/counted_history.py",
    "marketfeed/hub/counts.py",
    "marketfeed/hub/derived.py",
    "marketfeed/hub/entry_history.py",
    "marketfeed/hub/fanout.py",
    "marketfeed/hub/flush_sampler.py",
    "marketfeed/hub/groups.py",
    "marketfeed/hub/histories.py",
    "marketfeed/hub/history.py",
    "marketfeed/hub/no_history.py",
    "marketfeed/hub/publishing.py",
    "marketfeed/hub/stream.py",
    "marketfeed/model/book_state.py",
    "marketfeed/model/early_updates.py",
    "marketfeed/model/kinds/values.py",
    "marketfeed/model/merged_book.py",
    "marketfeed/model/publications.py",
    "marketfeed/model/sequence.py",
    "marketfeed/model/state.py",
    "marketfeed/redis/replies.py",
    "marketfeed/wire/frames.py",
)
COMPILER = "mypy>=2.4,<3"
PLACE = Path("build", "wheel")
"""Where a wheel is put together, anew each time: setuptools would take along what an earlier build has left."""

_WISH = "MARKETFEED_COMPILED"
_PROBE = """#include <Python.h>
int main(void) { return PY_MAJOR_VERSION == 3 ? 0 : 1; }
"""


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """What pip installs for the build: the compiler, where it is of use."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *needed_for_a_wheel()]


def needed_for_a_wheel() -> list[str]:
    """What compiles it, where anything does."""
    return [COMPILER] if obstacle() is None else []


def extensions() -> list[Any]:
    """The compiled modules of a wheel that is about to be built, for `setup`; none where that is not to be.

    Raises SystemExit where it cannot be, and `MARKETFEED_COMPILED=yes`.
    """
    shutil.rmtree(PLACE, ignore_errors=True)
    found = obstacle()
    if found is None:
        try:
            from mypyc.build import mypycify
        except ImportError:
            found = "mypy is not installed"
        else:
            made = mypycify(
                _arguments(), opt_level="3", debug_level="0", group_name="marketfeed", target_dir=str(PLACE / "c")
            )
            return list(made)
    if _wish() == "yes":
        raise SystemExit(f"{_WISH}=yes, but nothing can be compiled: {found}")
    print(f"marketfeed is not compiled, and takes more of the processor: {found}", file=sys.stderr)
    return []


def _arguments() -> list[str]:
    """What mypy is told."""
    return [
        *("--config-file=", f"--cache-dir={PLACE / 'cache'}", "--no-site-packages"),
        *("--ignore-missing-imports", "--follow-imports=silent"),
        *MODULES,
    ]


def obstacle() -> str | None:
    """Why nothing is to be compiled here; None: nothing is in the way. Raises SystemExit for a wish that is none."""
    if _wish() == "no":
        return f"{_WISH}=no"
    if sys.implementation.name != "cpython":
        return "this Python is not CPython"
    return None if _can_compile() else "there is no C compiler with Python's headers (Debian: gcc, python3-dev)"


def _wish() -> str:
    """What the environment asks for: `yes`, `no`, or nothing."""
    wish = os.environ.get(_WISH, "")
    if wish not in ("", "yes", "no"):
        raise SystemExit(f"{_WISH} is {wish!r}: expected yes, no, or nothing, which compiles where that can be done")
    return wish


def _can_compile() -> bool:
    """Whether a program that has Python's headers can be made."""
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    with tempfile.TemporaryDirectory() as place:
        probe = Path(place, "probe.c")
        probe.write_text(_PROBE, encoding="ascii")
        include = f"-I{sysconfig.get_path('include')}"
        try:
            made = subprocess.run(
                [*shlex.split(compiler), include, str(probe), "-o", str(probe.with_suffix(""))],
                capture_output=True,
                check=False,
            )
        except OSError:
            return False
    return made.returncode == 0
