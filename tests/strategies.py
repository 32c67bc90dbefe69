"""Hypothesis strategies that tests share: names of streams, decimals, JSON in any layout, publications good and bad.

JSON is made as text, never through a Python value, so that every spelling of a number and every layout comes up.
Objects are built from members: pairs of a key and the JSON text of its value.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

KINDS = ("trade", "depth", "ticker")

property_test = settings(deadline=None)
"""Decorates every property test: nothing may depend on speed."""


def machine_test(times: float, steps: int) -> settings:
    """The settings of a state machine: as many times a property test's examples, of so many steps."""
    return settings(property_test, max_examples=int(property_test.max_examples * times), stateful_step_count=steps)


# Names of streams.

MARKET_CHARACTERS = string.ascii_letters + string.digits + "._-"

kinds = st.sampled_from(KINDS)
markets = st.text(MARKET_CHARACTERS, min_size=1, max_size=64)
upper_markets = st.text(string.ascii_uppercase + string.digits + "._-", min_size=1, max_size=64)
canonical_names = st.builds("{}@{}".format, kinds, markets)


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, str]:
    """One of the ways to write a stream's name, and the canonical name that it stands for."""
    kind = draw(kinds)
    if draw(st.booleans()):
        market = draw(markets)
        spelling = f"{kind}@{market}"
    else:
        market = draw(upper_markets.filter(lambda market: market.lower() not in KINDS))
        spelling = f"{market.lower()}@{kind}"
    rate = draw(st.sampled_from(("", "@100ms", "@1000ms"))) if kind != "trade" else ""
    return spelling + rate, f"{kind}@{market}"


almost_names = st.text(alphabet=MARKET_CHARACTERS + "@ßé\n ", max_size=12).flatmap(
    lambda noise: st.sampled_from((*KINDS, "@", "@100ms", "100ms")).flatmap(
        lambda part: st.sampled_from((noise + part, part + noise, f"{part}@{noise}", f"{noise}@{part}"))
    )
)
"""Texts that are a stream's name, or nearly."""

# JSON.

blanks = st.text(" \t\r\n", max_size=2)
plain_text = st.text(max_size=12)  # has no surrogates

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | plain_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_text, inner, max_size=3),
    max_leaves=6,
)
"""Python values that JSON has."""

json_texts = st.builds(lambda value, ascii_only: json.dumps(value, ensure_ascii=ascii_only), json_values, st.booleans())

Member = tuple[str, str]
further_members = st.lists(
    st.tuples(plain_text | st.sampled_from(("U", "u", "E", "pu", "snapshot", "id", "stream", "data")), json_texts),
    max_size=3,
)
"""Members that no kind requires, and that a publication may have all the same."""


@st.composite
def quoted(draw: st.DrawFn, text: str) -> str:
    """`text` as a JSON string, in one of its spellings."""
    units = text.encode("utf-16-be")
    escaped = "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
    return draw(st.sampled_from((json.dumps(text, ensure_ascii=False), json.dumps(text), f'"{escaped}"')))


@st.composite
def objects(draw: st.DrawFn, members: Iterable[Member]) -> str:
    """A JSON object of these members, in any order, with blanks wherever JSON has them."""
    shuffled = draw(st.permutations(list(members)))
    written = [
        f"{draw(blanks)}{draw(quoted(key))}{draw(blanks)}:{draw(blanks)}{value}{draw(blanks)}"
        for key, value in shuffled
    ]
    return "{" + ",".join(written) + ("}" if written else draw(blanks) + "}")


# Decimals, as JSON texts.

_digits = st.text(string.digits, min_size=1, max_size=20)


def _exponents(most: int) -> st.SearchStrategy[str]:
    signs = st.sampled_from(("", "+", "-"))
    return st.just("") | st.builds("{}{}{}".format, st.sampled_from("eE"), signs, st.integers(0, most))


decimal_strings = st.builds(
    "{}{}{}".format,
    st.sampled_from(("", "-", "+")),
    _digits | st.builds("{}.{}".format, _digits, _digits) | _digits.map(".{}".format) | _digits.map("{}.".format),
    _exponents(99),
)
decimal_numbers = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(("", "-")),
    st.integers(0, 10**40),
    st.just("") | _digits.map(".{}".format),
    _exponents(200),
)
decimals = decimal_numbers | decimal_strings.map(json.dumps)

bad_decimals = st.sampled_from(
    ("", " 1", "1 ", "1,5", "0x10", "1_000", "1e", ".", "-", "1.2.3", "\u0661", "1\n", "NaN", "Infinity", "1e5.5")
).map(json.dumps) | st.sampled_from(
    (
        "true",
        "false",
        "null",
        "[]",
        "{}",
        '["1"]',
        '"1e100"',
        '"0e-100"',
        '"1e1000000000000000000"',
        f'"{65 * "9"}"',
        f'"0.{63 * "0"}"',
    )
)

# Publications.

integers = st.integers().map(str) | st.integers(-(2**53), 2**53).map("{}.0".format)
market_texts = markets.map(json.dumps)
levels = st.lists(st.builds("[{},{}]".format, decimals, decimals), max_size=4).map(lambda rows: f"[{','.join(rows)}]")

_NAMES = {
    "trade": ('"trade"',),
    "depth": ('"depth"', '"depthUpdate"'),
    "ticker": ('"ticker"', '"24hrTicker"'),
}
_REQUIRED: dict[str, dict[str, st.SearchStrategy[str]]] = {
    "trade": {"t": integers, "m": st.sampled_from(("true", "false")), "p": decimals, "q": decimals, "s": market_texts},
    "depth": {"a": levels, "b": levels},
    "ticker": {"c": decimals, "s": market_texts},
}
for _kind, _fields in _REQUIRED.items():
    _fields["e"] = st.sampled_from(_NAMES[_kind])

_bad_levels = bad_decimals.flatmap(
    lambda bad: st.sampled_from((f'[["1",{bad}]]', f'[["1","2"],[{bad},"1"]]', f"[{bad}]"))
) | st.sampled_from(('[["1"]]', '[["1","2","3"]]', "[[]]", "null", "{}", '"1"', "1", '[{"1":"2"}]'))
_BAD: dict[str, st.SearchStrategy[str]] = {
    "e": st.sampled_from(('"Trade"', '""', "null", "1", "[]", '"aggTrade"', '"depthupdate"')),
    "t": st.sampled_from(("1.5", '"1"', "true", "null", "[]", "{}", "1e999")),
    "m": st.sampled_from(("0", "1", '"true"', "null", "[]")),
    "p": bad_decimals,
    "q": bad_decimals,
    "c": bad_decimals,
    "s": st.sampled_from(('""', '"A B"', '"é"', '"A\\n"', f'"{65 * "A"}"', "5", "null", '"A@B"')),
    "a": _bad_levels,
    "b": _bad_levels,
}


def required_fields(kind: str) -> frozenset[str]:
    """The fields without which a publication of this kind is bad."""
    return frozenset(_REQUIRED[kind])


@st.composite
def publication_members(draw: st.DrawFn, kind: str) -> list[Member]:
    """The members of a good publication's data, further ones among them."""
    required = [(field, draw(values)) for field, values in _REQUIRED[kind].items()]
    return required + [member for member in draw(further_members) if member[0] not in _REQUIRED[kind]]


@st.composite
def publications(draw: st.DrawFn, kind: str) -> str:
    """The data of a good publication."""
    return draw(objects(draw(publication_members(kind))))


@st.composite
def broken_publications(draw: st.DrawFn, kind: str) -> tuple[str, str]:
    """The data of a publication with one defect, and the field that has it."""
    members = dict(draw(publication_members(kind)))
    members.pop("stream", None)  # or it might be wrapped for another stream
    field = draw(st.sampled_from(sorted(_REQUIRED[kind])))
    if draw(st.booleans()):
        del members[field]
    else:
        members[field] = draw(_BAD[field])
    return draw(objects(members.items())), field


@st.composite
def wrapped(draw: st.DrawFn, stream: str, data: str) -> str:
    """`data` in the envelope of `stream`, with any further members, in any layout."""
    further = [member for member in draw(further_members) if member[0] not in ("stream", "data")]
    text = draw(objects([("stream", draw(quoted(stream))), ("data", data), *further]))
    return f"{draw(blanks)}{text}{draw(blanks)}"
