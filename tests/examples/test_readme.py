"""The page of the examples: it has all of them, its links lead somewhere, and what it installs is what they use."""

from __future__ import annotations

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.docs_runner import ROOT
from tests.examples.shown import EXAMPLES, commands

README = (EXAMPLES / "README.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^## (.+)$", README, re.MULTILINE)
REQUIREMENTS = sorted(EXAMPLES.glob("*/requirements.txt"))
_PACKAGES = {"jwt": "pyjwt", "marketfeed_client": "marketfeed-client"}
"""Of a module, the distribution, where it has another name."""


def anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def needed(file: Path) -> set[str]:
    """The distributions that a file of requirements names, with those of the extras of the client."""
    names = set()
    for line in file.read_text(encoding="utf-8").splitlines():
        client = re.fullmatch(r"--editable \./clients/python(?:\[(\w+)\])?", line)
        if client is not None:
            names.add("marketfeed-client")
            for each in metadata.requires("marketfeed-client") or ():
                requirement = Requirement(each)
                if requirement.marker is None or requirement.marker.evaluate({"extra": client[1] or ""}):
                    names.add(requirement.name)
        elif not line.startswith("#"):
            names.add(Requirement(line).name)
    return names


def test_each_is_in_the_table_and_has_a_section() -> None:
    assert re.findall(r"^\| \[(.+?)\]\(#(.+?)\) \|", README, re.MULTILINE) == [
        (each, anchor(each)) for each in HEADINGS
    ]
    directories = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert directories == {re.findall(r"\[`(\w+)/", section)[0] for section in README.split("\n## ")[1:]}


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", README):
        path, _, heading = link.partition("#")
        assert (EXAMPLES / path).is_file() if path else heading in map(anchor, HEADINGS), link


@pytest.mark.parametrize("heading", HEADINGS)
def test_what_it_runs_exists(heading: str) -> None:
    for command in commands(heading):
        for path in re.findall(r"\bexamples/\S+", command):
            assert (ROOT / path).exists(), command


@pytest.mark.parametrize("file", REQUIREMENTS, ids=lambda file: file.parent.name)
def test_what_is_imported_is_installed_before(file: Path) -> None:
    """All that an example imports is in its requirements, and these are in the environment that tests run in."""
    distributions = needed(file)
    for name in distributions:
        assert metadata.version(name)
    for program in file.parent.glob("*.py"):
        for node in ast.walk(ast.parse(program.read_text(encoding="utf-8"))):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names):
                assert _PACKAGES.get(module, module) in distributions, f"{program}: {module}"
    assert f"env/bin/pip install -r {file.relative_to(ROOT)}" in README
