"""What is made of what an engine publishes: of each field what it allows, of each fault the first example."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.commands.check.examination import Examination, Finding
from marketfeed.commands.check.features import FEATURES, STATISTICS
from marketfeed.commands.check.report import as_json, lines, status
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from tests.strategies import property_test

NOW = 1_790_000_000_000
ORDERS = StreamKind("orders", LossPolicy.KEEP, private=True)


def examined(*publications: tuple[str, Any], **options: Any) -> Examination:
    """What comes of these, which are streams and data; bytes are taken as they are."""
    examination = Examination((*BUILT_IN, ORDERS), "", 262144, **options)
    hear(examination, *publications)
    examination.finish()
    return examination


def hear(examination: Examination, *publications: tuple[str, Any]) -> None:
    for stream, data in publications:
        payload = data if isinstance(data, bytes) else json.dumps(data).encode()
        examination.take(NOW * 1000, stream.encode(), payload)


def finding(examination: Examination, key: str) -> Finding:
    (found,) = [each for each in examination.findings if each.feature.key == key]
    return found


def verdict(examination: Examination, key: str) -> str:
    return finding(examination, key).verdict


def faults(examination: Examination) -> list[tuple[str, str, int]]:
    return [(each.kind, each.what, each.count) for each in examination.faults]


def shown(examination: Examination, columns: int = 100) -> str:
    return "\n".join(lines(examination, "redis://localhost:6379", 60, columns=columns, colour=False))


def trade(number: int = 1, market: str = "TATA_INR", **more: Any) -> tuple[str, Any]:
    data = {"e": "trade", "t": number, "m": True, "p": "1.50", "q": "2", "s": market, "T": NOW, **more}
    return f"trade@{market}", {name: value for name, value in data.items() if value is not None}


def depth(first: int | None, last: int | None, **more: Any) -> tuple[str, Any]:
    data = {
        "e": "depth",
        "U": first,
        "u": last,
        "b": [["1", "1"]],
        "a": [["2", "1"]],
        "s": "TATA_INR",
        "E": NOW,
        **more,
    }
    return "depth@TATA_INR", {name: value for name, value in data.items() if value is not None}


def ticker(**more: Any) -> tuple[str, Any]:
    whole = {field: 1 if field in "OCFLn" else "1" for field in STATISTICS}
    return "ticker@TATA_INR", {"e": "24hrTicker", "s": "TATA_INR", "c": "1", "E": NOW, **whole, **more}


def test_an_engine_that_has_everything() -> None:
    """Every feature is there, no fault is, and the status says so."""
    examination = examined(
        trade(1), trade(2), depth(1, 9, snapshot=True), depth(10, 11), ticker(), on_streams=True
    )  # fmt: skip
    assert {each.feature.key: each.verdict for each in examination.findings} == dict.fromkeys(
        (feature.key for feature in FEATURES), "yes"
    )
    assert faults(examination) == []
    assert status(examination) == 0
    assert shown(examination).splitlines()[-1] == "All that was heard is good. All that there is can be made of it."


def test_nothing_is_not_good() -> None:
    """Who hears nothing is told what may be the matter, with status 1."""
    examination = examined()
    assert status(examination) == 1
    assert {each.verdict for each in examination.findings} == {"unknown"}
    assert "Nothing was published." in shown(examination)


@pytest.mark.parametrize(
    ("numbers", "expected", "what"),
    [
        ((5, 6, 7), "yes", ""),
        ((5, 6, 9, 10), "partly", "t goes from 6 to 9"),
        ((5, 9, 3), "partly", "t goes from 5 to 9"),
        ((5, 5), "partly", "t is 5 twice"),
    ],
)
def test_ids_of_trades(numbers: tuple[int, ...], expected: str, what: str) -> None:
    """They count up by one, or it is said where they do not."""
    found = finding(examined(*[trade(number) for number in numbers]), "ids")
    assert (found.verdict, found.what) == (expected, what)


def test_ids_over_all_markets() -> None:
    """Ids that count up over all markets are told from those with holes."""
    found = finding(examined(*[trade(number, f"M{number % 2}_X") for number in range(9)]), "ids")
    assert (found.verdict, found.what) == ("no", "t counts up by one over all markets together")


def test_ids_over_all_markets_and_a_gap() -> None:
    """What was missed meanwhile is no hole."""
    examination = Examination(BUILT_IN, "", 262144)
    hear(examination, *[trade(number, f"M{number % 2}_X") for number in range(9)])
    examination.lose()
    hear(examination, *[trade(number, f"M{number % 2}_X") for number in range(90, 99)])
    examination.finish()
    assert finding(examination, "ids").what == "t counts up by one over all markets together"


def test_a_repeated_id_is_a_fault() -> None:
    """A trade that is published twice is one too many, for who adds them up."""
    examination = examined(trade(5), trade(5))
    assert faults(examination) == [("trade", "t is the same as of the trade before: 5", 1)]
    assert status(examination) == 1


def test_what_we_have_missed_is_no_fault_of_the_engines() -> None:
    """Across a gap neither ids of trades nor those of depth messages jump."""
    examination = Examination(BUILT_IN, "", 262144)
    hear(examination, trade(1), depth(1, 1, snapshot=True))
    examination.lose()
    hear(examination, trade(7), depth(9, 9))
    examination.finish()
    assert verdict(examination, "ids") == verdict(examination, "updates") == "yes"
    assert faults(examination) == []
    assert "In 1 gap nothing was heard" in shown(examination)


@pytest.mark.parametrize(
    ("moment", "what"),
    [
        (None, "without T"),
        (NOW // 1000, "T is in seconds"),
        (NOW * 1000, "T is in microseconds"),
        (NOW * 1_000_000, "T is in nanoseconds"),
        (NOW + 61_000, "T is more than a minute ahead of the clock here"),
        (NOW - 3_601_000, "T is more than an hour ago"),
        (str(NOW), "T is no integer of ms"),
        (True, "T is no integer of ms"),
        (10**400, "T is no integer of ms"),
        (NOW - 3_599_000, ""),
        (NOW + 59_000, ""),
    ],
)
def test_times_of_trades(moment: Any, what: str) -> None:
    """What is no time in ms since 1970 is named by what it is."""
    found = finding(examined(trade(T=moment)), "executed")
    assert (found.what, found.verdict) == (what, "no" if what else "yes")


def test_numbers_in_the_place_of_strings() -> None:
    """They are good, and some clients round them."""
    examination = examined(trade(p=1.5), depth(1, 1, b=[[1, "2"]]), ticker(h=2))
    assert faults(examination) == []
    assert finding(examination, "trade-texts").what == "p: no string"
    assert finding(examination, "depth-texts").what == "levels of b with numbers"
    assert finding(examination, "ticker-texts").what == "h: no string"


@pytest.mark.parametrize(
    ("first", "last", "what"),
    [
        (None, None, "without U and u"),
        (None, 1, "without U"),
        ("1", "2", "U and u are no integers"),
        (3, 2, "U 3 is behind u 2"),
    ],
)
def test_ids_of_depth_messages(first: Any, last: Any, what: str) -> None:
    """There are two, and they are integers."""
    assert finding(examined(depth(first, last)), "updates").what == what


def test_a_jump_is_a_fault() -> None:
    """A depth message that does not follow the one before is what clients would be told a gap for."""
    examination = examined(depth(1, 2), depth(3, 4), depth(7, 8))
    assert faults(examination) == [("depth", "the ids jump: U 7 and u 8 behind u 4", 1)]
    assert verdict(examination, "updates") == "partly"
    assert examination.faults[0].example is not None
    assert '"U": 7' in examination.faults[0].example.payload


@pytest.mark.parametrize(("bid", "ask"), [("3", "2"), ("2.00", "2.00")])
def test_a_book_that_is_crossed(bid: str, ask: str) -> None:
    """The bid is below the ask, or it is said; a price has one spelling in a book."""
    examination = examined(depth(1, 1, snapshot=True, b=[[bid, "1"]]))
    assert faults(examination) == [("depth", f"the book is crossed: best bid {bid}, best ask {ask}", 1)]


def test_a_crossed_book_is_said_once_for_a_stream() -> None:
    """However long it is so."""
    updates = [depth(number, number) for number in range(2, 450)]
    examination = examined(depth(1, 1, snapshot=True, b=[["3", "1"]]), *updates)
    assert [count for _, what, count in faults(examination)] == [1]


def test_books() -> None:
    """A whole one comes on the stream, or is kept beside it."""
    assert verdict(examined(depth(1, 1)), "book") == "no"
    assert verdict(examined(depth(1, 1, snapshot=True)), "book") == "yes"
    examination = Examination(BUILT_IN, "", 262144)
    hear(examination, depth(1, 1), ticker())
    assert examination.with_states == ["depth@TATA_INR", "ticker@TATA_INR"]
    examination.seed("depth@TATA_INR", json.dumps(depth(1, 1)[1]).encode())
    examination.finish()
    assert verdict(examination, "book") == "yes"
    assert faults(examination) == []


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"no", "the state in a key cannot be used: "),
        (b'{"e":"depth","a":[],"b":[]}', "the state in a key cannot be put in its place: it has no u"),
    ],
)
def test_a_key_that_is_no_book(data: bytes, what: str) -> None:
    """What a daemon could not use is a fault, with the key."""
    examination = Examination(BUILT_IN, "", 262144)
    hear(examination, depth(1, 1))
    examination.seed("depth@TATA_INR", data)
    (fault,) = examination.faults
    assert fault.what.startswith(what)
    assert fault.example is not None
    assert fault.example.stream == "snapshot:depth@TATA_INR"


def test_statistics() -> None:
    """It is said which fields of a ticker are missing."""
    found = finding(examined(("ticker@TATA_INR", {"e": "ticker", "c": "1", "s": "TATA_INR", "o": "1"})), "statistics")
    assert found.what == f"without {' '.join(field for field in STATISTICS if field != 'o')}"


def test_markets() -> None:
    """Whose name says nothing of what is traded for what has to be declared; `s` is the stream's."""
    examination = examined(trade(market="TATA_INR"), trade(market="tatainr"), trade(market="X_Y", s="X_Z"))
    assert (finding(examination, "pair").good, finding(examination, "pair").of) == (2, 3)
    assert finding(examination, "pair").what == "tatainr is not spelled so"
    assert faults(examination) == [("trade", "s is another market than that of the stream: X_Z", 1)]
    assert verdict(examination, "market") == "partly"


def test_what_is_dropped() -> None:
    """Faults of one sort are one line, with the first example and how many there were."""
    examination = examined(
        trade(), ("trade@TATA_INR", b"{"), trade(t="one"), trade(t="two"), trade(p="much"), trade(q="more")
    )
    assert examination.kinds["trade"].dropped == 5
    assert sorted((what.partition(":")[0], count) for _, what, count in faults(examination)) == [
        ("dropped, bad-field", 1),
        ("dropped, bad-field", 1),
        ("dropped, bad-field", 2),
        ("dropped, not-json", 1),
    ]
    worst = examination.faults[0]
    assert worst.example is not None
    assert '"one"' in worst.example.payload
    assert '"t": "one"' in shown(examination)


def test_levels_at_any_place_are_one_fault() -> None:
    """Wherever in a list the first bad one is."""
    examination = examined(depth(1, 1, a=[["1", None]]), depth(2, 2, a=[["1", "1"], ["2", None]]))
    assert [count for _, _, count in faults(examination)] == [2]


def test_nothing_of_what_is_private_is_shown() -> None:
    """Neither what it says, nor whom it is for; also of kinds that are not declared, which may be private."""
    examination = examined(
        ("orders@alice", {"secret": 1}), ("orders@alice", b"secret{"), ("wallets@alice", {"secret": 1}), trade()
    )
    text = shown(examination) + as_json(examination, "redis", 1).decode()
    text += shown(examined(("alice@orders", {"secret": 1}), ("alice@orders@100ms", {})))
    assert "alice" not in text
    assert "secret" not in text
    assert examination.kinds["orders"].publications == 2
    assert examination.kinds["wallets"].publications == 1
    assert "private: counted, and not looked into" in text
    assert "not declared: [streams.wallets] in the file does" in text
    assert faults(examination) == [("orders", "dropped, not-json", 1)]
    assert examination.markets == ["TATA_INR"]


def test_channels_that_are_no_streams() -> None:
    """They are named, and are no fault: others may use the server as well."""
    examination = examined(("trades:TATA", {}), ("x", {}), trade())
    assert examination.odd == 2
    assert "2 publications on channels that are no streams, such as trades:TATA" in shown(examination)
    assert status(examination) == 0
    assert "the names of the channels are others" in shown(examined(("trades:TATA", {})))


def test_channels_and_streams() -> None:
    """Whether Redis Streams are used is known to who listens, and of a recording to nobody."""
    assert verdict(examined(trade()), "streams") == "unknown"
    assert verdict(examined(trade(), on_streams=False), "streams") == "no"


def test_faults_are_bounded() -> None:
    """However many sorts there are, no more than some are kept, and all are counted."""
    fields = [f"f{number}" for number in range(100)]
    examination = Examination(BUILT_IN, "", 262144)
    for field in fields:
        examination._fault("trade", field, "x", "trade@A", b"{}")
    assert len(examination.faults) == 13
    assert sum(fault.count for fault in examination.faults) == 100


@property_test
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["trade@A", "depth@A", "ticker@A", "orders@A", "x@A", "x", "\x1b[2J"]),
            st.one_of(
                st.binary(max_size=40),
                st.builds(lambda data: json.dumps(data).encode(), st.recursive(
                    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from("eEtTUuabspqcm"), inner, max_size=6),
                    max_leaves=12,
                )),
                st.builds(lambda data: json.dumps(data).encode(), st.fixed_dictionaries(
                    {"e": st.sampled_from(["trade", "depth", "ticker"]), "s": st.sampled_from(["A", "B"]),
                     "t": st.integers(), "m": st.booleans(), "p": st.just("1"), "q": st.just(1), "c": st.just("1"),
                     "a": st.just([["1", 0]]), "b": st.just([[2, "1"]])},
                    optional={"U": st.integers() | st.text(max_size=2), "u": st.integers() | st.none(),
                              "snapshot": st.booleans(), "T": st.integers() | st.floats(), "E": st.text(max_size=3)},
                )),
            ),
        ),
        max_size=12,
    )
)  # fmt: skip
def test_anything_may_be_published(publications: list[tuple[str, bytes]]) -> None:
    """Whatever it is, it is counted, and every line is fit for a terminal and not longer than there is room for."""
    examination = examined(*publications)
    for stream, payload in publications:
        examination.seed(stream, payload)
    assert examination.publications == len(publications)
    assert sum(each.publications for each in examination.kinds.values()) + examination.odd == len(publications)
    for line in shown(examination, 80).splitlines():
        assert line.isprintable()
    assert json.loads(as_json(examination, "redis", 60))["status"] == status(examination)
