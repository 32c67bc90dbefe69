"""Which streams are meant: what is refused, what is matched, what the server is asked for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from marketfeed.model.selection import BadSelection, StreamSelection, Subscribed, parse_selection
from marketfeed.model.streams import StreamKinds
from tests.strategies import MARKET_CHARACTERS, canonical_names, property_test, spellings

KINDS = StreamKinds()
ORDERS = StreamKinds((*BUILT_IN, StreamKind("orders", LossPolicy.KEEP, private=True)))

patterns = st.text("abA._-@*", min_size=1, max_size=12).filter(
    lambda text: "*" in text and re.fullmatch("[^@]+(@[^@]+)?", text)
)


@property_test
@given(spellings())
def test_any_spelling_of_a_name(names: tuple[str, str]) -> None:
    """It stands for the stream's canonical name."""
    spelling, name = names
    assert parse_selection([spelling], KINDS).texts == (name,)


@property_test
@given(st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,31}@[A-Za-z0-9._-]{1,64}", fullmatch=True))
def test_a_kind_need_not_be_declared(name: str) -> None:
    """What could be a stream's name is taken."""
    (text,) = parse_selection([name], KINDS).texts
    assert text == name or text == str(KINDS.parse(name))


def test_declared_kinds() -> None:
    """They are known by name; a private one has no other spelling."""
    assert parse_selection(["orders@alice", "alice@orders"], ORDERS).texts == ("orders@alice", "alice@orders")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "trade",
        "trade@",
        "@A",
        "trade@A B",
        "trade@A@1ms",
        "1trade@A",
        "é@A",
        "trade@é",
        "a@b@*",
        "@*",
        "*@",
        "trade@[AB]*",
        "trade@?*",
        "\\*",
        "*" * 129,
        *["A" * length for length in (80, 81, 200)],
    ],
)
def test_what_cannot_be_used(text: str) -> None:
    """The complaint names it, and what would be accepted."""
    with pytest.raises(BadSelection) as caught:
        parse_selection(["depth@*", text], KINDS)
    shown = repr(text) if len(text) <= 80 else repr(text[:80] + "…")
    assert str(caught.value).startswith(f"{shown} cannot be used; expected a stream such as trade@TATA_INR")


@property_test
@given(patterns, st.text("abA._-@", max_size=12))
def test_a_star_is_any_run(pattern: str, stream: str) -> None:
    """Of any characters, none included."""
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), stream) is not None
    assert (parse_selection([pattern], KINDS).first(stream.encode()) == 0) == expected


@property_test
@given(st.lists(patterns | canonical_names, min_size=1, max_size=4), canonical_names)
def test_the_first_that_covers_counts(texts: list[str], stream: str) -> None:
    """Its index, or None."""
    selection = parse_selection(texts, KINDS)
    alone = [StreamSelection([text]).first(stream.encode()) == 0 for text in selection.texts]
    assert selection.first(stream.encode()) == (alone.index(True) if any(alone) else None)


def test_any_bytes_can_be_a_stream() -> None:
    """A pattern covers what is no stream's name, or not even text."""
    selection = StreamSelection(["*", "trade@*"])
    assert selection.first(b"\xff\n") == 0
    assert StreamSelection(["trade@*"]).first(b"trade@\xff\n") == 0
    assert StreamSelection(["trade@A"]).first(b"trade@A\n") is None


def test_a_text_that_comes_twice_counts_once() -> None:
    """However it is spelled."""
    assert parse_selection(["trade@A", "*", "a@trade", "*"], KINDS).texts == ("trade@A", "*")


def test_the_commands() -> None:
    """Names are subscribed to as they are; in a pattern the prefix means itself."""
    selection = StreamSelection(["trade@A", "depth@*"])
    assert selection.commands(b"") == [(b"SUBSCRIBE", b"trade@A"), (b"PSUBSCRIBE", b"depth@*")]
    assert selection.commands(b"a*[b]?\\:") == [
        (b"SUBSCRIBE", b"a*[b]?\\:trade@A"),
        (b"PSUBSCRIBE", b"a\\*\\[b\\]\\?\\\\:depth@*"),
    ]


def test_hard_patterns_are_quick() -> None:
    """No pattern is matched by trying again and again."""
    selection = StreamSelection(["*a" * 60 + "*b"])
    assert selection.first(b"a" * 5000) is None


def test_characters() -> None:
    """What a market may hold, a pattern may hold."""
    assert parse_selection([f"x@{MARKET_CHARACTERS}*"], KINDS).texts


def test_what_several_subscriptions_bring_counts_once() -> None:
    """By the first of them that covers it, whatever order they come in; each knows what it was asked for."""
    selection = StreamSelection(["trade@*", "trade@A", "depth@A"])
    subscribed = Subscribed(selection, b"p:")
    assert subscribed.stream(b"p:trade@*", b"p:trade@A") == b"trade@A"
    assert subscribed.stream(b"p:trade@A", b"p:trade@A") is None
    assert subscribed.stream(b"p:depth@A", b"p:depth@A") == b"depth@A"
    assert subscribed.text(b"p:depth@A") == "depth@A"
