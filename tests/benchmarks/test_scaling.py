"""From measurements to a plan: the model, the simulations, and what docs/scaling.md says of them."""

from __future__ import annotations

import random
from statistics import median
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import plots, scaling, simulate
from benchmarks.cost import Cost, Events, RedisCost, fit, fit_redis, residuals
from benchmarks.fleet import AT_ONCE, DOCUMENTED, Fleet, Policy, Storm, drain, loss, run_storm
from benchmarks.forecast import TOLERANCE, forecast, forecasts
from benchmarks.loads import LOADS, Load
from benchmarks.measured import Measured, RedisMeasured, Scaling
from benchmarks.node import Traffic, bench_traffic, popular_traffic, run_node
from benchmarks.plan import Demand, plan_for
from benchmarks.scaling_tables import Findings, filled, tables
from benchmarks.storms import SCENARIOS, storms

COST = Cost(
    wake=60.0,
    cool=0.5,
    flush=40.0,
    publication=5.0,
    write=5.0,
    full=3.0,
    delivery=0.2,
    byte=0.0005,
    level=0.5,
    client=2.0,
    second=3000.0,
    connect=120.0,
    subscription=4.0,
    resident=60_000.0,
    client_kib=2.0,
    subscription_kib=0.2,
)
REDIS = RedisCost(1.0, 0.5)
DEMAND = Demand("a small one", clients=20_000, rate=2000.0, streams=100)
SVG = "{http://www.w3.org/2000/svg}"


def measured(load: Load, cost: Cost) -> Measured:
    """What a machine measures on which everything costs exactly that, with one message in a write, or with several."""
    published = load.rate or float(10 * (load.window or 0))
    audience = load.clients * load.per_client / load.streams
    writes = published * audience / (1 if load.window is None else 2 + load.window % 50)
    flushes = published if load.window is None else 10.0
    deliveries = published * audience
    size = 140.0 + load.payload
    levels = published * 2 * load.levels
    wakes = 0.0 if load.rate is None else flushes
    cpu = 0.0
    for _ in range(50):  # what it costs to wake up depends on how long there was nothing to do
        idle = max(1 - cpu, 0.0) / wakes * 1000 if wakes else 0.0
        cpu = cost.cpu(
            Events(wakes, idle, flushes, published, writes, deliveries, deliveries * size, levels, load.clients)
        )
    grown = load.clients * (cost.client_kib + load.per_client * cost.subscription_kib)
    return Measured(
        load=load.key,
        round_number=1,
        workers=None,
        cpu=cpu,
        published=published,
        deliveries=deliveries,
        bytes_sent=deliveries * size,
        flushes=flushes,
        writes=writes,
        wakes=wakes,
        disturbed=0.0,
        p50=1.0,
        p99=2.0,
        generator_busy=0.5,
        connect_cpu=cost.connect_cpu(load.per_client),
        resident_before=int(cost.resident),
        resident_connected=int(cost.resident + grown),
        is_faultless=True,
    )


def made_up(cost: Cost = COST) -> Scaling:
    redis = [
        RedisMeasured(many, each, REDIS.publication + REDIS.subscriber * many, 160)
        for many in (1, 4, 16)
        for each in (1, 100)
    ]
    return Scaling(
        "2026-11-28", {"Processor": "one"}, {"CPython": "3.11.7"}, True, [measured(load, cost) for load in LOADS], redis
    )


@pytest.fixture(scope="module")
def kept() -> Scaling:
    """The measurements that are in the repository."""
    return Scaling.load(scaling.RESULTS)


@pytest.fixture(scope="module")
def findings() -> Findings:
    """All that follows from measurements that are made up, for a small demand."""
    plan = plan_for(COST, REDIS, REDIS, DEMAND)
    return Findings(made_up(), COST, REDIS, forecasts(made_up(), COST), [plan], storms(COST, plan, seconds=20.0))


class TestLoads:
    def test_each_has_a_name_of_its_own(self) -> None:
        assert len({load.key for load in LOADS}) == len(LOADS)

    @pytest.mark.parametrize("load", LOADS, ids=lambda load: load.key)
    def test_flushes_can_be_counted_where_the_model_is_fitted(self, load: Load) -> None:
        """The daemon looks at one flush a millisecond."""
        assert load.is_checked or load.rate is None or load.rate <= 400 or load.wakes_for_each

    def test_workers_are_numbers(self, capsys: pytest.CaptureFixture[str]) -> None:
        for text in ("0", "1,", "two"):
            with pytest.raises(SystemExit):
                scaling.main(["--workers", text])
            assert "expected numbers such as 1,2" in capsys.readouterr().err


class TestModel:
    def test_what_everything_costs_is_found_again(self) -> None:
        """From loads that differ in what happens."""
        found = fit(made_up())
        for name in Cost.__struct_fields__:
            assert getattr(found, name) == pytest.approx(getattr(COST, name), rel=0.02), name
        assert max(abs(each.error) for each in residuals(made_up(), found)) < 0.01

    def test_nothing_costs_less_than_nothing(self) -> None:
        """What does not show in the measurements is left out."""
        wrong = msgspec.structs.replace(COST, second=0.0, level=0.0)
        runs = [
            msgspec.structs.replace(run, cpu=run.cpu * (0.97 if run.deliveries > 1e5 else 1))
            for run in made_up(wrong).runs
        ]
        found = fit(msgspec.structs.replace(made_up(), runs=runs))
        assert min(getattr(found, name) for name in Cost.__struct_fields__) >= 0

    def test_a_load_that_is_missing_is_named(self) -> None:
        runs = [run for run in made_up().runs if run.load != "few-1"]
        with pytest.raises(ValueError, match="few-1"):
            fit(msgspec.structs.replace(made_up(), runs=runs))

    def test_a_middle_is_that_of_each_figure(self) -> None:
        run = measured(LOADS[0], COST)
        rounds = [msgspec.structs.replace(run, cpu=cpu, p50=p50) for cpu, p50 in ((0.3, 1.0), (0.1, 3.0), (0.2, 2.0))]
        middle = msgspec.structs.replace(made_up(), runs=rounds).middle(run.load)
        assert middle is not None
        assert (middle.cpu, middle.p50, middle.is_faultless) == (0.2, 2.0, True)

    def test_redis(self) -> None:
        found = fit_redis(made_up(), 100)
        assert (found.publication, found.subscriber) == (pytest.approx(1.0), pytest.approx(0.5))
        assert found.cpu(100_000, 10) == pytest.approx(0.6)


class TestNode:
    def test_alone_each_publication_is_a_flush(self) -> None:
        outcome = run_node(COST, bench_traffic(Load("", 100, rate=50), 140.0, 2.0), 2.0)
        each = 60 + 40 + 5 + 100 * (5 + 0.2 + 140 * 0.0005)
        assert outcome.writes == outcome.deliveries == pytest.approx(5000)
        assert (outcome.p50, outcome.p99) == (pytest.approx(each / 1000, rel=0.02),) * 2
        assert outcome.cpu == pytest.approx((each * 50 + 3000 + 2 * 100) / 1e6, rel=0.01)

    def test_who_has_more_to_do_writes_less_often(self) -> None:
        """Beyond what can be sent by itself, messages go together, and nothing falls behind."""
        some, many = (run_node(COST, bench_traffic(Load("", 1000, rate=rate), 140.0, 2.0), 2.0) for rate in (50, 1000))
        assert some.deliveries == some.writes
        assert many.deliveries > 4 * many.writes
        assert many.cpu_per_delivery < some.cpu_per_delivery / 3
        assert not many.is_behind

    def test_what_cannot_be_read_is_seen(self) -> None:
        outcome = run_node(COST, bench_traffic(Load("", 1000, rate=20_000), 140.0, 1.0), 1.0)
        assert outcome.is_behind
        assert outcome.cpu > 0.99

    def test_a_turn_takes_one_read(self) -> None:
        """However much waits: 256 KiB of Redis' protocol, so that more clients make it fall behind."""
        loads = [Load("", clients, streams=100, rate=20_000) for clients in (500, 8000)]
        few, many = (run_node(COST, bench_traffic(load, 143.0, 1.0), 1.0) for load in loads)
        assert not few.is_behind
        assert many.is_behind
        assert many.published / many.flushes < 256 * 1024 / 170

    def test_a_closed_loop_is_always_busy(self) -> None:
        outcome = run_node(COST, bench_traffic(Load("", 500, window=32), 140.0, 1.0), 1.0)
        assert outcome.cpu == pytest.approx(1.0)
        assert outcome.deliveries / outcome.writes == pytest.approx(32)

    @given(
        st.integers(1, 60),
        st.integers(1, 20),
        st.integers(1, 5),
        st.floats(1, 3000),
        st.floats(0, 1.5),
        st.integers(1, 9),
    )
    def test_nothing_is_lost_or_sent_twice(
        self, clients: int, streams: int, per_client: int, rate: float, skew: float, seed: int
    ) -> None:
        """Whatever comes goes to each who watches it, in no more writes than messages; the same seed, the same day."""
        traffic = popular_traffic(clients, streams, per_client, rate, skew, 110, 0.2, seed)
        assert traffic.arrivals is not None
        assert sum(map(len, traffic.audiences)) == clients * min(per_client, streams)
        outcome = run_node(COST, traffic, 10.0)
        wanted = sum(len(traffic.audiences[stream]) for _, stream in traffic.arrivals)
        assert outcome.deliveries * 10 == pytest.approx(wanted)
        assert outcome.writes <= outcome.deliveries
        assert 0 <= outcome.p50 <= outcome.p99
        assert traffic == popular_traffic(clients, streams, per_client, rate, skew, 110, 0.2, seed)

    def test_nothing_comes(self) -> None:
        outcome = run_node(COST, Traffic(10, [[]], 140.0, arrivals=[]), 1.0)
        assert (outcome.deliveries, outcome.p99) == (0, 0)
        assert outcome.cpu == pytest.approx((3000 + 20) / 1e6)


def fleet(**changes: float) -> Fleet:
    small = Fleet(
        clients=6000,
        workers=6,
        zones=3,
        per_client=5,
        messages=5.0,
        published=100.0,
        size=140.0,
        max_connections=2000,
    )
    return msgspec.structs.replace(small, **changes)


def storm(first: Policy | float, policy: Policy = DOCUMENTED, **changes: float) -> Storm:
    """After a loss, or over a drain of so many seconds."""
    begins = loss(first) if isinstance(first, Policy) else drain(first, None)
    return run_storm(COST, fleet(**changes), begins, policy, seconds=40.0)


class TestForecast:
    def test_what_the_load_decides_is_as_it_was_measured(self) -> None:
        """How many publications come together: by the flushes where all were counted, or else by the awakenings."""
        run = measured(LOADS[0], COST)
        hot = msgspec.structs.replace(run, published=300.0, flushes=50.0, writes=50_000.0, deliveries=3e5, wakes=20.0)
        assert forecast(COST, Load("", 1000, rate=300), hot).simulated.flushes == pytest.approx(50, rel=0.05)
        few = msgspec.structs.replace(
            run, published=2000.0, flushes=300.0, writes=600.0, deliveries=4000.0, wakes=500.0
        )
        wanted = forecast(COST, Load("", 20, streams=10, rate=2000), few).simulated
        assert wanted.flushes == pytest.approx(500, rel=0.05)

    def test_a_closed_loop_has_as_many_under_way(self) -> None:
        run = measured(LOADS[0], COST)
        closed = msgspec.structs.replace(run, published=800.0, flushes=20.0, writes=10_000.0, deliveries=4e5)
        said = forecast(COST, Load("", 500, window=32), closed).simulated
        assert said.deliveries / said.writes == pytest.approx(40)


class TestStorm:
    @pytest.mark.parametrize("policy", [AT_ONCE, DOCUMENTED])
    def test_everybody_comes_back(self, policy: Policy) -> None:
        found = storm(policy, policy)
        assert (found.lost, found.back[-1]) == (2000, 2000)
        assert (found.refused, found.given_up, found.unheard) == (0, 0, 0)
        assert sum(found.attempts) == 2000
        half, last = found.time_of(0.5), found.time_of(1.0)
        assert half is not None
        assert last is not None
        assert half <= last

    def test_the_same_seed_is_the_same_storm(self) -> None:
        assert storm(DOCUMENTED) == storm(DOCUMENTED)

    def test_pauses_and_hints_flatten_it(self) -> None:
        at_once, paused, hinted = storm(AT_ONCE, AT_ONCE), storm(DOCUMENTED), storm(20.0)
        assert hinted.peak < paused.peak / 5
        assert hinted.longest_turn < paused.longest_turn < at_once.longest_turn

    def test_who_finds_no_room_never_comes_back(self) -> None:
        """And asks less and less often."""
        full = storm(DOCUMENTED, max_connections=1200)
        assert full.back[-1] == 4 * 200
        assert full.time_of(1.0) is None
        assert full.refused > 0
        assert sum(full.attempts[-100:]) < sum(full.attempts[:100])

    def test_a_port_that_is_full_hears_nobody(self) -> None:
        """More than wait at a port come at once, to workers that are slow; they are heard later."""
        found = storm(AT_ONCE, AT_ONCE, clients=60_000, max_connections=20_000)
        assert found.unheard > 0
        assert found.back[-1] == 20_000

    def test_who_waits_for_too_long_gives_up(self) -> None:
        """And comes back. At doors that are narrow, who does not wait keeps everybody out for longer."""
        at_once, paused = (storm(policy, policy, patience=2.0, door=400.0) for policy in (AT_ONCE, DOCUMENTED))
        assert at_once.given_up > paused.given_up > 0
        assert sum(at_once.attempts) > 1.5 * sum(paused.attempts)

    def test_a_worker_works_in_vain_for_who_has_gone(self) -> None:
        """Who waited at its port for too long."""
        assert storm(AT_ONCE, AT_ONCE, patience=0.05, clients=60_000, max_connections=20_000).given_up > 0

    def test_waits(self) -> None:
        """The protocol's: 250 to 500 ms, then up to 1 s, 2 s, and so on to 30 s."""
        source = random.Random(1)
        for failures, most in enumerate((0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0)):
            waits = [DOCUMENTED.wait(failures, source) for _ in range(200)]
            assert most / 2 <= min(waits) <= max(waits) <= most
        assert [AT_ONCE.wait(failures, source) for failures in range(4)] == [0.0, 1.0, 1.0, 1.0]


class TestPlan:
    def test_it_holds_without_a_zone(self) -> None:
        demand = msgspec.structs.replace(DEMAND, clients=500_000)
        plan = plan_for(COST, REDIS, REDIS, demand)
        assert plan.workers % demand.zones == 0
        assert plan.workers * 2 / 3 * plan.clients_without_a_zone >= demand.clients
        assert plan.without_a_zone.p99 <= DEMAND.late_ms
        assert plan.usual.p99 <= plan.without_a_zone.p99
        assert plan.messages == pytest.approx(5 * 2000 / 100, rel=0.05)

    def test_groups_read_less(self) -> None:
        grouped = plan_for(COST, REDIS, REDIS, msgspec.structs.replace(DEMAND, groups=10))
        assert grouped.usual.published == pytest.approx(200, rel=0.05)
        assert grouped.redis_egress < plan_for(COST, REDIS, REDIS, DEMAND).redis_egress / 5

    def test_what_cannot_be_read_is_no_plan(self) -> None:
        with pytest.raises(ValueError, match="a small one"):
            plan_for(COST, REDIS, REDIS, msgspec.structs.replace(DEMAND, rate=300_000.0))


class TestPage:
    def test_a_page_is_filled_between_its_marks(self, findings: Findings) -> None:
        page = "".join(
            f"# {name}\n<!-- {name}: made by a command -->\nold\n<!-- end -->\n" for name in tables(findings)
        )
        done = filled(page, findings)
        for name, text in tables(findings).items():
            assert f"# {name}\n<!-- {name}: made by a command -->\n{text}<!-- end -->" in done
        assert filled(done, findings) == done

    def test_a_table_without_a_place_is_named(self, findings: Findings) -> None:
        with pytest.raises(ValueError, match="measured"):
            filled("# Scaling\n", findings)

    def test_every_table_is_one(self, findings: Findings) -> None:
        """As many cells in each row."""
        for text in tables(findings).values():
            assert len({line.count("|") for line in text.splitlines()}) == 1

    def test_plots_are_drawn_and_the_same_again(self, findings: Findings) -> None:
        drawn = plots.draw(findings)
        for name, picture in drawn.items():
            assert ElementTree.fromstring(picture).tag == f"{SVG}svg", name
        assert plots.draw(findings) == drawn

    def test_every_scenario_is_told(self, findings: Findings) -> None:
        assert all(f"| {scenario.title} |" in tables(findings)["storms"] for scenario in SCENARIOS)


class TestWhatIsKept:
    """The measurements of the repository, and what the documentation says of them."""

    def test_everything_arrived(self, kept: Scaling) -> None:
        assert [run.load for run in kept.runs if not run.is_faultless] == []
        assert {run.load for run in kept.runs} == {load.key for load in LOADS}

    def test_the_simulation_foretells_what_was_measured(self, kept: Scaling) -> None:
        """Of loads that the model is not fitted to, which is what makes it worth anything for those not measured."""
        found = forecasts(kept, fit(kept))
        assert {each.load.key for each in found} == {load.key for load in LOADS if load.is_checked}
        assert {each.load.key: each.error for each in found if abs(each.error) > TOLERANCE} == {}

    def test_the_model_fits(self, kept: Scaling) -> None:
        errors = [abs(each.error) for each in residuals(kept, fit(kept))]
        assert median(errors) <= 0.1
        assert max(errors) <= 0.35

    def test_the_page_says_what_follows(self, kept: Scaling) -> None:
        """Its tables are those that the command writes, of measurements, model and forecasts."""
        page = simulate.PAGE.read_text(encoding="utf-8")
        assert kept.date in page
        cost, redis = fit(kept), fit_redis(kept, 100)
        told = tables(
            Findings(kept, cost, redis, forecasts(kept, cost), [], {}),
            only=("measured", "memory", "costs", "forecasts", "redis", "where"),
        )
        for name, text in told.items():
            assert text in page, name
