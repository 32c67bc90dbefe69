"""Each client tells, in each scenario, exactly what the scenario says; what it cannot do stands in the matrix."""

from __future__ import annotations

import pytest
import pytest_twisted
from jsonschema import Draft202012Validator

from tests.conformance.clients import CLIENTS
from tests.conformance.runner import Run
from tests.conformance.scenarios import differs, matrix, scenarios, schema
from tests.system.harness import Harness

CANNOT = matrix()["cannot"]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("name", scenarios())
@pytest_twisted.ensureDeferred
async def test_what_it_tells(client: str, name: str, harness: Harness) -> None:
    there = CLIENTS[client]
    if there.missing:
        pytest.skip(there.missing)
    if name in CANNOT.get(client, {}):
        pytest.skip(CANNOT[client][name])
    expected, told = await Run(harness, scenarios()[name], there.command).run()
    assert not (what := differs(expected, told)), what


@pytest.mark.parametrize("name", scenarios())
def test_scenarios_are_as_the_schema_says(name: str) -> None:
    scenario = scenarios()[name]
    errors = Draft202012Validator(schema()).iter_errors({"scenarios": [scenario]})
    assert [f"{error.json_path}: {error.message}" for error in errors] == []
