"""The tables `[streams.<kind>]` (docs/operations/data.md#kinds-of-streams), and the line for what is wrong there."""

from __future__ import annotations

import tomllib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.config.declared_kinds import BadSetting, read_kinds
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import LossPolicy, StreamKind, View
from marketfeed.model.streams import StreamKinds
from tests.strategies import json_values, property_test

PATH = "marketfeed.toml"


def read(text: str) -> tuple[StreamKind, ...]:
    return read_kinds(tomllib.loads(text).get("streams", {}), PATH)


def refusal(text: str) -> str:
    with pytest.raises(BadSetting) as caught:
        read(text)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    return line


def test_no_table_declares_nothing() -> None:
    """Nor does an empty one."""
    assert read("") == read("[streams]") == ()


def test_kinds_in_the_order_of_the_file() -> None:
    """A kind is public unless the file says that it is private."""
    text = """
        [streams.orders]
        private = true
        loss = "keep"
        [streams.funding_rate]
        loss = "latest"
        [streams]
        book2 = { loss = "merge", private = false }
    """
    assert read(text) == (
        StreamKind("orders", LossPolicy.KEEP, private=True),
        StreamKind("funding_rate", LossPolicy.LATEST),
        StreamKind("book2", LossPolicy.MERGE),
    )


@pytest.mark.parametrize("name", ["a", "Z9_", "x" * 32])
def test_names(name: str) -> None:
    """Whatever can be the kind of a stream's name (docs/protocol.md#streams)."""
    (kind,) = read(f"[streams.{name}]\nloss = 'keep'")
    assert str(StreamKinds([kind]).parse(f"{name}@TATA_INR")) == f"{name}@TATA_INR"


@pytest.mark.parametrize("name", ["", "9a", "_a", "a-b", "a.b", "a@b", "a b", "é", "a\\n", "x" * 33, "x" * 500])
def test_bad_names(name: str) -> None:
    """What could not be asked for is refused, and not repeated at any length."""
    line = refusal(f'[streams."{name}"]\nloss = "keep"')
    assert line.startswith(
        f"streams.{name[:80]} in {PATH}: expected a kind of up to 32 of the characters A-Z a-z 0-9 _,"
    )


def test_a_kind_that_the_daemon_would_make_may_be_the_engines() -> None:
    (kind,) = read("[streams.aggTrade]\nloss = 'keep'")
    name = StreamKinds((*BUILT_IN, kind), rebuilds=True).parse("aggTrade@A", on_paths=True)
    assert (name.source, name.view) == (name, View.ENGINE)


@pytest.mark.parametrize("name", [kind.name for kind in BUILT_IN if not (kind.from_candles or kind.made_from)])
def test_the_built_in_kinds_stay_what_they_are(name: str) -> None:
    """Their publications are checked, and clients rely on that."""
    why, few = {
        "trade": ("", "ids and silence"),
        "depth": (", and has its ids in U and u", "silence and rate"),
        "ticker": ("", "ids, silence and rate"),
    }.get(name, (', and made of depth, unless it has "loss" and is the engine\'s', "rate"))
    line = f"streams.{name} in {PATH}: this kind is built in{why}; expected another name, or nothing but {few}"
    own = next(kind for kind in BUILT_IN if kind.name == name).is_published
    for table in ("", "private = true", *(("loss = 'keep'", "rate = 100\nloss = 'latest'") if own else ())):
        assert refusal(f"[streams.{name}]\n{table}") == line


def test_an_engine_may_publish_candles_itself() -> None:
    """Then they are its own, as it declares them; other names of ours stay what they are."""
    (kind,) = read("[streams.kline_1m]\nloss = 'latest'")
    assert (kind.loss.value, kind.from_candles, kind.shape.events) == ("latest", False, ())
    assert "this kind is built in" in refusal("[streams.kline_1m]\nids = 'n'\nprivate = true")


def test_what_is_made_of_another_kind_may_be_the_engines() -> None:
    """Who declares a loss policy says that the engine publishes it; a rate alone changes nothing of that."""
    engine, made = read("streams.bookTicker = {loss = 'merge'}\nstreams.depth20.rate = 1000")
    assert (engine.from_book, engine.loss, engine.rate) == (None, LossPolicy.MERGE, 0)
    assert made.from_book is not None
    kinds = StreamKinds((*BUILT_IN, engine, made))
    assert kinds.parse("bookTicker@A").kind is engine
    assert [kinds.parse("a@depth20", on_paths=on).rate for on in (False, True)] == [100, 1000]


def test_ids() -> None:
    """Of a built-in kind, too, whose own kind then is another."""
    trade, orders = read("streams.trade.ids = 't'\nstreams.orders = {loss = 'keep', ids = 'seq'}")
    assert trade == msgspec.structs.replace(BUILT_IN[0], ids="t")
    assert orders == StreamKind("orders", LossPolicy.KEEP, ids="seq")
    kinds = StreamKinds((*BUILT_IN, trade, orders))
    assert (kinds.parse("trade@A").kind, kinds.parse("ticker@A").kind.ids) == (trade, None)


def test_silence() -> None:
    """Of any kind, in seconds; by default an engine may be silent for as long as it likes."""
    text = "streams.depth.silence = 10\nstreams.trade = {ids = 't', silence = 2.5}\n"
    kinds = read(text + "streams.orders = {loss = 'keep', silence = 60}\nstreams.x = {loss = 'keep'}")
    assert [(kind.name, kind.ids, kind.silence) for kind in kinds] == [
        ("depth", None, 10.0),
        ("trade", "t", 2.5),
        ("orders", None, 60.0),
        ("x", None, 0.0),
    ]


def test_rates() -> None:
    """What a name without one stands for on two of the paths, of kinds of which something may be left out."""
    text = "streams.depth.rate = 1000\nstreams.ticker = {rate = 100, silence = 2}\n"
    kinds = read(text + "streams.news = {loss = 'latest', rate = 1000}\nstreams.x = {loss = 'merge'}")
    assert [(kind.name, kind.path_rate) for kind in kinds] == [
        ("depth", 1000), ("ticker", 100), ("news", 1000), ("x", 0),
    ]  # fmt: skip
    names = StreamKinds((*BUILT_IN, *kinds))
    assert [names.parse("a@depth", on_paths=on_paths).rate for on_paths in (False, True)] == [0, 1000]
    assert [names.parse("a@depth@100ms", on_paths=on_paths).rate for on_paths in (False, True)] == [100, 100]


@pytest.mark.parametrize("rate", ["0", "250", "'100'", "true", "100.0", "[100]", "-100"])
@pytest.mark.parametrize("kind", ["depth = {", "news = {loss = 'latest', "])
def test_rates_that_there_are_not(kind: str, rate: str) -> None:
    """One line that says which there are."""
    line = f"streams.{kind.split()[0]} in {PATH}: rate: expected 100 or 1000, in ms"
    assert refusal(f"streams.{kind}rate = {rate}}}") == line


def test_no_rate_of_what_must_all_be_sent() -> None:
    """One line that says why."""
    line = f'streams.fills in {PATH}: rate: every publication counts with loss = "keep"; expected no rate'
    assert refusal("streams.fills = {loss = 'keep', rate = 100}") == line


@pytest.mark.parametrize("silence", ["0", "0.5", "-1", "'10'", "true", "nan", "inf", "[1]", "1000000000"])
@pytest.mark.parametrize("kind", ["depth = {", "orders = {loss = 'keep', "])
def test_silence_that_is_no_time(kind: str, silence: str) -> None:
    """One line that says what is."""
    line = f"streams.{kind.split()[0]} in {PATH}: silence: expected a number of seconds, 1 or more (up to 9 digits)"
    assert refusal(f"streams.{kind}silence = {silence}}}") == line


@pytest.mark.parametrize("ids", ["1", "true", "''", "'a b'", "'é'", "'a\"b'", "'a\\\\b'", f"'{'x' * 65}'", "['t']"])
@pytest.mark.parametrize("kind", ["trade = {", "orders = {loss = 'keep', "])
def test_ids_that_are_no_field(kind: str, ids: str) -> None:
    """One line that says what is."""
    name = kind.split()[0]
    line = f'streams.{name} in {PATH}: ids: expected the name of a field of up to 64 characters, as "t"'
    assert refusal(f"streams.{kind}ids = {ids}}}") == line


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("streams = 1", "streams in marketfeed.toml: expected tables, as [streams.orders]"),
        ("streams = ['orders']", "streams in marketfeed.toml: expected tables, as [streams.orders]"),
        ("[[streams]]\norders = 1", "streams in marketfeed.toml: expected tables, as [streams.orders]"),
        ("[streams]\norders = 'keep'", '{orders}: expected a table, as private = true and loss = "keep"'),
        ("[[streams.orders]]\nloss = 'keep'", '{orders}: expected a table, as private = true and loss = "keep"'),
        ("[streams.orders]\nlos = 'keep'", "{orders}: los is unknown; expected loss, private, ids, silence or rate"),
        ('[streams.orders]\n"a\\nb" = 1', "{orders}: a\\nb is unknown; expected loss, private, ids, silence or rate"),
        (
            "[streams.orders.deeper]\nloss = 'keep'",
            "{orders}: deeper is unknown; expected loss, private, ids, silence or rate",
        ),
        ("[streams.orders]", "{loss}"),
        ("[streams.orders]\nprivate = true", "{loss}"),
        ("[streams.orders]\nloss = 'Keep'", "{loss}"),
        ("[streams.orders]\nloss = true", "{loss}"),
        ("[streams.orders]\nloss = ['keep']", "{loss}"),
        ("[streams.orders]\nloss = 'keep'\nprivate = 1", "{orders}: private: expected true or false"),
        ("[streams.orders]\nloss = 'keep'\nprivate = 'true'", "{orders}: private: expected true or false"),
    ],
)
def test_bad_tables(table: str, fault: str) -> None:
    """The line names the table and what it should hold; nobody guesses how much of an order may be lost."""
    orders = "streams.orders in marketfeed.toml"
    loss = f'{orders}: loss is missing or unknown; expected "keep" or "latest" or "merge"'
    assert refusal(table) == fault.format(orders=orders, loss=loss)


@property_test
@given(json_values | st.dictionaries(st.sampled_from(("orders", "trade", "a b")), json_values))
def test_anything_is_kinds_or_one_line(tables: Any) -> None:
    """Whatever stands in the file."""
    line = None
    try:
        kinds = read_kinds(tables, PATH)
    except BadSetting as error:
        line = str(error)
    if line is None:
        assert [kind.name for kind in kinds] == list(tables)
    else:
        assert line.startswith("streams")
        assert len(line.splitlines()) == 1
