"""Identities: which streams a token's patterns come to, and that nobody gets more."""

from __future__ import annotations

import re
import string
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfeed.model.identity import (
    ANONYMOUS,
    MAX_PATTERN,
    MAX_PATTERNS,
    BadPattern,
    Identity,
    StreamPattern,
    parse_patterns,
)
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from marketfeed.model.streams import StreamKinds, StreamName
from tests.strategies import MARKET_CHARACTERS, json_values, markets, property_test

ORDERS = StreamKind("orders", LossPolicy.KEEP, private=True)
KINDS = StreamKinds((*BUILT_IN, ORDERS))

streams = st.builds(StreamName, st.sampled_from((*BUILT_IN, ORDERS)), markets)
# Two letters only, so that patterns often match.
few = st.text("ab*", max_size=8)
small_markets = st.text("ab", min_size=1, max_size=12)
users = st.one_of(markets, st.text(max_size=12), st.sampled_from(("*", "a*", "${sub}", "a${sub}*", "A b", 65 * "a")))


def identity(user: str, *patterns: str) -> Identity:
    """Somebody with these patterns; without any, somebody whose token has no such claim."""
    return Identity(user, parse_patterns(list(patterns), user) if patterns else None, 0.0)


def permits(who: Identity, stream: str) -> bool:
    return who.permits(KINDS.parse(stream))


class TestWithoutPatterns:
    @property_test
    @given(streams)
    def test_anonymous_gets_what_is_public(self, stream: StreamName) -> None:
        """And nothing else, for ever."""
        assert ANONYMOUS.permits(stream) == (not stream.kind.private)
        assert float("inf") == ANONYMOUS.expires_at

    @property_test
    @given(users, streams)
    def test_a_user_gets_what_is_public_and_what_is_its_own(self, user: str, stream: StreamName) -> None:
        """A private stream is the user's whose name its market is."""
        own = StreamName(ORDERS, user)
        assert Identity(user, None, 0.0).permits(stream) == (not stream.kind.private or stream.market == user)
        assert Identity(user, None, 0.0).permits(own) == bool(re.fullmatch(r"[A-Za-z0-9._-]{1,64}", user))

    def test_case_counts(self) -> None:
        """Another spelling is another user."""
        assert permits(identity("alice"), "orders@alice")
        assert not permits(identity("alice"), "orders@Alice")


class TestPatterns:
    @pytest.mark.parametrize(
        ("pattern", "covered", "others"),
        [
            ("depth@*", ["depth@A", "depth@TATA_INR"], ["trade@A", "orders@alice"]),
            ("depth@TATA_INR", ["depth@TATA_INR"], ["depth@TATA_INR2", "depth@TATA", "depth@tata_INR"]),
            ("depth@*_INR", ["depth@TATA_INR", "depth@_INR"], ["depth@TATA_USD", "depth@INR"]),
            ("depth@TATA_*", ["depth@TATA_INR", "depth@TATA_"], ["depth@TATA", "depth@XTATA_INR"]),
            ("depth@A*A", ["depth@AA", "depth@ABA"], ["depth@A"]),
            ("depth@A*B*C", ["depth@ABC", "depth@AxBBxC"], ["depth@AC", "depth@ACB", "depth@BC", "depth@ABCD"]),
            ("depth@*ab*ab*", ["depth@abab", "depth@xabxabx"], ["depth@ab", "depth@aab"]),
            ("depth@**", ["depth@A"], []),
            ("depth@A.B", ["depth@A.B"], ["depth@AxB"]),
            ("*@A", ["depth@A", "trade@A", "ticker@A"], ["depth@B", "orders@A"]),
            ("*@*", ["depth@A", "trade@B"], ["orders@alice", "orders@A"]),
            ("orders@*", ["orders@alice", "orders@bob"], ["trade@alice"]),
            ("orders@${sub}", ["orders@alice"], ["orders@bob", "orders@alice2", "trade@alice"]),
            ("orders@${sub}.*", ["orders@alice.1"], ["orders@alice", "orders@bob.1"]),
            ("*@${sub}", ["trade@alice"], ["orders@alice"]),
            ("orders@${sub}${sub}", ["orders@alicealice"], ["orders@alice"]),
            ("candles@*", [], ["trade@A", "orders@alice"]),
        ],
    )
    def test_what_a_pattern_covers(self, pattern: str, covered: list[str], others: list[str]) -> None:
        """For a user alice; what no pattern covers is not permitted, her own streams neither."""
        alice = identity("alice", pattern)
        assert [stream for stream in covered + others if permits(alice, stream)] == covered

    def test_any_of_several_will_do(self) -> None:
        """They add up."""
        alice = identity("alice", "depth@*", "orders@${sub}")
        assert permits(alice, "depth@A")
        assert permits(alice, "orders@alice")
        assert not permits(alice, "trade@A")

    def test_an_empty_list_permits_nothing(self) -> None:
        """It is a claim, after all."""
        assert not permits(Identity("alice", parse_patterns([], "alice"), 0.0), "depth@A")

    @property_test
    @given(few.filter(bool), small_markets)
    @example("*" * 100, "a" * 64)
    def test_a_star_is_any_run_of_characters(self, pattern: str, market: str) -> None:
        """Against `re`."""
        expected = re.fullmatch(re.sub(r"\*+", ".*", pattern), market) is not None
        assert permits(identity("alice", f"depth@{pattern}"), f"depth@{market}") == expected

    @property_test
    @given(
        st.lists(st.sampled_from(("a", "b", "*", "${sub}", "${sub}")), min_size=1, max_size=6), small_markets, st.data()
    )
    def test_sub_is_the_user_to_the_letter(self, parts: list[str], user: str, data: st.DataObject) -> None:
        """Against `re`, with the user quoted."""
        market = data.draw(st.text("ab", min_size=1, max_size=20) | st.just("".join(parts).replace("${sub}", user)))
        market = market.replace("*", "ab")[:64]
        expression = "".join({"*": ".*", "${sub}": re.escape(user)}.get(part, part) for part in parts)
        expected = re.fullmatch(expression, market) is not None
        assert permits(identity(user, f"depth@{''.join(parts)}"), f"depth@{market}") == expected

    @pytest.mark.parametrize("user", ["*", "a*", "alice*", ".*", "${sub}", "a b", "", 65 * "a", "alicé", "alice\n"])
    def test_a_user_whose_name_is_no_market(self, user: str) -> None:
        """No private stream, whatever the patterns say, and none by `${sub}`; a star in the name is no pattern."""
        somebody = identity(user, "orders@*", "orders@${sub}", "depth@${sub}", "depth@a${sub}*", "trade@*")
        for market in ("alice", "a", "ab", "aab", 64 * "a"):
            assert not permits(somebody, f"orders@{market}")
            assert not permits(somebody, f"depth@{market}")
        assert permits(somebody, "trade@A")
        assert not permits(identity(user), "orders@alice")

    @property_test
    @given(
        users, st.lists(st.builds("{}@{}".format, st.sampled_from(("*", "trade", "depth")), few.filter(bool))), markets
    )
    def test_private_streams_are_named_by_their_kind_alone(self, user: str, patterns: list[str], market: str) -> None:
        """No pattern for public kinds, or for any kind, opens one."""
        who = Identity(user, parse_patterns(patterns, user), 0.0)
        assert not who.permits(StreamName(ORDERS, market))

    @property_test
    @given(
        st.lists(st.tuples(st.sampled_from(("*", "trade", "depth", "orders")), few.filter(bool)), max_size=8),
        streams.filter(lambda stream: not stream.kind.all_of),
    )
    @example([("trade", "a*"), ("*", "*b"), ("depth", "a*b")], StreamName(BUILT_IN[0], "xb"))
    def test_many_patterns_together(self, patterns: list[tuple[str, str]], stream: StreamName) -> None:
        """They cover what each of them covers by itself, and nothing else."""
        for market in {stream.market, *("a", "b", "ab", "ba", "aab", "abb", "aba", "bab")}:
            name = StreamName(stream.kind, market)
            expected = any(
                (kind == name.kind.name or (kind == "*" and not name.kind.private))
                and re.fullmatch(re.sub(r"\*+", ".*", pattern), market)
                for kind, pattern in patterns
            )
            assert identity("alice", *map("@".join, patterns), "x@x").permits(name) == expected

    @pytest.mark.parametrize(
        ("patterns", "has_all"),
        [
            ([], True),
            (["miniTicker@*"], True),
            (["trade@*", "miniTicker@**"], True),
            (["*@*"], True),
            (["*@arr"], False),
            (["*@a*"], False),
            (["*@*r"], False),
            (["*@*r*"], False),
            (["miniTicker@arr"], False),
            (["miniTicker@A*", "ticker@*"], False),
            (["miniTicker@${sub}"], False),
        ],
    )
    def test_all_markets_in_one_stream(self, patterns: list[str], has_all: bool) -> None:
        """It is for those who may have each of them, and its name is no market that a pattern could cover."""
        assert permits(identity("arr", *patterns), "!miniTicker@arr") == has_all

    @property_test
    @given(
        st.lists(
            st.builds("{}@{}".format, st.sampled_from(("*", "trade", "miniTicker", "orders")), few.filter(bool)),
            min_size=1,
        )
    )
    def test_who_has_all_markets_in_one_stream_has_each(self, patterns: list[str]) -> None:
        """And the other way: a market with no letter of the patterns is had only by who may have any."""
        who = identity("alice", *patterns)
        assert permits(who, "!miniTicker@arr") == permits(who, "miniTicker@C")

    def test_what_has_to_be_tried(self) -> None:
        """Names, beginnings and ends are looked up, however many there are."""
        looked_up = [
            f"{kind}@{market % n}" for n in range(8) for kind in ("*", "depth") for market in ("A%d", "A%d*", "*%d")
        ]
        assert parse_patterns([*looked_up, "*@*", "trade@**"], "alice").tried == 0
        assert parse_patterns([*looked_up, "trade@A*B", "*@*A*", "*@*A**", "depth@*A*"], "alice").tried == 3

    def test_the_same_patterns_are_kept_once(self) -> None:
        """Whoever they were read for."""
        assert parse_patterns(["depth@*"], "alice") is parse_patterns(["depth@*"], "bob")

    def test_many_stars_cost_little(self) -> None:
        """A pattern that would keep a backtracking matcher busy for years is tried once from left to right."""
        pattern = "depth@" + "a*" * 60 + "b"
        assert not permits(identity("alice", pattern), f"depth@{64 * 'a'}")


class TestParsePatterns:
    @pytest.mark.parametrize("claim", [None, "depth@*", 1, {}, {"depth@*": 1}, True, ["depth@*"] * (MAX_PATTERNS + 1)])
    def test_a_claim_that_is_no_list(self, claim: Any) -> None:
        """The error says what would be one."""
        with pytest.raises(BadPattern, match=r"^streams: expected a list of at most 100 patterns such as depth@\*"):
            parse_patterns(claim, "alice")

    @pytest.mark.parametrize(
        "pattern",
        [
            "",
            "*",
            "depth",
            "@",
            "depth@",
            "@*",
            "depth@@A",
            "depth@A@100ms",
            "de*@A",
            "**@A",
            "${sub}@A",
            "9depth@A",
            f"{33 * 'k'}@A",
            "depth@A B",
            "depth@A\n",
            "depth@é",
            "depth@$sub",
            "depth@${user}",
            "depth@${sub",
            "depth@[A-Z]",
            "depth@A?",
            "depth@" + "A" * (MAX_PATTERN - 5),
            1,
            None,
            ["depth@*"],
        ],
    )
    def test_a_malformed_pattern(self, pattern: Any) -> None:
        """The error says which one it is, without repeating it."""
        with pytest.raises(BadPattern) as caught:
            parse_patterns(["trade@A", pattern], "alice")
        assert str(caught.value).startswith("streams: pattern 2 cannot be used; expected <kind>@<market> such as")

    def test_the_limits_are_what_may_be_reached(self) -> None:
        """The longest pattern, and as many as there may be."""
        longest = "depth@" + "A" * (MAX_PATTERN - 6)
        assert parse_patterns([longest] * MAX_PATTERNS, "alice") == (
            (StreamPattern("depth", ("A" * (MAX_PATTERN - 6),)),) * MAX_PATTERNS
        )

    @property_test
    @given(json_values | st.lists(st.text("ab*@${}sub", max_size=12), max_size=3), users)
    def test_any_claim_is_read_or_refused(self, claim: Any, user: str) -> None:
        """There is no other failure."""
        try:
            patterns = parse_patterns(claim, user)
        except BadPattern:
            return
        assert all(set(pattern.kind) <= set(string.ascii_letters + string.digits + "_*") for pattern in patterns)
        assert all(set(piece) <= set(MARKET_CHARACTERS) for pattern in patterns for piece in pattern.pieces)
