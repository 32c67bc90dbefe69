"""Writes the two documents: `python -m schemas.write`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from schemas.asyncapi import asyncapi
from schemas.openapi import openapi

__all__ = ["DOCUMENTS", "text"]

ROOT = Path(__file__).parent.parent
DOCUMENTS = {"docs/asyncapi.yaml": asyncapi, "docs/openapi.yaml": openapi}
"""What makes each file."""
_HEAD = "# Written by `make schemas`, of the Structs in schemas/ and marketfeed/.\n"


def text(document: dict[str, Any]) -> str:
    """A document as its file has it."""
    return _HEAD + msgspec.yaml.encode(document).decode()


if __name__ == "__main__":
    for path, make in DOCUMENTS.items():
        (ROOT / path).write_text(text(make()), encoding="utf-8")
