"""The JavaScript client as it is published: its own tests, its types, its sizes, and what checkers of packages say."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

import marketfeed
from tests.docs_runner import ROOT
from tests.javascript.places import CLIENT, needs_node
from tests.programs import printed

pytestmark = needs_node


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, built: nothing is written into the checkout, which others test at the same time."""
    copy = tmp_path_factory.mktemp("js") / "client"
    shutil.copytree(CLIENT, copy, ignore=shutil.ignore_patterns("node_modules", "dist"))
    (copy / "node_modules").symlink_to(CLIENT / "node_modules")
    run(copy, "npm", "run", "build")
    return copy


def run(place: Path, *command: str) -> str:
    """What it printed; it must end well."""
    home = {"npm_config_cache": str(place / "cache"), "npm_config_update_notifier": "false"}
    return printed(command, place, {**os.environ, **home})


def test_its_own_tests_pass(package: Path) -> None:
    assert re.search(r"fail 0\b", run(package, "npm", "test"))


def test_its_types_are_right(package: Path) -> None:
    """Those of the code itself, and those that users of it see."""
    run(package, "npm", "run", "types")
    run(package, "node", "node_modules/typescript/bin/tsc", "--project", "test/types")


def test_it_is_small(package: Path) -> None:
    """The build fails where it is not; both figures are printed, and are not far below what they may be by accident."""
    sizes = re.findall(r"(\d+) bytes gzipped, of (\d+)", run(package, "npm", "run", "build"))
    assert [most for _, most in sizes] == ["6000", "8000"]
    assert all(1000 < int(size) <= int(most) for size, most in sizes)


def test_checkers_of_packages_find_nothing(package: Path) -> None:
    assert "All good!" in run(package, "npx", "--no-install", "publint", "--strict")
    run(package, "npx", "--no-install", "attw", "--pack", ".", "--profile", "esm-only")


def test_it_is_packed_as_its_page_says(package: Path) -> None:
    readme = (CLIENT / "README.md").read_text(encoding="utf-8")
    assert "\nnpm ci\nnpm pack\n" in readme
    run(package, "npm", "pack")
    named = re.search(r"^npm install \S+/(\S+\.tgz)$", readme, re.MULTILINE)
    assert named is not None
    assert (package / named[1]).is_file()


def test_its_licence_is_the_projects(package: Path) -> None:
    assert (package / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_it_needs_nothing_and_is_of_this_version(package: Path) -> None:
    text = (package / "package.json").read_text(encoding="utf-8")
    assert '"dependencies"' not in text
    assert f'"version": "{marketfeed.__version__}"' in text
