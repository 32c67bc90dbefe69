"""What a client cannot do stands in one place, with its reason, and users can read it."""

from __future__ import annotations

import re

from tests.conformance.clients import CLIENTS
from tests.conformance.scenarios import matrix, scenarios
from tests.docs_runner import ROOT


def test_the_matrix_is_about_what_there_is() -> None:
    cannot = matrix()["cannot"]
    assert set(cannot) == set(CLIENTS)
    for reasons in cannot.values():
        assert set(reasons) <= set(scenarios())
        assert all(reasons.values())


def test_the_page_has_the_matrix() -> None:
    page = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8").partition("## What they do alike")[2]
    rows = re.findall(r"^\| (\w+) \| `(.+?)` \| (.+) \|$", page, re.MULTILINE)
    cannot = matrix()["cannot"]
    assert rows == [(client, name, why) for client, reasons in cannot.items() for name, why in reasons.items()]
