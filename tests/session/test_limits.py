"""How much one client may ask: what a request costs, and when refusals are too many."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from marketfeed.session.limits import MOST_REFUSED, RequestBudget

PING = b'{"method":"PING"}'


def named(count: int) -> bytes:
    """A request that names so many streams."""
    return b'{"method":"UNSUBSCRIBE","params":[%b]}' % b",".join([b'"trade@A"'] * count)


def admitted(budget: RequestBudget, most: int = 100) -> int:
    """How many cheap requests are admitted at this moment."""
    return sum([budget.admits(PING, 0) for _ in range(most)])


def test_a_request_costs_one() -> None:
    """As many as the burst are admitted, and one more as soon as the rate permits it."""
    budget = RequestBudget(2, 3, 0)
    assert admitted(budget) == 3
    assert budget.admits(PING, 0.5)
    assert not budget.admits(PING, 0.5)


def test_streams_cost_by_the_twenty() -> None:
    """The comma before `params` counts too, so that nineteen are still one; what is not there is owed."""
    for count, cost in ((1, 1), (19, 1), (20, 2), (40, 3), (1000, 51)):
        budget = RequestBudget(1, 60, 0)
        assert budget.admits(named(count), 0)
        assert admitted(budget) == 60 - cost
    budget = RequestBudget(1, 2, 0)
    assert budget.admits(named(100), 0)
    assert not budget.admits(PING, 4)
    assert budget.admits(PING, 5)


def test_streams_of_the_path_cost_the_same() -> None:
    """They come without a request, so that only what they are more than one counts."""
    budget = RequestBudget(1, 10, 0)
    budget.charge_streams(19)
    budget.charge_streams(45)
    assert admitted(budget) == 8


def test_publications_cost_by_the_hundred() -> None:
    """Those that are asked for."""
    for limit, cost in ((1, 0), (99, 0), (100, 1), (1000, 10)):
        budget = RequestBudget(1, 60, 0)
        budget.charge_publications(limit)
        assert admitted(budget) == 60 - cost


def test_kept_publications_cost_by_their_number_or_their_bytes() -> None:
    """Whichever is more."""
    for limit, size, cost in ((99, 16383, 0), (99, 1 << 19, 32), (200, 1 << 15, 2), (1000, 1 << 19, 32), (1000, 0, 10)):
        budget = RequestBudget(1, 60, 0)
        budget.charge_publications(limit)
        budget.charge_kept(limit, size)
        assert admitted(budget) == 60 - cost


def test_rewound_streams_cost_as_if_each_were_asked_for() -> None:
    """One for each, and by the publications or the bytes, whichever are more."""
    for limit, sizes, cost in ((50, [], 0), (50, [0, 16383], 2), (200, [0, 1 << 15, 1 << 16], 3 + 2 + 2 + 4)):
        budget = RequestBudget(1, 60, 0)
        budget.charge_rewound(limit, sizes)
        assert admitted(budget) == 60 - cost


def test_a_long_text_costs_what_it_would_with_streams() -> None:
    """By the 2 KiB, whatever is in it: numbers of a thousand digits, say. Names are longer than that is short."""
    for size, cost in ((2000, 1), (2048, 2), (65536, 33)):
        budget = RequestBudget(1, 60, 0)
        assert budget.admits(b'{"method":"PING","x":%b}' % (b"9" * (size - 22)), 0)
        assert admitted(budget) == 60 - cost
    assert RequestBudget(1, 60, 0).admits(named(200), 0)


@pytest.mark.parametrize(
    ("charge", "few", "many", "cost"),
    [
        (RequestBudget.charge_tries, 999, 100_000, 100),
        (RequestBudget.charge_written, 16383, 1 << 20, 64),
        (lambda budget, _: budget.charge_verification(), 0, 0, 4),
    ],
)
def test_what_a_request_turns_out_to_take(charge: Callable[..., None], few: int, many: int, cost: int) -> None:
    """Patterns that are tried, bytes that are put together, a signature that is looked at."""
    budget = RequestBudget(1, 200, 0)
    charge(budget, few)
    assert admitted(budget, 300) == (200 if few else 196)
    budget = RequestBudget(1, 200, 0)
    charge(budget, many)
    assert admitted(budget, 300) == 200 - cost


def test_a_refused_request_costs_nothing() -> None:
    """However much it names."""
    budget = RequestBudget(1, 1, 0)
    assert budget.admits(PING, 0)
    assert not budget.admits(named(1000), 0)
    assert budget.admits(PING, 1)


def test_refusals_in_a_row_are_counted() -> None:
    """One request that is admitted begins a new row."""
    assert MOST_REFUSED == 20
    budget = RequestBudget(1, 1, 0)
    assert admitted(budget, 20) == 1
    assert budget.refused == 19
    assert budget.admits(PING, 1)
    assert budget.refused == 0
    assert not budget.admits(PING, 1)
    assert budget.refused == 1
