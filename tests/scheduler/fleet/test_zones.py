"""One machine, many zones: never late, never cheaper than the optimum, and no moving about for nothing."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.fleet.jobs import Job, Mode
from scheduler.fleet.ladder import Ladder, pooled
from scheduler.fleet.optimum import optimum, optimum_of_zones
from scheduler.fleet.survival import BUCKETS, Survival
from scheduler.fleet.zones import IDLE, Market, Option, Sightings, Situation, Zone
from scheduler.fleet.zones_policies import (
    PROBE_SHARE,
    ZONES_POLICIES,
    SkyNomad,
    SwitchOnPreemption,
    TableZones,
)
from scheduler.fleet.zones_replay import _after, fallback, is_safe_option, ride

NAMES = ("a", "b", "c")
FALLING = np.geomspace(0.3, 0.01, BUCKETS)
SURVIVAL = Survival(run_hazards=FALLING, outage_hazards=FALLING[::-1].copy())
SURVIVALS = dict.fromkeys(NAMES, SURVIVAL)
MARKET = Market(
    zones=(
        Zone(name="a", region="north", spot_price=1.0, on_demand_price=5.0),
        Zone(name="b", region="north", spot_price=1.3, on_demand_price=5.0),
        Zone(name="c", region="south", spot_price=0.8, on_demand_price=4.0),
    ),
    egress_cost=0.05,
)
JOB = MARKET.job(work_seconds=12 * 600.0, deadline_seconds=24 * 600.0, tick_seconds=600.0, startup_seconds=720.0)
LADDER = Ladder.of(JOB, MARKET, SURVIVALS)
TRACES = st.tuples(*(st.lists(st.booleans(), min_size=24, max_size=24) for _ in NAMES))


def made(policy: type, job: Job = JOB) -> object:
    found = policy(job=job, market=MARKET, survivals=SURVIVALS)
    if isinstance(found, TableZones) and job is JOB:
        found.ladder = LADDER
    return found


@settings(max_examples=40, deadline=None)
@given(traces=TRACES, policy=st.sampled_from(ZONES_POLICIES))
def test_no_policy_is_late_or_beats_the_optimum_whatever_zones_do(traces: tuple[list[bool], ...], policy: type) -> None:
    available = {name: np.array(trace) for name, trace in zip(NAMES, traces, strict=True)}

    found = ride(JOB, MARKET, made(policy), available)

    assert not found.is_late
    assert found.cost >= optimum_of_zones(JOB, MARKET, available) - 1e-6
    assert found.probe_cost <= found.cost


@settings(max_examples=10, deadline=None)
@given(
    traces=st.tuples(*(st.lists(st.booleans(), min_size=5, max_size=5) for _ in NAMES)),
    startup=st.sampled_from([0.0, 300.0, 720.0]),
)
def test_the_optimum_of_zones_is_the_best_of_all_that_could_have_been_done(
    traces: tuple[list[bool], ...], startup: float
) -> None:
    market = replace(MARKET, zones=(MARKET.zones[0], MARKET.zones[2]))
    job = market.job(work_seconds=1200.0, deadline_seconds=5 * 600.0, tick_seconds=600.0, startup_seconds=startup)
    available = {name: np.array(trace) for name, trace in zip(NAMES, traces, strict=True)}

    assert optimum_of_zones(job, market, available) == pytest.approx(_brute_force(job, market, available))


def _brute_force(job: Job, market: Market, available: dict[str, np.ndarray]) -> float:
    options = [IDLE, *(Option(mode, zone.name) for mode in (Mode.SPOT, Mode.ON_DEMAND) for zone in market.zones)]
    least = math.inf
    for choices in itertools.product(options, repeat=job.ticks):
        now, cost = Situation(tick=0, work_left_seconds=job.work_seconds), 0.0
        for tick, choice in enumerate(choices):
            if choice.mode is Mode.SPOT and not available[choice.zone or ""][tick]:
                break
            if choice.zone is not None:
                zone = market.zone(choice.zone)
                cost += (zone.spot_price if choice.mode is Mode.SPOT else zone.on_demand_price) / 6
                cost += market.egress(now.held_in, zone.region) if choice != now.running else 0.0
            now = _after(job, market, now, choice)
            if now.work_left_seconds <= 0:
                least = min(least, cost)
                break
    return least


def test_one_zone_is_the_case_of_one_zone() -> None:
    market = replace(MARKET, zones=MARKET.zones[:1])
    trace = np.random.default_rng(1).random(24) < 0.6
    job = market.job(work_seconds=7200.0, deadline_seconds=14400.0, tick_seconds=600.0, startup_seconds=720.0)

    assert optimum_of_zones(job, market, {"a": trace}) == pytest.approx(optimum(job, trace))


def test_data_that_is_there_already_costs_nothing_to_bring() -> None:
    assert MARKET.egress("north", "south") == 0.05
    assert MARKET.egress("north", "north") == MARKET.egress(None, "south") == 0.0
    assert replace(MARKET, present_regions=frozenset({"south"})).egress("north", "south") == 0.0
    assert replace(MARKET, egress_costs={("north", "south"): 0.4}).egress("north", "south") == 0.4


def test_a_market_names_each_zone_once() -> None:
    with pytest.raises(ValueError, match="each once"):
        Market(zones=(MARKET.zones[0], MARKET.zones[0]))


def test_a_machine_is_not_left_for_one_that_is_hardly_cheaper_or_before_it_has_worked() -> None:
    running = Option(Mode.SPOT, "b")
    old = Situation(tick=6, work_left_seconds=5000.0, running=running, held_in="north", dwell_ticks=6)
    policy, far = made(TableZones), made(TableZones)
    assert isinstance(policy, TableZones)
    assert isinstance(far, TableZones)
    far.market = replace(MARKET, egress_cost=50.0)
    young = replace(old, dwell_ticks=1)

    # Egress decides about c, and what is saved in what is left about a.
    assert [option.zone for option in far.plan(old).options if option.zone == "c"] == []
    assert policy.plan(young).options == (running,)


def test_waiting_ends_where_slack_must_be_kept_for_losses() -> None:
    policy = made(TableZones)
    assert isinstance(policy, TableZones)
    short = Situation(tick=8, work_left_seconds=12 * 600.0, held_in="north")

    assert policy._may_spend(replace(short, tick=0), 600.0)
    assert not policy._may_spend(short, 600.0)
    # Whatever it costs there: all zones are tried before on demand is.
    assert {option.zone for option in policy.plan(short).options if option.mode is Mode.SPOT} == set(NAMES)


def test_probes_stay_within_their_budget() -> None:
    policy = made(TableZones)
    assert isinstance(policy, TableZones)
    now = Situation(tick=5, work_left_seconds=7000.0)

    policy.spent = 0.5
    assert policy._probes(now, MARKET.zones) == ()
    policy.spent = 2.0
    assert policy._probes(now, MARKET.zones) == ("c",)
    assert policy._probes(now, MARKET.zones) == ()

    drawn = np.random.default_rng(4)
    for seed in range(6):
        available = {name: drawn.random(24) < 0.4 + 0.1 * (seed % 3) for name in NAMES}
        found = ride(JOB, MARKET, made(TableZones), available)
        assert found.probe_cost <= PROBE_SHARE * found.cost


def test_what_is_lost_is_started_elsewhere_first_and_cheapest_first() -> None:
    policy = made(SwitchOnPreemption)
    assert isinstance(policy, SwitchOnPreemption)
    now = Situation(tick=3, work_left_seconds=7000.0, held_in="south")

    assert [option.zone for option in policy.plan(now).options[:3]] == ["a", "b", "c"]


def test_skynomad_keeps_what_runs_rather_than_nothing_and_pays_on_demand_when_behind() -> None:
    policy = made(SkyNomad)
    assert isinstance(policy, SkyNomad)
    ahead = Situation(tick=12, work_left_seconds=300.0, running=Option(Mode.SPOT, "b"), held_in="north", dwell_ticks=12)
    behind = Situation(tick=12, work_left_seconds=11 * 600.0, held_in="north")

    assert IDLE not in policy.plan(ahead).options
    assert Option(Mode.ON_DEMAND, "c") in policy.plan(behind).options


def test_on_demand_is_rented_where_it_costs_least_with_the_data_brought_along() -> None:
    long = Situation(tick=0, work_left_seconds=7200.0, held_in="north")

    assert fallback(MARKET, long).zone == "c"
    assert fallback(MARKET, replace(long, work_left_seconds=60.0)).zone == "a"


def test_another_machine_on_demand_is_no_way_out_when_there_is_no_time_to_start_it() -> None:
    late = Situation(tick=12, work_left_seconds=12 * 600.0, running=Option(Mode.ON_DEMAND, "c"), held_in="south")

    assert is_safe_option(JOB, late, Option(Mode.ON_DEMAND, "c"))
    assert not is_safe_option(JOB, late, Option(Mode.ON_DEMAND, "a"))


def test_sightings_put_a_change_half_way_between_two_looks() -> None:
    seen = Sightings()
    seen.observe(4, is_available=False)
    seen.observe(10, is_available=True)

    assert seen.since_tick == 7
    assert seen.age_ticks(12) == 6
    seen.observe(10, is_available=False)
    assert seen.is_available


def test_zones_together_are_there_more_often_and_cost_the_mean_of_the_cheapest_there() -> None:
    job, survival = pooled(JOB, sorted(MARKET.zones, key=lambda zone: zone.spot_price), SURVIVALS)

    assert 0.8 < job.spot_price < 1.3
    assert survival.availability > SURVIVAL.availability
    assert 0 < survival.elsewhere < 1
