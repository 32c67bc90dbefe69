"""How deep JSON may nest, the same for every Python, whose limits differ (docs/protocol.md#what-the-engine-publishes).

1. The outermost object or list is the first level. Brackets inside strings are text.
2. What is JSON is measured exactly. Of what is none, `is_too_deep` may say either; but when it says no, a decoder
   meets at most `MAX_NESTING` levels before it finds the fault, and never the end of its stack.
3. It takes linear time, whatever the text is. Nearly all texts have so few brackets that counting them is enough.
"""

from __future__ import annotations

import re

__all__ = ["MAX_NESTING", "TOO_DEEP", "is_too_deep"]

MAX_NESTING = 32
TOO_DEEP = f"nested deeper than {MAX_NESTING} levels"

_SIBLINGS = (b"],[", b"], [", b"},{", b"}, {")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.?[^"\\]*+)*+(?:"|\Z)', re.DOTALL)  # one that does not end is one to the end
_ALIKE = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))


def is_too_deep(text: bytes) -> bool:
    """Whether the JSON text `text` nests deeper than `MAX_NESTING` levels."""
    opened = text.count(b"[") + text.count(b"{")
    if opened <= MAX_NESTING:
        return False
    for sibling in _SIBLINGS:  # it opens as deep as what was closed just before
        opened -= text.count(sibling)
    return opened > MAX_NESTING and _nesting(text) > MAX_NESTING


def _nesting(text: bytes) -> int:
    """How many levels there are; more than `MAX_NESTING` are not counted to the last one."""
    brackets = _STRING.sub(b"", text).translate(_ALIKE, _OTHERS)
    for _ in range(MAX_NESTING):  # each time, what is closed and opened again at once goes: no level is lost by it
        fewer = brackets.replace(b"][", b"")
        if len(fewer) == len(brackets):
            break
        brackets = fewer
    return brackets.count(b"[")
