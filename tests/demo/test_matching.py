"""The matching engine, by example and against a reference that is too simple to be wrong."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.demo.matching import BadOrder, Execution, Increment, MatchingEngine, Outcome, Side

BUY, SELL = Side.BUY, Side.SELL


def test_orders_that_do_not_meet_wait() -> None:
    """Both sides rest, best price first, and nothing is executed."""
    engine = MatchingEngine()
    for side, price, quantity in ((BUY, 99, 5), (BUY, 100, 7), (SELL, 102, 3), (SELL, 101, 4)):
        outcome = engine.limit(side, price, quantity)
        assert (outcome.executions, outcome.resting, outcome.cancelled) == ((), quantity, 0)
        assert outcome.changed == {(side, price)}
    assert engine.levels(BUY) == [(100, 7), (99, 5)]
    assert engine.levels(SELL) == [(101, 4), (102, 3)]
    assert (engine.best(BUY), engine.best(SELL)) == (100, 101)


def test_the_price_is_that_of_the_order_that_waited() -> None:
    """A buyer who would pay more gets the asks' prices, cheapest first; what is left over waits at his own."""
    engine = MatchingEngine()
    engine.limit(SELL, 102, 3)
    engine.limit(SELL, 101, 4)
    outcome = engine.limit(BUY, 105, 10)
    assert outcome.executions == (Execution(1, False, 101, 4), Execution(2, False, 102, 3))
    assert outcome.changed == {(SELL, 101), (SELL, 102), (BUY, 105)}
    assert outcome.resting == 3
    assert engine.levels(SELL) == []
    assert engine.levels(BUY) == [(105, 3)]


def test_the_buyer_is_the_maker_when_a_seller_comes_to_him() -> None:
    """`buyer_is_maker` says whose order waited."""
    engine = MatchingEngine()
    engine.limit(BUY, 100, 5)
    assert engine.market(SELL, 2).executions == (Execution(1, True, 100, 2),)


def test_who_came_first_is_served_first_and_keeps_the_place() -> None:
    """At one price time decides, also for an order that was executed in part before others came."""
    engine = MatchingEngine()
    first = engine.limit(SELL, 101, 5).order
    second = engine.limit(SELL, 101, 5).order
    engine.market(BUY, 3)
    third = engine.limit(SELL, 101, 5).order
    assert engine.orders_at(SELL, 101) == [(first, 2), (second, 5), (third, 5)]
    assert [execution.quantity for execution in engine.market(BUY, 4).executions] == [2, 2]
    assert engine.orders_at(SELL, 101) == [(second, 3), (third, 5)]


def test_a_market_order_never_waits() -> None:
    """What the book cannot fill of a market order is cancelled, all of it when the book is empty."""
    engine = MatchingEngine()
    assert engine.market(BUY, 4) == Outcome(1, (), frozenset(), resting=0, cancelled=4)
    engine.limit(SELL, 101, 3)
    outcome = engine.market(BUY, 10)
    assert (outcome.resting, outcome.cancelled) == (0, 7)
    assert engine.best(BUY) is None
    assert engine.best(SELL) is None


def test_a_cancel_takes_out_what_is_left() -> None:
    """An order leaves its level, the last order takes the level along, and a second cancel changes nothing."""
    engine = MatchingEngine()
    first = engine.limit(BUY, 100, 5).order
    second = engine.limit(BUY, 100, 6).order
    engine.market(SELL, 2)
    assert engine.cancel(first) == Outcome(first, (), frozenset({(BUY, 100)}), cancelled=3)
    assert engine.quantity_at(BUY, 100) == 6
    assert engine.cancel(first) == Outcome(first, (), frozenset())
    engine.cancel(second)
    assert engine.levels(BUY) == []
    assert engine.quantity_at(BUY, 100) == 0
    assert engine.orders_at(BUY, 100) == []


@pytest.mark.parametrize(("price", "quantity"), [(0, 1), (-1, 1), (1, 0), (1, -1)])
def test_an_order_needs_a_price_and_a_quantity_above_zero(price: int, quantity: int) -> None:
    """A bad order is refused, and leaves no trace."""
    engine = MatchingEngine()
    with pytest.raises(BadOrder, match="expected 1 or more"):
        engine.limit(BUY, price, quantity)
    with pytest.raises(BadOrder, match="expected 1 or more"):
        engine.market(BUY, min(quantity, 0))
    assert engine.waiting == 0
    assert engine.limit(BUY, 1, 1).order == 1


# Any orders at all.


@dataclass
class Waiting:
    order: int
    side: Side
    price: int
    left: int


class Reference:
    """The same market as a list of orders, searched from end to end for each execution."""

    def __init__(self) -> None:
        self.waiting: list[Waiting] = []
        self.executions = 0

    def accept(self, order: int, side: Side, price: int | None, quantity: int) -> list[Execution]:
        found = []
        while quantity:
            against = [
                other
                for other in self.waiting
                if other.side is not side
                and (price is None or (other.price <= price if side is BUY else other.price >= price))
            ]
            if not against:
                break
            best = min(against, key=lambda other: (other.price if side is BUY else -other.price, other.order))
            taken = min(best.left, quantity)
            self.executions += 1
            found.append(Execution(self.executions, best.side is BUY, best.price, taken))
            quantity -= taken
            best.left -= taken
            if not best.left:
                self.waiting.remove(best)
        if quantity and price is not None:
            self.waiting.append(Waiting(order, side, price, quantity))
        return found

    def cancel(self, order: int) -> int:
        left = sum(other.left for other in self.waiting if other.order == order)
        self.waiting = [other for other in self.waiting if other.order != order]
        return left

    def orders_at(self, side: Side, price: int) -> list[tuple[int, int]]:
        return [(other.order, other.left) for other in self.waiting if (other.side, other.price) == (side, price)]

    def levels(self, side: Side) -> list[tuple[int, int]]:
        prices = sorted({other.price for other in self.waiting if other.side is side}, reverse=side is BUY)
        return [(price, sum(left for _, left in self.orders_at(side, price))) for price in prices]


sides = st.sampled_from(Side)
prices = st.integers(1, 12)
quantities = st.integers(1, 15)
commands = st.lists(
    st.one_of(
        st.tuples(st.just("limit"), sides, prices, quantities),
        st.tuples(st.just("market"), sides, st.none(), quantities),
        st.tuples(st.just("cancel"), sides, st.none(), st.integers(1, 40)),
    ),
    max_size=60,
)


def do(engine: MatchingEngine, command: tuple[str, Side, int | None, int]) -> Outcome:
    verb, side, price, number = command
    if verb == "cancel":
        return engine.cancel(number)
    return engine.market(side, number) if price is None else engine.limit(side, price, number)


@settings(deadline=None)
@given(commands)
def test_price_and_time_decide_as_in_the_reference(given_commands: list[tuple[str, Side, int | None, int]]) -> None:
    """Executions, levels and the queue at every price are those of the naive market."""
    engine, reference = MatchingEngine(), Reference()
    for command in given_commands:
        verb, side, price, number = command
        outcome = do(engine, command)
        if verb == "cancel":
            assert outcome.cancelled == reference.cancel(number)
        else:
            assert list(outcome.executions) == reference.accept(outcome.order, side, price, number)
        for book_side in Side:
            assert engine.levels(book_side) == reference.levels(book_side)
            for level, _ in engine.levels(book_side):
                assert engine.orders_at(book_side, level) == reference.orders_at(book_side, level)
        assert engine.waiting == len(reference.waiting)


@settings(deadline=None)
@given(commands)
def test_the_book_is_sound_and_nothing_is_lost(given_commands: list[tuple[str, Side, int | None, int]]) -> None:
    """Never crossed, nothing below one lot, `changed` is exact, and every lot that was ordered is accounted for."""
    engine = MatchingEngine()
    ordered = executed = cancelled = 0
    for command in given_commands:
        before = {(side, price): quantity for side in Side for price, quantity in engine.levels(side)}
        outcome = do(engine, command)
        after = {(side, price): quantity for side in Side for price, quantity in engine.levels(side)}
        bid, ask = engine.best(BUY), engine.best(SELL)
        assert bid is None or ask is None or bid < ask
        assert all(quantity > 0 for quantity in after.values())
        assert outcome.changed == {place for place in before | after if before.get(place) != after.get(place)}
        lots = sum(execution.quantity for execution in outcome.executions)
        if command[0] != "cancel":
            assert lots + outcome.resting + outcome.cancelled == command[3]
            ordered += command[3]
        executed += lots
        cancelled += outcome.cancelled
        assert ordered == 2 * executed + sum(after.values()) + cancelled


# Decimals.


@pytest.mark.parametrize(
    ("increment", "decimal", "count"),
    [
        ("0.05", "1000.50", 20010),
        ("0.05", "0.05", 1),
        ("0.05", "0.00", 0),
        ("1", "10", 10),
        ("0.0001", "12.5000", 125000),
        ("100.00", "5412000.00", 54120),
        ("25", "1000", 40),
    ],
)
def test_decimals_are_whole_increments_inside(increment: str, decimal: str, count: int) -> None:
    """A decimal is read as a count of increments, and written with the increment's places."""
    assert Increment.parse(increment).read(decimal) == count
    assert Increment.parse(increment).write(count) == decimal


def test_decimals_may_be_read_with_other_places() -> None:
    """Missing and needless zeros do not matter."""
    tick = Increment.parse("0.05")
    assert tick.read("7") == tick.read("7.0") == tick.read("07.0000") == 140


@pytest.mark.parametrize("text", ["0.01", "1000.51", "0.051", "", "-1", "1e3", "1.", ".5", "NaN", "\u0661"])
def test_what_is_no_multiple_of_the_increment_is_refused(text: str) -> None:
    """Nothing is rounded."""
    with pytest.raises(BadOrder, match="not a"):
        Increment.parse("0.05").read(text)


@pytest.mark.parametrize("text", ["0", "0.00", "-0.05", "", "a"])
def test_an_increment_is_above_zero(text: str) -> None:
    """An increment of nothing is refused."""
    with pytest.raises(BadOrder, match="not a decimal above zero"):
        Increment.parse(text)


@settings(deadline=None)
@given(st.integers(1, 10**6), st.integers(0, 8), st.integers(0, 10**12))
def test_what_is_written_is_exact(units: int, places: int, count: int) -> None:
    """Written and read again a count is the same, and the text is that very decimal."""
    increment = Increment(units, places)
    text = increment.write(count)
    assert Decimal(text) == Decimal(count * units).scaleb(-places)
    assert increment.read(text) == count
