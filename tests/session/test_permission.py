"""Which streams a client may have, and what it is told otherwise."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import cast

import pytest

from marketfeed.access.tokens import BadToken
from marketfeed.model.identity import ANONYMOUS, Identity, parse_patterns
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from marketfeed.model.streams import StreamKinds, StreamName
from marketfeed.session.permission import check_in_portions, check_permission, lost_streams, renewed, streams_lost
from marketfeed.wire.messages import ErrorCode, RequestError

KINDS = StreamKinds((*BUILT_IN, StreamKind("orders", LossPolicy.KEEP, private=True)))
ALICE = Identity("alice", None, 2e9)
NARROW = Identity("alice", parse_patterns(["trade@*"], "alice"), 2e9)


def named(*spellings: str) -> dict[str, StreamName]:
    return {spelling: KINDS.parse(spelling) for spelling in spellings}


def verifying(tokens: dict[str, Identity]) -> Callable[[str], Identity]:
    def verify(token: str) -> Identity:
        if token not in tokens:
            raise BadToken("the token has expired")
        return tokens[token]

    return verify


def result(work: Generator[int, None, list[str]]) -> list[str]:
    """What some work comes to, when all of it is done."""
    try:
        while True:
            next(work)
    except StopIteration as end:
        return cast(list[str], end.value)


def test_what_is_permitted_passes() -> None:
    """Public streams for anybody, private ones for their user."""
    for check in (check_permission, check_in_portions):
        list(check(ANONYMOUS, named("trade@A", "a@depth").items()) or ())
        list(check(ALICE, named("trade@A", "orders@alice").items()) or ())
        list(check(NARROW, ()) or ())


@pytest.mark.parametrize(
    ("identity", "spellings", "says"),
    [
        (ANONYMOUS, ("trade@A", "orders@alice"), "orders@alice needs a token"),
        (ALICE, ("orders@bob",), "the token does not cover orders@bob"),
        (NARROW, ("trade@A", "a@depth", "ticker@A"), "the token does not cover a@depth"),
    ],
)
def test_what_is_not_permitted_is_named(identity: Identity, spellings: tuple[str, ...], says: str) -> None:
    """The first stream that is not, as the client spelled it, and whether a token would help."""
    for check in (check_permission, check_in_portions):
        with pytest.raises(RequestError) as caught:
            list(check(identity, named(*spellings).items()) or ())
        assert caught.value.code is ErrorCode.NOT_PERMITTED
        assert caught.value.message == f"not permitted: {says}"


def test_a_token_is_taken_from_nobody_in_particular_and_from_the_same_user() -> None:
    """Who had none may be anybody."""
    assert renewed(ANONYMOUS, "good", verifying({"good": ALICE})) is ALICE
    assert renewed(ALICE, "narrow", verifying({"narrow": NARROW})) is NARROW


@pytest.mark.parametrize(("token", "says"), [("bad", "the token has expired"), ("bob", "the token is another user's")])
def test_a_token_that_is_no_good(token: str, says: str) -> None:
    """One that does not verify, and one of somebody else."""
    with pytest.raises(RequestError) as caught:
        renewed(ALICE, token, verifying({"bob": Identity("bob", None, 2e9)}))
    assert caught.value.code is ErrorCode.AUTHENTICATION_FAILED
    assert caught.value.message == f"authentication failed: {says}"


def test_what_a_narrower_token_loses() -> None:
    """Each of the spellings that it does not cover, and one error for all."""
    streams = [
        ("trade@A", "trade@A"), ("a@depth", "depth@A"), ("a@trade", "trade@A"), ("orders@alice", "orders@alice"),
        ("b@depth", "trade@B"),
    ]  # fmt: skip
    lost = result(lost_streams(NARROW, streams, KINDS))
    assert lost == ["a@depth", "orders@alice"], "by what they are, whatever they are spelled like by now"
    error = streams_lost(lost)
    assert error.code is ErrorCode.NOT_PERMITTED
    assert error.message == "not permitted: the token does not cover a@depth, orders@alice"


def test_patterns_that_have_to_be_tried_are_a_few_streams_at_a_time() -> None:
    """No step costs much, however many patterns and streams there are; nothing is asked twice, nothing left out."""
    patterns = [f"*@A*{number}*Z" for number in range(100)]
    streams = named(*[f"trade@A{number}Z" for number in range(300)])
    wide, plain = Identity("a", parse_patterns(patterns, "a"), 2e9), Identity("a", None, 2e9)
    for identity, least in ((wide, 200), (plain, 2)):
        costs = list(check_in_portions(identity, list(streams.items())[:100]))
        costs += list(lost_streams(identity, zip(streams, streams, strict=True), KINDS))
        assert max(costs) <= 200
        assert len(costs) >= least
    held = [*streams, "trade@AZ", "depth@AxZ"]
    assert result(lost_streams(wide, zip(held, held, strict=True), KINDS)) == ["trade@AZ", "depth@AxZ"]
