"""What the fields of requests hold: everything that is accepted, and what is said of everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from marketfeed.model.streams import StreamKinds
from marketfeed.session.requests import (
    MOST_HISTORY,
    Property,
    as_history,
    before_of,
    history_of,
    property_of,
    refusal_of,
    refused,
    rewind_of,
    since_of,
    streams_of,
    token_of,
    too_many_streams,
    value_of,
)
from marketfeed.wire.messages import ErrorCode, Request, RequestError
from tests.strategies import json_values, property_test

KINDS = StreamKinds()
A, B = "trade@A", "b@depth"


def asking(params: object = UNSET, **fields: Any) -> Request:
    return Request("METHOD", params, 1, **fields)


def fault(call: Callable[[], object], code: ErrorCode = ErrorCode.INVALID_REQUEST) -> str:
    """What is said of a request that has this error, without the beginning that all of them have."""
    with pytest.raises(RequestError) as caught:
        call()
    assert caught.value.code is code
    assert caught.value.message.isprintable()
    return caught.value.message.removeprefix("invalid request: ")


class TestStreams:
    def test_by_spelling(self) -> None:
        """In order, each spelling once."""
        streams = streams_of(asking([B, A, B, "a@trade"]), KINDS, 4)
        assert {spelling: str(name) for spelling, name in streams.items()} == {B: "depth@B", A: A, "a@trade": A}
        assert list(streams) == [B, A, "a@trade"]
        assert streams_of(asking([]), KINDS, 4) == {}

    @pytest.mark.parametrize(
        ("params", "says"),
        [
            (UNSET, "params is missing; expected streams, as"),
            (None, "params must be a list; expected streams, as"),
            (A, "params must be a list"),
            ({A: 1}, "params must be a list"),
            ([A, 5], "params[1] must be the name of a stream"),
            ([None], "params[0] must be the name of a stream"),
            ([A, B, "trade"], "params[2]: bad stream name 'trade'"),
            (["\0@trade"], "params[0]: bad stream name"),
        ],
    )
    def test_what_is_wrong_is_named(self, params: object, says: str) -> None:
        """The field, its index, and what is expected."""
        assert fault(lambda: streams_of(asking(params), KINDS, 4)).startswith(says)

    def test_too_many_are_not_read(self) -> None:
        """By their count, before any of them is looked at."""
        says = fault(lambda: streams_of(asking([5] * 5), KINDS, 4), ErrorCode.TOO_MANY_SUBSCRIPTIONS)
        assert says == "too many subscriptions: at most 4 on a connection"


class TestSince:
    @pytest.mark.parametrize("since", [UNSET, None, {}])
    def test_none(self, since: object) -> None:
        """Absent, null and empty are the same."""
        assert since_of(asking([A], since=since), [A], ()) == {}

    def test_offsets_by_spelling(self) -> None:
        """Of any of the streams; an offset is any text."""
        since = {A: "1-2", B: ""}
        assert since_of(asking([A, B], since=since), [A, B, "ticker@A"], ["ticker@A"]) == since

    @pytest.mark.parametrize(
        ("since", "says"),
        [
            ("1-2", 'since must be an object, as {"trade@TATA_INR":"<offset>"}'),
            ([], "since must be an object"),
            (5, "since must be an object"),
            (True, "since must be an object"),
            ({"trade@B": "1"}, "since names 'trade@B', which params does not"),
            ({"a@trade": "1"}, "since names 'a@trade', which params does not"),
            ({"x" * 500: "1"}, f"since names '{'x' * 80}', which params does not"),
            ({"\0\n\u202e": "1"}, "since names '\\x00\\n\\u202e', which params does not"),
            ({B: "1"}, "since names 'b@depth', which is subscribed already; unsubscribe first"),
            ({A: 1}, "since: the offset of 'trade@A' must be a string"),
            ({A: None}, "since: the offset of 'trade@A' must be a string"),
            ({A: ["1"]}, "since: the offset of 'trade@A' must be a string"),
        ],
        ids=lambda value: repr(value)[:40],
    )
    def test_what_is_wrong_is_named(self, since: object, says: str) -> None:
        """A value of another type, a stream that is not asked for, one that is there already."""
        assert fault(lambda: since_of(asking([A, B], since=since), [A, B], [B])).startswith(says)


class TestRewind:
    @pytest.mark.parametrize("count", [UNSET, None])
    def test_none(self, count: object) -> None:
        """Whatever the streams."""
        assert rewind_of(asking([A, B], rewind=count), {B: KINDS.parse(B)}, {}) == 0

    @pytest.mark.parametrize("count", [1, 50, 1000])
    def test_one(self, count: int) -> None:
        """For kinds of which a publication says something by itself."""
        assert (
            rewind_of(asking([A], rewind=count), {A: KINDS.parse(A), "ticker@A": KINDS.parse("ticker@A")}, {}) == count
        )

    @pytest.mark.parametrize("count", [0, -1, 1001, 1.0, "5", True, False, [], {}, 10**40])
    def test_what_is_no_number_of_publications(self, count: object) -> None:
        """It says what would be one."""
        says = fault(lambda: rewind_of(asking([A], rewind=count), {A: KINDS.parse(A)}, {}))
        assert says == "rewind must be a whole number from 1 to 1000"

    def test_streams_that_are_merged(self) -> None:
        """They are named; one that is resumed is not rewound."""
        streams = {A: KINDS.parse(A), B: KINDS.parse(B)}
        says = fault(lambda: rewind_of(asking([A, B], rewind=5), streams, {A: "1"}))
        assert says.startswith("rewind: b@depth has no last publications")
        assert rewind_of(asking([A, B], rewind=5), streams, {B: "1"}) == 5


class TestHistory:
    def test_one_stream_and_a_limit(self) -> None:
        """By its spelling; without a limit it is 100."""
        streams, limit = history_of(asking([B]), KINDS)
        assert ({spelling: str(name) for spelling, name in streams.items()}, limit) == ({B: "depth@B"}, 100)

    @pytest.mark.parametrize("limit", [1, 100, MOST_HISTORY])
    def test_limits(self, limit: int) -> None:
        """From 1 to 1,000."""
        assert MOST_HISTORY == 1000
        assert history_of(asking([A], limit=limit), KINDS)[1] == limit

    @pytest.mark.parametrize("limit", [0, -1, MOST_HISTORY + 1, 10**30, 1.0, "1", None, True, False, [], {}])
    def test_what_is_no_limit(self, limit: object) -> None:
        """Of another type or size."""
        assert fault(lambda: history_of(asking([A], limit=limit), KINDS)) == (
            "limit must be a whole number from 1 to 1000"
        )

    def test_before(self) -> None:
        """Text; whether it is an offset is for the stream to say."""
        assert before_of(asking([A])) is None
        assert before_of(asking([A], before=None)) is None
        assert before_of(asking([A], before="7-1")) == "7-1"
        for value in (7, True, [], {}):
            says = fault(lambda value=value: before_of(asking([A], before=value)))  # type: ignore[misc]
            assert says == "before must be an offset, a string"

    @pytest.mark.parametrize("params", [UNSET, None, A, {}, [], [A, B]])
    def test_one_stream_is_needed(self, params: object) -> None:
        """Neither none nor two."""
        assert fault(lambda: history_of(asking(params), KINDS)) == 'params must be one stream, as ["trade@TATA_INR"]'

    @pytest.mark.parametrize("name", ["trade", 5, None, [A]])
    def test_what_is_no_stream(self, name: object) -> None:
        """As for any list of streams."""
        assert fault(lambda: history_of(asking([name]), KINDS)).startswith("params[0]")


class TestAnswer:
    def test_the_data_are_the_engines(self) -> None:
        """Byte for byte, oldest first."""
        entries = [("1-1", b'{ "p" : 1.10 }'), ("1-2", b"{}")]
        assert msgspec.json.encode(as_history(entries, 1000)) == (
            b'[{"offset":"1-1","data":{ "p" : 1.10 }},{"offset":"1-2","data":{}}]'
        )
        assert as_history([], 1000) == []

    @property_test
    @given(
        st.lists(
            st.tuples(
                st.text("0123456789-.abcdef", max_size=40),
                st.integers(0, 300).map(lambda size: b'{"x":"%b"}' % (b"x" * size)),
            ),
            max_size=10,
        ),
        st.integers(0, 2000),
    )
    def test_the_newest_that_there_is_room_for(self, entries: list[tuple[str, bytes]], most: int) -> None:
        """As many as fit, and not one more; the text is never larger than it may be."""
        answer = as_history(entries, most)
        shown = [(entry["offset"], bytes(entry["data"])) for entry in answer]
        assert shown == entries[len(entries) - len(shown) :]
        size = len(msgspec.json.encode(answer)) - 1  # a comma behind each instead of between them, and the brackets
        assert not answer or size <= most
        if len(shown) < len(entries):
            offset, data = entries[len(entries) - len(shown) - 1]
            more = [{"offset": offset, "data": msgspec.Raw(data)}, *answer]
            assert len(msgspec.json.encode(more)) - 1 > most


class TestProperties:
    @pytest.mark.parametrize("name", Property)
    def test_names(self, name: Property) -> None:
        """To get, and to set to anything."""
        assert property_of(asking([name.value])) is name
        assert value_of(asking([name.value, "anything"])) == (name, "anything")

    @pytest.mark.parametrize("params", [UNSET, None, "combined", {}, [], ["combined", True]])
    def test_one_name_is_needed_to_get(self, params: object) -> None:
        """In a list."""
        assert fault(lambda: property_of(asking(params))) == 'params must be one property, as ["combined"]'

    @pytest.mark.parametrize("params", [UNSET, None, "combined", {}, [], ["combined"], ["combined", True, 1]])
    def test_a_name_and_a_value_are_needed_to_set(self, params: object) -> None:
        """In a list."""
        says = 'params must be a property and its value, as ["combined",true]'
        assert fault(lambda: value_of(asking(params))) == says

    @pytest.mark.parametrize("name", [5, None, ["combined"], {}, True])
    def test_what_is_no_name(self, name: object) -> None:
        """Anything but text."""
        assert fault(lambda: property_of(asking([name]))) == "params[0] must be the name of a property"
        assert fault(lambda: value_of(asking([name, True]))) == "params[0] must be the name of a property"

    @pytest.mark.parametrize("name", ["", "colour", "Combined", "COMBINED"])
    def test_an_unknown_one(self, name: str) -> None:
        """It is not repeated; those that there are, are."""
        says = fault(lambda: property_of(asking([name])), ErrorCode.PROPERTY_NAME)
        assert says == "unknown property: expected one of combined, offsets, snapshot, events"


class TestToken:
    def test_one(self) -> None:
        """Any text."""
        assert token_of(asking(["x.y.z"])) == "x.y.z"

    @pytest.mark.parametrize("params", [UNSET, None, "x", {}, [], ["x", "y"], [5], [None]])
    def test_anything_else(self, params: object) -> None:
        """It is not repeated."""
        assert fault(lambda: token_of(asking(params))) == 'params must be one token, as ["eyJ…"]'


class TestTooMuch:
    @pytest.mark.parametrize(
        ("payload", "request_id"),
        [
            (b'{"method":"PING","id":7}', 7),
            (b'{"id":"x"}', "x"),
            (b'{"method":"PING"}', UNSET),
            (b'{"method":"PING","id":[]}', UNSET),
            (b"nonsense", UNSET),
        ],
    )
    def test_a_refused_request_is_answered_with_its_id(self, payload: bytes, request_id: object) -> None:
        """Whatever else is wrong with it."""
        error = refusal_of(payload, "10 a second")
        assert (error.code, error.request_id) == (ErrorCode.TOO_MANY_REQUESTS, request_id)
        assert error.message == "too many requests: 10 a second; try again later"
        assert refused(5, "out of reach").request_id == 5

    def test_too_many_streams(self) -> None:
        """The same, whether one request names them or several."""
        error = too_many_streams(4)
        assert error.code is ErrorCode.TOO_MANY_SUBSCRIPTIONS
        assert error.message == "too many subscriptions: at most 4 on a connection"


@property_test
@given(json_values, json_values, json_values)
def test_any_fields(params: object, since: object, limit: object) -> None:
    """Each is read, or what is wrong is said in text that can be printed; nothing else is raised."""
    request = asking(params, since=since, limit=limit)
    said = []
    for call in (
        lambda: streams_of(request, KINDS, 3),
        lambda: since_of(request, [A], ()),
        lambda: history_of(request, KINDS),
        lambda: before_of(asking(params, before=limit)),
        lambda: property_of(request),
        lambda: value_of(request),
        lambda: token_of(request),
    ):
        try:
            call()
        except RequestError as error:
            said.append(error.message)
    assert all(map(str.isprintable, said))
