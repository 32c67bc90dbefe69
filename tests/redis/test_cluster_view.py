"""What nodes of a cluster say of each other, and who is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.redis.cluster_view import SPREAD_SECONDS, BadView, certain_at, owners_in, read_view
from marketfeed.redis.topology import SLOTS

Row = tuple[str, str, int, str]
"""An id, its flags, the epoch of its claim, and its slots."""


def written(myself: str, *rows: Row, disconnected: str = "") -> bytes:
    """An answer to CLUSTER NODES. The node of id `a` is at 10.0.0.1:97, and so on."""
    lines = []
    for node, flags, epoch, slots in rows:
        flag = f"myself,{flags}" if node == myself else flags
        state = "disconnected" if node in disconnected else "connected"
        place = f"10.0.0.1:{ord(node)}@1{ord(node)}"
        lines.append(f"{node} {place} {flag} - 0 1700000000000 {epoch} {state} {slots}".rstrip())
    return "\n".join(lines).encode() + b"\n"


THREE: tuple[Row, ...] = (
    ("a", "master", 1, "0-5460"),
    ("b", "master", 2, "5461-10922"),
    ("c", "master", 3, "10923-16383"),
    ("d", "slave", 1, ""),
)


def test_an_answer() -> None:
    text = (
        b"07c3 127.0.0.1:30004@31004,host4,shard-id=1 slave,fail? e7d1 5 1426238317239 4 connected\n"
        b"67ed :30002@31002 myself,master - 0 1426238316232 2 connected 5461-10922 [93->-292f] 5\n"
        b"92ba ::1:30003@31003 master,fail - 0 0 3 disconnected\n"
        b"aaaa 127.0.0.1:30009@31009,,shard-id=1 master,handshake - 0 0 0 disconnected\n"
    )
    view = read_view(text, 7.0)
    replica, me, gone = view.nodes
    assert (replica.hosts, replica.port, replica.is_master, replica.is_up) == (
        ("host4", "127.0.0.1"),
        30004,
        False,
        False,
    )
    assert (me.hosts, me.is_myself, me.is_up, me.slots, me.epoch) == ((), True, True, ((5461, 10922), (5, 5)), 2)
    assert (gone.hosts, gone.is_gone, gone.is_up, gone.slots) == (("::1",), True, False, ())
    assert (view.myself, view.voters, view.asked_at) == (me, [me], 7.0)
    assert (replica.answered_at, replica.is_gone) == (1426238317239, False)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"x",
        b"\xff",
        b"a 1.1.1.1:1@2 master - 0 0 1 connected 0-1\n",
        b"a 1.1.1.1:1@2 myself,master - 0 0 1 connected 0-99999\n",
        b"a 1.1.1.1:x@2 myself,master - 0 0 1 connected\n",
        b"a 1.1.1.1:1@2 myself,master - 0 0 1 connected 5-1\n",
    ],
)
def test_no_answer(text: bytes) -> None:
    with pytest.raises(BadView, match="the server does not say"):
        read_view(text, 0.0)


def test_the_higher_epoch_is_believed() -> None:
    """Whoever says so, and whoever was asked last."""
    old = read_view(written("a", *THREE), 9.0)
    new = read_view(written("b", ("a", "master,fail", 1, ""), *THREE[1:3], ("d", "master", 4, "0-5460")), 1.0)
    for views in ([old, new], [new, old]):
        owners = owners_in(views)
        assert (owners[0], owners[5460], owners[5461], owners[SLOTS - 1]) == ("d", "d", "b", "c")
    assert owners_in([]) == [None] * SLOTS


def test_a_master_that_reaches_few_has_nothing() -> None:
    """Unless somebody who reaches most of them says that it has; what it says of others stays."""
    cut_off = read_view(written("a", THREE[0], ("b", "master,fail?", 2, "5461-10922"), THREE[2], disconnected="c"), 1.0)
    assert not cut_off.has_majority
    owners = owners_in([cut_off])
    assert (owners[0], owners[5461]) == (None, "b")


def test_who_is_whole() -> None:
    """Who reaches all that are there; those that most agree to be gone are not waited for."""
    assert read_view(written("a", *THREE), 0.0).is_whole
    assert not read_view(written("a", *THREE, disconnected="d"), 0.0).is_whole
    assert not read_view(written("a", *THREE[:3], ("d", "slave,fail?", 1, "")), 0.0).is_whole
    assert read_view(written("a", *THREE[:3], ("d", "slave,fail", 1, ""), disconnected="d"), 0.0).is_whole


def test_how_long_a_master_was_certain() -> None:
    """As long as most said so; where fewer can be asked, its own word counts, of so long ago that it was true."""
    views = {each: read_view(written(each, *THREE), at) for each, at in (("a", 10.0), ("b", 8.0), ("c", 6.0))}
    assert certain_at("a", list(views.values()), 5.0) == 8.0 - SPREAD_SECONDS
    assert certain_at("a", [views["a"]], 5.0) == 5.0
    assert certain_at("a", [views["b"]], 5.0) is None
    assert certain_at("a", [], 5.0) is None
    taken = written("b", ("a", "master", 1, ""), *THREE[1:3], ("d", "master", 4, "0-5460"))
    assert certain_at("a", [read_view(taken, 11.0), views["c"], views["a"]], 5.0) == 5.0


EPOCHS = st.permutations(range(8))


@given(
    EPOCHS, st.lists(st.tuples(st.integers(0, 7), st.integers(0, SLOTS - 1), st.integers(0, SLOTS - 1)), max_size=30)
)
def test_whatever_they_claim_each_slot_has_the_highest_that_claims_it(
    epochs: list[int], claims: list[tuple[int, int, int]]
) -> None:
    names = "abcdefgh"
    views = []
    expected: dict[int, int] = {}
    for who, one, other in claims:
        first, last = sorted((one, other))
        views.append(read_view(written(names[who], (names[who], "master", epochs[who], f"{first}-{last}")), 0.0))
        for slot in (first, (first + last) // 2, last):
            for each, a, b in claims:
                if min(a, b) <= slot <= max(a, b):
                    expected[slot] = max(expected.get(slot, -1), epochs[each])
    owners = owners_in(views)
    for slot, epoch in expected.items():
        owner = owners[slot]
        assert owner is not None
        assert epochs[names.index(owner)] == epoch
