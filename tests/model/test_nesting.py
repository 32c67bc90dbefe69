"""How deep JSON may nest: measured exactly, in linear time, and the same as a decoder sees it."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfeed.model.nesting import MAX_NESTING, TOO_DEEP, is_too_deep
from tests.strategies import blanks, json_values, plain_text, property_test, quoted

strings = plain_text | st.text('[]{},:"\\ ', max_size=40)
"""Some look like JSON themselves."""


def levels(value: Any) -> int:
    """The same, by walking through the value."""
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        inner, level = waiting.pop()
        if isinstance(inner, dict | list):
            deepest = max(deepest, level)
            waiting += [(each, level + 1) for each in (inner.values() if isinstance(inner, dict) else inner)]
    return deepest


@st.composite
def nests(draw: st.DrawFn) -> str:
    """JSON that is about as deep as the limit, with any siblings, strings and blanks on each level."""
    text = draw(st.sampled_from(("[]", "{}", "1", '"["', "[[]]")))
    for _ in range(draw(st.integers(MAX_NESTING - 3, MAX_NESTING + 3))):
        before, behind = [
            draw(st.lists(st.sampled_from(("1", "[]", "[[1]]", "{}", '"]"', '"\\"["')), max_size=2)) for _ in "ab"
        ]
        if draw(st.booleans()):
            text = "[" + f",{draw(blanks)}".join([*before, text, *behind]) + "]"
        else:
            key = draw(quoted(draw(strings)))
            text = (
                "{"
                + ",".join([*[f'"{at}":{each}' for at, each in enumerate(before)], f"{key}:{draw(blanks)}{text}"])
                + "}"
            )
    return text


@property_test
@given(nests())
@example("[" * MAX_NESTING + "]" * MAX_NESTING)
@example("[" * (MAX_NESTING + 1) + "]" * (MAX_NESTING + 1))
@example("[" * MAX_NESTING + "]" * (MAX_NESTING - 1) + "," + "[" * (MAX_NESTING - 1) + "]" * MAX_NESTING)
@example('{"":' * MAX_NESTING + "[]" + "}" * MAX_NESTING)
def test_json_about_the_limit(text: str) -> None:
    """What is JSON is measured exactly."""
    assert is_too_deep(text.encode()) is (levels(json.loads(text)) > MAX_NESTING)


@property_test
@given(json_values, st.booleans(), st.none() | st.integers(0, 2))
def test_any_json(value: Any, ascii_only: bool, indent: int | None) -> None:
    """In any layout."""
    text = json.dumps([value, *[[]] * 40], ensure_ascii=ascii_only, indent=indent)
    assert is_too_deep(text.encode()) is (levels(json.loads(text)) > MAX_NESTING)


@property_test
@given(st.lists(strings, max_size=40), st.booleans())
def test_brackets_in_strings_are_text(texts: list[str], as_keys: bool) -> None:
    """Escaped quotes do not end a string."""
    value = dict.fromkeys(texts, 1) if as_keys else texts
    assert not is_too_deep(json.dumps(value).encode())
    assert not is_too_deep(json.dumps(json.dumps(value)).encode())


@property_test
@given(
    st.text('[]{},:"\\1 ', max_size=300)
    | st.tuples(nests(), nests(), st.integers(0, 200)).map(lambda cut: cut[0][: cut[2]] + cut[1])
)
def test_a_decoder_meets_no_more_levels(text: str) -> None:
    """Whatever the text is: brackets that are open where the decoder finds its fault were counted."""
    if is_too_deep(text.encode()):
        return
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        fault = re.search(r"\(byte (\d+)\)", str(error))
        read = text.encode()[: int(fault[1])].decode(errors="ignore") if fault else text
        bare = re.sub(r'"(\\.|[^"\\])*("|$)', "", read, flags=re.DOTALL)
        open_now = deepest = 0
        for bracket in re.findall(r"[\[\]{}]", bare):
            open_now += 1 if bracket in "[{" else -1
            deepest = max(deepest, open_now)
        assert deepest <= MAX_NESTING


@pytest.mark.parametrize(
    "piece",
    [b"[", b"{", b"]", b'"', b'\\"', b'["\\', b"][", b"[[]],", b'{"":', b'"[', b"[]]", b"]]]]]]]]]]]]]]]]][[[["],
)
def test_no_text_takes_long(piece: bytes) -> None:
    """A megabyte of it; what took the square of the length would hang."""
    text = piece * (1_000_000 // len(piece))
    for start in (b"", b'"', b"[" * 40, b"[" * 40 + b'"'):
        is_too_deep(start + text)


def test_the_words() -> None:
    """The limit is named, for whoever has to keep to it."""
    assert TOO_DEEP == "nested deeper than 32 levels"
