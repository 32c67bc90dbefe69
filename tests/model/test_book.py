"""Merged depth messages against replay: one book after the single messages, the same after the merged ones."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfeed.model.book import DepthMessage
from marketfeed.model.levels import write_levels
from marketfeed.model.publications import PublicationReader
from marketfeed.model.streams import StreamKinds
from tests.books import OTHER_IDS, all_rows, decoded, may_merge, merged, replay, sequences, update
from tests.strategies import decimals, levels, property_test, publications

read = PublicationReader(StreamKinds().parse("depth@A"), ("depth@A",), 1 << 20).read


# Merging.


@property_test
@given(sequences())
def test_merged_messages_give_the_book_that_the_single_ones_give(messages: list[bytes]) -> None:
    """Whatever was in the book before: prices are compared as decimals, and spelled as the engine last spelled them."""
    before = update(a=[["1", "5"], ["2", "5"], ["4", "5"]], b=[[".5", "5"], ["-3", "5"]])
    one = merged(*messages).to_bytes()
    assert replay([before, one]) == replay([before, *messages])
    assert replay([one]) == replay(messages)


@property_test
@given(sequences(), st.data())
def test_merging_is_associative(messages: list[bytes], data: st.DataObject) -> None:
    """However the messages are grouped, as long as their order stays: the same fields, ids and levels."""
    cut = data.draw(st.integers(0, len(messages)))
    groups = [group for group in (messages[:cut], messages[cut:]) if group]
    parts = [merged(*group).to_bytes() for group in groups]
    one, other = merged(*messages), merged(*parts)
    assert (one.first, one.last, one.is_snapshot) == (other.first, other.last, other.is_snapshot)
    assert as_sets(one) == as_sets(other)


def as_sets(message: DepthMessage) -> dict[str, Any]:
    fields = decoded(message.to_bytes())
    return {**fields, "a": sorted(map(str, fields["a"])), "b": sorted(map(str, fields["b"]))}


@property_test
@given(sequences())
def test_the_result_has_the_first_ones_beginning_and_all_else_of_the_last(messages: list[bytes]) -> None:
    """`U`, `pu` and whether it is a snapshot are the first message's, every other field is the last one's."""
    first, last, one = decoded(messages[0]), decoded(messages[-1]), decoded(merged(*messages).to_bytes())
    kept = {name: field for name, field in first.items() if name in ("U", "pu", "snapshot")}
    taken = {name: field for name, field in last.items() if name not in ("U", "pu", "snapshot")}
    assert {**one, "a": [], "b": []} == {**taken, **kept, "a": [], "b": []}


@property_test
@given(sequences())
def test_zeros_are_kept_in_updates_and_dropped_from_snapshots(messages: list[bytes]) -> None:
    """An update says which prices are gone; a snapshot has nothing to say about them. No price comes twice."""
    one = merged(*messages)
    changed: dict[str, set[Decimal]] = {side: set() for side in "ab"}
    for message in map(decoded, messages):
        for side, places in changed.items():
            places |= {Decimal(price) for price, _ in message[side]}
    written = decoded(one.to_bytes())
    for side, places in changed.items():
        there = [Decimal(price) for price, _ in written[side]]
        assert len(there) == len(set(there))
        if one.is_snapshot:
            assert all(Decimal(quantity) for _, quantity in written[side])
        else:
            assert set(there) == places


@property_test
@given(sequences())
def test_a_copy_is_merged_into_and_the_original_stays(messages: list[bytes]) -> None:
    """What is read once is shared by many clients."""
    single = [DepthMessage.parse(message) for message in messages]
    before = [message.to_bytes() for message in single]
    one = single[0].copy()
    for message in single[1:]:
        one.take(message)
    assert [message.to_bytes() for message in single] == before


def test_prices_and_quantities_are_spelled_as_the_engine_spelled_them_last() -> None:
    """A price of other digits is the same price, and the later spelling is written."""
    one = merged(update(a=[["1.0", "5"], ["2", "1.10"]]), update(a=[["1.000", "7.50"]], b=[["0.50", "0.0"]]))
    assert one.to_bytes() == b'{"e":"depth","a":[["1.000","7.50"],["2","1.10"]],"b":[["0.50","0.0"]]}'


def test_escapes_are_written_as_the_engine_wrote_them() -> None:
    """Among many levels too: they are the same prices."""
    rows = [b'["1\\u002e%d","5"]' % number for number in range(10, 40)]
    one = b'{"e":"depth","a":[%b],"b":[]}' % b",".join(rows)
    assert DepthMessage.parse(one).to_bytes() == one
    assert merged(one, update(a=[[f"1.{number}0", "0"] for number in range(10, 40)], snapshot=False)).level_count == 30


def test_a_price_that_comes_back_to_a_snapshot_is_a_level_again() -> None:
    """Gone with one update, there again with the next."""
    whole = update(a=[["1", "5"], ["2", "0"]], snapshot=True)
    assert merged(whole).to_bytes() == update(a=[["1", "5"]], snapshot=True)
    gone = merged(whole, update(a=[["1.0", "0"], ["3", "0"]]))
    assert decoded(gone.to_bytes())["a"] == []
    assert decoded(merged(gone.to_bytes(), update(a=[["1", "2"]])).to_bytes())["a"] == [["1", "2"]]


# What may merge.


@pytest.mark.parametrize(
    ("earlier", "later", "is_allowed"),
    [
        ({}, {}, True),
        ({"U": 1, "u": 5}, {"U": 6, "u": 9}, True),
        ({"U": 1, "u": 5}, {"U": 3, "u": 9}, True),
        ({"U": 1, "u": 5}, {"U": 1, "u": 5}, True),
        ({"U": 900, "u": 999}, {"U": 1, "u": 3}, True),
        ({"U": 1, "u": 5}, {"U": 7, "u": 9}, False),
        ({"U": -9, "u": -5}, {"U": -4, "u": -2}, True),
        ({"U": -9, "u": -5}, {"U": -3, "u": -2}, False),
        ({"U": 1, "u": 2**70}, {"U": 2**70 + 1, "u": 2**71}, True),
        ({"U": 1, "u": 2**70}, {"U": 2**70 + 2, "u": 2**71}, False),
        ({"U": 1, "u": 5}, {}, False),
        ({}, {"U": 6, "u": 9}, False),
        ({"u": 5}, {"u": 9}, True),
        ({"U": None, "u": None}, {"U": 1}, True),
        ({"U": 1, "u": 5}, {"U": 6.0, "u": 9.0}, False),
        ({"U": 1.0, "u": 5.0}, {"U": 6, "u": 9}, False),
        ({"U": "1", "u": "5"}, {"U": "6", "u": "9"}, False),
        ({"U": "1", "u": "5"}, {}, False),
        ({}, {"U": "1", "u": "5"}, False),
        ({"snapshot": True}, {}, True),
        ({}, {"snapshot": True}, False),
        ({"snapshot": True}, {"snapshot": True}, False),
        ({"U": 5, "u": 5, "snapshot": True}, {"U": 6, "u": 7}, True),
        ({"U": 5, "u": 5, "snapshot": True}, {"U": 7, "u": 7}, False),
    ],
)
def test_what_may_be_missing_in_between_does_not_merge(earlier: Any, later: Any, is_allowed: bool) -> None:
    """Both without ids, or the later one begins at most one after the end. A snapshot merges into nothing."""
    one, two = update(**earlier), update(**later)
    assert DepthMessage.parse(one).can_take(DepthMessage.parse(two)) == is_allowed
    assert may_merge(one, two) == is_allowed


@property_test
@given(sequences(), sequences())
def test_what_follows_a_merged_message_is_judged_by_its_last_part(before: list[bytes], after: list[bytes]) -> None:
    """Merging some early or late changes nothing about what may merge."""
    last, first = DepthMessage.parse(before[-1]), DepthMessage.parse(after[0])
    if not first.is_snapshot:
        assert merged(*before).can_take(merged(*after)) == last.can_take(first)


@property_test
@given(st.sampled_from(OTHER_IDS), st.sampled_from((*OTHER_IDS, "1")), sequences())
def test_ids_that_cannot_be_compared_merge_with_nothing_that_has_ids(
    first: str, last: str, messages: list[bytes]
) -> None:
    """Or an engine that writes its ids in some other way would have its gaps hidden."""
    odd = DepthMessage.parse(b'{"e":"depth","a":[],"b":[],"U":%b,"u":%b}' % (first.encode(), last.encode()))
    other = DepthMessage.parse(messages[0])
    has_none = "null" in (first, last)
    assert odd.can_take(odd) == has_none
    if not other.is_snapshot:
        assert odd.can_take(other) == other.can_take(odd) == (has_none and other.first is None)


# Reading and writing.


@property_test
@given(publications("depth"))
@example('{"e":"depth","a":[["1","1"],["1.0","2"]],"b":[],"a":[]}')
@example('{"e":"depth","a":[["1e99","1"],[1e-300,1]],"b":[["' + "9" * 64 + '","1"],[1.' + "3" * 5000 + ',"1"]]}')
@example('{"e":"depth","a":[[1e-99999999999999999999,1e-99999999999999999999]],"b":[]}')
def test_every_publication_that_is_accepted_can_be_read_and_written(data: str) -> None:
    """In any layout, with any further fields: written anew it is accepted again, and gives the same book."""
    payload = data.encode()
    assert read(payload) == payload
    written = DepthMessage.parse(payload).to_bytes()
    assert read(written) == written
    if b"99999999999999999999" not in payload:  # or it is beyond Python's own decimals
        assert replay([written]) == replay([payload])
    assert {**decoded(written), "a": [], "b": []} == {**decoded(payload), "a": [], "b": []}


@pytest.mark.parametrize(
    "data",
    [b"[]", b"{}", b'{"a":[]}', b'{"a":[],"b":[["x","1"]]}', b'{"a":[["1"]],"b":[]}', b'{"a":{},"b":[]}']
    + [
        b'{"a":[["1",%b]],"b":[]}' % token
        for token in (b"null", b'"x"', b'"NaN"', b'"1e100"', b"1e999", b'" 1"', b'"1_0"')
    ],
)
def test_what_is_no_depth_message_is_an_error(data: bytes) -> None:
    """With `--validate warn` such a thing may come; its reader has to expect it."""
    with pytest.raises(Exception):  # noqa: B017, PT011
        DepthMessage.parse(data)


@property_test
@given(sequences())
def test_the_size_is_never_less_than_what_is_written(messages: list[bytes]) -> None:
    """Nor more than if every level were as long as the longest that was merged."""
    one = merged(*messages)
    written = one.to_bytes()
    rows = all_rows(written)
    longest = max((row for message in messages for row in all_rows(message)), default=0)
    assert len(written) <= one.size <= len(written) + len(rows) * longest - sum(rows) + 3


@property_test
@given(st.lists(st.tuples(decimals, decimals), max_size=5), levels)
def test_decimals_that_are_equal_are_one_price(rows: list[tuple[str, str]], other: str) -> None:
    """However they are spelled: with signs, with points, with exponents, quoted or not."""
    side = ",".join(f"[{price},{quantity}]" for price, quantity in rows)
    message = DepthMessage.parse(f'{{"a":[{side}],"b":{other}}}'.encode())
    spellings = [Decimal(json.loads(price, parse_int=str, parse_float=str)) for price, _ in rows]
    assert len(message.asks) == len(set(spellings))
    written = [
        Decimal(price)
        for price, _ in decoded(b'{"a":%b}' % write_levels(message.asks.in_order(is_descending=True)))["a"]
    ]
    assert written == sorted(set(spellings), reverse=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("9007199254740993", "9007199254740992"),
        ("0.1", "0.1000000000000000055511151231257827021181583404541015625"),
        ("0.30000000000000004", "0.3"),
        ("123456789012345.6", "123456789012345.61"),
        ("1e22", "10000000000000000000001"),
    ],
)
def test_prices_that_a_double_would_not_tell_apart_are_two(one: str, other: str) -> None:
    """Each in any spelling; in order."""
    lower, higher = sorted((one, other), key=Decimal)
    rows = [[one, "1"], [other, "2"], [f"+{one}", "3"], [f"0{other}", "4"], ["7", "5"], ["1e23", "6"]]
    side = DepthMessage.parse(update(a=rows)).asks
    assert len(side) == 4
    prices = [str(price) for price, _ in decoded(b'{"a":%b}' % write_levels(side.in_order(is_descending=False)))["a"]]
    assert prices == sorted(prices, key=Decimal)
    assert [Decimal(price) for price in prices if Decimal(price) in (Decimal(one), Decimal(other))] == [
        Decimal(lower),
        Decimal(higher),
    ]


@pytest.mark.parametrize("digits", range(13, 20))
def test_levels_that_are_read_together_are_told_apart_to_the_last_digit(digits: int) -> None:
    """Also where a double would not: the levels are read one by one then."""
    whole = [str(99 * 10 ** (digits - 2) + number) for number in range(30)]
    for prices in (whole, [f"{price[:-1]}.{price[-1]}" for price in whole]):
        assert len(DepthMessage.parse(update(a=[[price, "1"] for price in prices])).asks) == len(prices)


def test_levels_that_are_read_together_are_what_each_is() -> None:
    """Zeros of every spelling among them, and the last of several with one price."""
    zeros = ("0", "0.00", "-0", "+0.", ".0")
    rows = [[f"{number}.5", "1.25"] for number in range(50)] + [["7.50", zero] for zero in zeros]
    plain = DepthMessage.parse(update(a=rows, snapshot=True))
    odd = DepthMessage.parse(update(a=[*rows, ["1e3", "0"]], snapshot=True))
    assert plain.asks.levels.keys() == odd.asks.levels.keys()
    assert len(plain.asks) == 49
    assert len(DepthMessage.parse(update(a=[*rows, ["7.5", "2"]], snapshot=True)).asks) == 50
