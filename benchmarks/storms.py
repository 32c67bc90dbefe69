"""The days that are simulated: a zone of the planned fleet is lost, or drained. Data, and what makes it of a plan."""

from __future__ import annotations

import math

import msgspec

from benchmarks.cost import Cost
from benchmarks.fleet import AT_ONCE, DOCUMENTED, Policy, Storm, drain, loss, run_storm
from benchmarks.plan import Plan

__all__ = ["SCENARIOS", "Scenario", "storms"]

_DOOR = 20_000.0
"""Clients a second that the balancers of two zones let in where TLS is what they can do just so much of."""
_SPREAD = Policy(30.0, 1.0, 30.0, 0.0)


class Scenario(msgspec.Struct, frozen=True):
    """`policy`: how clients wait; `drained`: over how many seconds they are sent away, None: the zone is just gone;
    `heeds`: whether they come when they were told to. `headroom`: `--max-connections`, by what a worker has without a
    zone.
    """

    key: str
    title: str
    policy: Policy
    drained: float | None = None
    heeds: bool = True
    door: float = math.inf
    headroom: float = 1.2


SCENARIOS = (
    Scenario("loss-naive", "lost; clients come at once", AT_ONCE),
    Scenario("loss-documented", "lost; the pause of the protocol", DOCUMENTED),
    Scenario("loss-full", "lost; the pause of the protocol; `--max-connections` too low", DOCUMENTED, headroom=0.9),
    Scenario("narrow-naive", "narrow doors; lost; clients come at once", AT_ONCE, door=_DOOR),
    Scenario("narrow-documented", "narrow doors; lost; the pause of the protocol", DOCUMENTED, door=_DOOR),
    Scenario("narrow-spread", "narrow doors; lost; a first pause of up to 30 s", _SPREAD, door=_DOOR),
    Scenario("drain-naive", "narrow doors; drained in 20 s; hint ignored", AT_ONCE, 20.0, heeds=False, door=_DOOR),
    Scenario("drain-hint", "narrow doors; drained in 20 s; hint heeded", DOCUMENTED, 20.0, door=_DOOR),
    Scenario("short-naive", "narrow doors; drained in 2 s; hint ignored", AT_ONCE, 2.0, heeds=False, door=_DOOR),
    Scenario("short-hint", "narrow doors; drained in 2 s; hint heeded", DOCUMENTED, 2.0, door=_DOOR),
)


def storms(cost: Cost, plan: Plan, seconds: float = 90.0) -> dict[str, Storm]:
    """What becomes of each."""
    return {each.key: _storm(cost, plan, each, seconds) for each in SCENARIOS}


def _storm(cost: Cost, plan: Plan, scenario: Scenario, seconds: float) -> Storm:
    fleet = plan.fleet(round(plan.clients_without_a_zone * scenario.headroom), scenario.door)
    if scenario.drained is None:
        first = loss(scenario.policy)
    else:
        first = drain(scenario.drained, None if scenario.heeds else scenario.policy)
    return run_storm(cost, fleet, first, scenario.policy, seconds=seconds)
