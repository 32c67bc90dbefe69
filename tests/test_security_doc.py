"""docs/security.md promises nothing that no test shows."""

from __future__ import annotations

import re

import pytest

from tests.docs_runner import ROOT

TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| threat ")]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_each_threat_has_a_test(row: str) -> None:
    """Its last column names one at least, and nothing else."""
    _, _, _, shown, _ = row.split("|")
    assert re.fullmatch(r" `tests/[\w/]+\.py::\w+`(, `tests/[\w/]+\.py::\w+`)* ", shown)


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_each_test_exists(path: str, name: str) -> None:
    """Under that name, in that file."""
    assert re.search(rf"^ *(async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
