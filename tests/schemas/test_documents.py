"""docs/asyncapi.yaml and docs/openapi.yaml: what they are made of, whether tools can read them, and the examples."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from openapi_spec_validator import validate

from marketfeed.model.kinds import BUILT_IN
from schemas.asyncapi import HOUSE
from schemas.write import DOCUMENTS, text
from tests.docs_runner import ROOT, Block, blocks, steps
from tests.schemas.contract import KINDS, channel_of, fault_of_answer, fault_of_message, fault_of_request

SPECIFICATION = "@asyncapi/specs@6.11.1"
_BAD_REQUEST = (0, 1, 2, 3)


@pytest.mark.parametrize("path", DOCUMENTS)
def test_the_file_is_what_the_structs_say(path: str) -> None:
    """Or else: make schemas."""
    assert (ROOT / path).read_text(encoding="utf-8") == text(DOCUMENTS[path]()), "make schemas"


def test_every_built_in_kind_has_a_schema() -> None:
    events = {event for kind in BUILT_IN for event in kind.shape.events}
    assert events == KINDS.keys()


def test_openapi_is_valid() -> None:
    """By the schema of OpenAPI 3.1, and every schema in it by that of JSON Schema."""
    validate(read("docs/openapi.yaml"))


def test_asyncapi_is_valid(tmp_path: Path) -> None:
    """By the schema of AsyncAPI 3.0, which is published for Node."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm, which has the schema of AsyncAPI, is not installed")
    command = [npm, "pack", "--silent", SPECIFICATION]
    if subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=120).returncode:
        pytest.skip(f"npm cannot get {SPECIFICATION}")
    (archive,) = tmp_path.glob("*.tgz")
    shutil.unpack_archive(archive, tmp_path, filter="data")
    schema = json.loads((tmp_path / "package" / "schemas" / "3.0.0.json").read_text(encoding="utf-8"))
    faults = [error.message for error in Draft7Validator(schema).iter_errors(read("docs/asyncapi.yaml"))]
    assert faults == []


def test_asyncapi_has_the_words_of_draft_07_and_no_reference_into_nothing() -> None:
    document = read("docs/asyncapi.yaml")
    for each in objects(document):
        assert "prefixItems" not in each
        assert isinstance(each.get("discriminator", ""), str)
        if isinstance(each.get("$ref"), str):
            found = document
            for step in each["$ref"].removeprefix("#/").split("/"):
                found = found[step]


@pytest.mark.parametrize("block", blocks("transcript"), ids=str)
def test_examples_are_as_the_schemas_say(block: Block) -> None:
    """Every message, request and answer that is shown; requests that are refused as malformed are not."""
    channels: dict[str, str] = {}
    options, asked, before = "", "", ""
    coming = steps(block)
    refused = {refusal for step in coming if step.verb == "expect" and (refusal := bad_request(step.rest))}
    for step in coming:
        where = f"{block.document}:{step.line}"
        if step.verb == "daemon":
            options = step.rest
        elif step.verb == "connect":
            channels[step.actor] = channel_of(step.rest)
        elif step.verb == "send" and request_id(step.rest) not in refused:
            assert fault_of_request(step.rest) is None, where
        elif step.verb == "expect" and "--validate warn" not in options:
            fault = fault_of_message(step.rest, channels[step.actor], is_engines="--payloads engine" in options)
            assert fault is None, f"{where}: {fault}"
        elif step.verb == "get":
            asked = step.rest
        elif step.verb == "status" and before == "get" and asked.startswith("/api/v3/"):
            status, _, body = step.rest.partition(" ")
            fault = fault_of_answer(body, asked.removeprefix("/api/v3/").partition("?")[0], int(status))
            assert fault is None, f"{where}: {fault}"
        before = step.verb


@pytest.mark.parametrize(
    ("channel", "message"),
    [
        (HOUSE, '{"stream":"trade@A","data":{"e":"trade","t":1,"m":true,"p":"1","s":"A"}}'),
        (HOUSE, '{"stream":"!reply","data":{"e":"reply","result":null,"more":1}}'),
        (HOUSE, '{"stream":"!error","data":{"e":"error","code":8,"msg":""}}'),
        ("combined", '{"stream":"trade@A","data":{"e":"trade","t":1,"m":true,"p":"1","q":"1","s":"A"}}'),
        ("raw", '{"e":"bookTicker","u":1,"s":"A","b":"1","B":"1","a":"2","A":1,"E":1}'),
        ("raw", '{"e":"depthUpdate","E":1,"s":"A","U":1,"u":1,"a":[["1","2","3"]],"b":[]}'),
    ],
)
def test_what_is_wrong_is_seen(channel: str, message: str) -> None:
    """A field that is missing, one too many, a wrong type, a code that is none."""
    assert fault_of_message(message, channel) is not None


def read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(each)


def bad_request(written: str) -> str | None:
    """The id of the request that this message refuses as malformed; None: it does not."""
    try:
        message = json.loads(written)
    except ValueError:
        return None
    fault = message.get("data", message) if isinstance(message, dict) else {}
    code = fault.get("error", fault).get("code") if isinstance(fault, dict) else None
    return repr(fault.get("id")) if code in _BAD_REQUEST else None


def request_id(written: str) -> str | None:
    """The id of a request; of one that is no JSON, that of none."""
    try:
        return repr(json.loads(written).get("id"))
    except ValueError:
        return repr(None)
