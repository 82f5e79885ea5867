"""The fleet's policies: never late on demand, never above a limit, never a machine for nothing, and no churn.

`test_a_broken_rule_is_found_out` breaks rules one by one and sees these very checks fail.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.costs.prices import Market
from pipeline.domain.lifecycle import WorkerState
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import WorkSize
from pipeline.ports.fleet import ExpectedWork, FleetPlan, FleetReason, FleetView, UnitPace
from scheduler.fleet import pool_needs, sizing
from scheduler.fleet.nightrate import NightrateFleet
from scheduler.fleet.offers import Purse
from scheduler.fleet.policies import DEFAULT_FLEET_POLICY, FLEET_POLICIES
from scheduler.fleet.terms import FleetTerms, IdleRule, SpotRule
from tests.scheduler.fleet.fleet_world import (
    HOUR,
    ON_DEMAND_MICROS,
    US,
    World,
    applied,
    fleet_view,
    pool_kind,
    spot_offer,
    standing,
    steady_offer,
    work_class,
)

#: Coarse tables, so that building them takes no time; a world without packs needs no margin.
TERMS = FleetTerms(margin_seconds=0.0, horizon_seconds=4 * HOUR, tick_seconds=600.0)
BY_RULE = {rule: NightrateFleet(replace(TERMS, spot_rule=rule)) for rule in SpotRule}


def fresh(rule: SpotRule = SpotRule.DECISION_TABLE, **changes: object) -> NightrateFleet:
    """Return a policy without memory, with the tables that others have built."""
    made = NightrateFleet(replace(TERMS, spot_rule=rule, **changes))  # type: ignore[arg-type]
    made.tables = BY_RULE[rule].tables
    return made


def check_never_late(rule: SpotRule, jobs: list[tuple[int, float, int]], there: list[bool], taken: list[bool]) -> None:
    """Run work that arrives and is promised, while an adversary takes spot away at will; on demand is granted."""
    world = World(policy=fresh(rule), pool=pool_kind())
    for step in range(160):
        for arrives, seconds, slack in jobs:
            if arrives == step:
                # Time for a start and for looking once more; the rest is slack.
                world.add(seconds, world.now_seconds + 360 + 60 * slack + math.ceil(seconds / 8 / 60) * 60)
        at = iter(range(len(world.workers)))
        world.step(
            is_available=there[step % len(there)],
            takes=lambda _, at=at, step=step: taken[(step + next(at)) % len(taken)],
        )

    assert world.late_seconds == 0
    assert not world.work


JOBS = st.lists(st.tuples(st.integers(0, 60), st.floats(1, 20_000), st.integers(0, 40)), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None)
@given(
    rule=st.sampled_from(sorted(SpotRule)),
    jobs=JOBS,
    there=st.lists(st.booleans(), min_size=1, max_size=40),
    taken=st.lists(st.booleans(), min_size=1, max_size=12),
)
def test_promised_work_is_never_late_whatever_becomes_of_spot(
    rule: SpotRule, jobs: list[tuple[int, float, int]], there: list[bool], taken: list[bool]
) -> None:
    check_never_late(rule, jobs, there, taken)


def check_in_time_within_the_quota(most: int, parts: list[float], there: list[bool]) -> None:
    """Run work that just so many on-demand workers can do in time, while spot is taken as soon as it works."""
    world = World(policy=fresh(), pool=pool_kind(steady_offer(workers_max=most), spot_offer()))
    due = 0.0
    for seconds in parts:
        due += seconds / most
        world.add(seconds, math.ceil((due + 360) / 60) * 60)

    for step in range(120):
        world.step(is_available=there[step % len(there)], takes=lambda worker: worker.state is WorkerState.READY)
        assert sum(worker.offer == "steady" for worker in world.workers.values()) <= most

    assert world.late_seconds == 0


@settings(max_examples=15, deadline=None)
@given(
    most=st.integers(1, 6),
    parts=st.lists(st.floats(60, 4000), min_size=1, max_size=4),
    there=st.lists(st.booleans(), min_size=1, max_size=20),
)
def test_promised_work_is_in_time_with_no_more_workers_than_the_quota_has(
    most: int, parts: list[float], there: list[bool]
) -> None:
    check_in_time_within_the_quota(most, parts, there)


WORKERS = st.lists(
    st.tuples(
        st.sampled_from(["steady", "spot", None]),
        st.sampled_from([WorkerState.REQUESTED, WorkerState.BOOTING, WorkerState.READY, WorkerState.DRAINING]),
        st.integers(0, 900),
        st.booleans(),
    ),
    max_size=8,
)
CLASSES = st.lists(st.tuples(st.floats(1, 60_000), st.floats(0.05, 30.0), st.booleans()), max_size=6)


def view_of(
    workers: list[tuple[str | None, WorkerState, int, bool]],
    classes: list[tuple[float, float, bool]],
    *,
    is_available: bool = True,
    quotas: tuple[int | None, int | None] = (None, None),
    spend: int | None = None,
) -> FleetView:
    pool = pool_kind(steady_offer(workers_max=quotas[0]), spot_offer(is_available=is_available), workers_max=quotas[1])
    stood = [
        standing(
            number,
            offer,
            state=state,
            requested_at_us=-seconds * US,
            idle_since_us=-seconds * US if is_idle and state is WorkerState.READY else None,
        )
        for number, (offer, state, seconds, is_idle) in enumerate(workers)
    ]
    work = [work_class(seconds, hours * HOUR, is_promised=is_promised) for seconds, hours, is_promised in classes]
    return fleet_view(work, stood, pools=[pool], spend_micros_per_hour_max=spend)


def check_limits(view: FleetView, plan: FleetPlan) -> None:
    rates = {offer.offer: offer.rate_micros_per_hour for pool in view.pools for offer in pool.offers}
    live = [worker for worker in view.workers if not worker.state.is_terminal]
    spent = sum(rates.get(worker.offer or "", 0) for worker in live)
    spent += sum(start.count * rates[start.offer] for start in plan.starts)
    if plan.starts and view.spend_micros_per_hour_max is not None:
        assert spent <= view.spend_micros_per_hour_max
    for pool in view.pools:
        asked = {offer.offer: sum(s.count for s in plan.starts if s.offer == offer.offer) for offer in pool.offers}
        if pool.workers_max is not None and sum(asked.values()):
            assert sum(worker.pool == pool.pool for worker in live) + sum(asked.values()) <= pool.workers_max
        for offer in pool.offers:
            if offer.workers_max is not None and asked[offer.offer]:
                have = sum(worker.offer == offer.offer for worker in live)
                assert have + asked[offer.offer] <= offer.workers_max
    assert all(start.count > 0 for start in plan.starts)


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(sorted(FLEET_POLICIES)),
    workers=WORKERS,
    classes=CLASSES,
    quotas=st.tuples(st.none() | st.integers(0, 5), st.none() | st.integers(0, 9)),
    spend=st.none() | st.integers(0, 20_000_000),
    is_available=st.booleans(),
)
def test_no_policy_asks_for_more_than_quotas_and_the_spend_limit_have(
    *,
    name: str,
    workers: list[tuple[str | None, WorkerState, int, bool]],
    classes: list[tuple[float, float, bool]],
    quotas: tuple[int | None, int | None],
    spend: int | None,
    is_available: bool,
) -> None:
    policy = FLEET_POLICIES[name](TERMS)
    if isinstance(policy, NightrateFleet):
        policy.tables = BY_RULE[SpotRule.DECISION_TABLE].tables
    view = view_of(workers, classes, is_available=is_available, quotas=quotas, spend=spend)

    plan = policy.decide(view)

    check_limits(view, plan)
    assert [each.pool for each in plan.standings] == [pool.pool for pool in view.pools]


def check_stops(view: FleetView, plan: FleetPlan) -> None:
    by_id = {worker.worker_id: worker for worker in view.workers}
    assert len({stop.worker_id for stop in plan.stops}) == len(plan.stops)
    for stop in plan.stops:
        worker = by_id[stop.worker_id]
        assert worker.offer is not None
        assert worker.state is not WorkerState.DRAINING
        assert stop.reason is not FleetReason.IDLE or worker.idle_since_us is not None


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(sorted(FLEET_POLICIES)), workers=WORKERS, classes=CLASSES, is_available=st.booleans())
def test_only_workers_of_ours_are_stopped_and_idle_ones_only_for_being_idle(
    *,
    name: str,
    workers: list[tuple[str | None, WorkerState, int, bool]],
    classes: list[tuple[float, float, bool]],
    is_available: bool,
) -> None:
    policy = FLEET_POLICIES[name](TERMS)
    if isinstance(policy, NightrateFleet):
        policy.tables = BY_RULE[SpotRule.DECISION_TABLE].tables
    view = view_of(workers, classes, is_available=is_available)

    check_stops(view, policy.decide(view))


def check_no_churn(policy: NightrateFleet, view: FleetView) -> None:
    after = applied(view, policy.decide(view))
    again = policy.decide(after)

    assert again.starts == ()
    assert again.stops == ()


@settings(max_examples=150, deadline=None)
@given(rule=st.sampled_from(sorted(SpotRule)), workers=WORKERS, classes=CLASSES, is_available=st.booleans())
def test_what_was_decided_is_not_decided_again(
    *,
    rule: SpotRule,
    workers: list[tuple[str | None, WorkerState, int, bool]],
    classes: list[tuple[float, float, bool]],
    is_available: bool,
) -> None:
    check_no_churn(fresh(rule), view_of(workers, classes, is_available=is_available))


def wanted(view: FleetView, rule: SpotRule = SpotRule.DECISION_TABLE) -> int:
    return fresh(rule).decide(view).standings[0].wanted


@settings(max_examples=100, deadline=None)
@given(classes=CLASSES, more=st.tuples(st.floats(1, 60_000), st.floats(0.05, 30.0), st.booleans()))
def test_more_work_never_wants_fewer_workers(
    classes: list[tuple[float, float, bool]], more: tuple[float, float, bool]
) -> None:
    for is_available in (True, False):
        before = view_of([], classes, is_available=is_available)
        after = view_of([], [*classes, more], is_available=is_available)

        assert wanted(after, SpotRule.ON_DEMAND_ONLY) >= wanted(before, SpotRule.ON_DEMAND_ONLY)
        floor = fresh().decide(before).standings[0].on_demand_wanted
        if is_available:
            assert wanted(after) >= wanted(before)
        else:
            assert fresh().decide(after).standings[0].on_demand_wanted >= floor


@pytest.mark.parametrize("broken", ["no floor", "no cold start", "floor looks a step too late"])
def test_a_broken_rule_is_found_out(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sizing.on_demand_floor
    mutants: dict[str, Callable[..., int]] = {
        "no floor": lambda *_, **__: 0,
        "no cold start": lambda left, due, ready, _start, **rest: real(
            left, due, ready, sizing.StartTime(cold_start_seconds=0.0), **rest
        ),
        "floor looks a step too late": lambda left, due, ready, start, **rest: real(
            left + 60, due, ready, start, **rest
        ),
    }
    check_in_time_within_the_quota(3, [3600.0, 1800.0], [True])
    monkeypatch.setattr(pool_needs, "on_demand_floor", mutants[broken])

    with pytest.raises(AssertionError):
        check_in_time_within_the_quota(3, [3600.0, 1800.0], [True])


def test_a_purse_that_forgets_what_lives_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = [("steady", WorkerState.READY, 900, False)]
    view = view_of(workers, [(50_000.0, 3.0, True)], spend=2 * ON_DEMAND_MICROS)
    check_limits(view, fresh(SpotRule.ON_DEMAND_ONLY).decide(view))
    monkeypatch.setattr(Purse, "__post_init__", lambda _: None)

    with pytest.raises(AssertionError):
        check_limits(view, fresh(SpotRule.ON_DEMAND_ONLY).decide(view))


def test_a_plan_that_does_not_count_those_that_start_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of([], [(50_000.0, 3.0, True)])
    check_no_churn(fresh(), view)
    monkeypatch.setattr(
        "scheduler.fleet.nightrate.workers_of",
        lambda view, pool: [each for each in view.workers if each.state is WorkerState.READY and each.pool == pool],
    )

    with pytest.raises(AssertionError):
        check_no_churn(fresh(), view)


def test_the_default_policy_is_registered() -> None:
    assert FLEET_POLICIES[DEFAULT_FLEET_POLICY](FleetTerms()).name == "nightrate"
    assert {name: make(FleetTerms()).name for name, make in FLEET_POLICIES.items()} == {
        name: name for name in FLEET_POLICIES
    }


def test_spot_is_asked_for_while_there_is_slack() -> None:
    plan = fresh().decide(fleet_view([work_class(20 * HOUR, 24 * HOUR)]))

    assert {start.offer for start in plan.starts} == {"spot"}
    assert plan.standings[0].on_demand_wanted == 0


def test_on_demand_is_asked_for_when_the_latest_moment_has_come() -> None:
    due = 300 + 59 + 2000

    plan = fresh().decide(fleet_view([work_class(2000, due)]))

    assert sum(start.count for start in plan.starts if start.offer == "steady") >= 1
    assert plan.standings[0].reason in (FleetReason.FLOOR, FleetReason.DEADLINE)


@pytest.mark.parametrize("due_seconds", [-100.0, 0.0, 200.0, 359.0])
def test_what_no_new_worker_can_make_in_time_does_not_ask_for_all_machines_there_are(due_seconds: float) -> None:
    plan = fresh().decide(fleet_view([work_class(10 * HOUR, due_seconds)]))

    # As if it were due an hour after a start.
    assert 1 <= sum(start.count for start in plan.starts) <= 40


def test_what_is_expected_is_prepared_for_when_a_worker_that_is_asked_for_now_would_work_then() -> None:
    def expected(from_seconds: float) -> ExpectedWork:
        return ExpectedWork(
            model="model",
            tier=Tier.URGENT,
            from_us=round(from_seconds * US),
            to_us=round((from_seconds + 600) * US),
            window_seconds=3600.0,
            sizes={0.5: WorkSize(rows=1, input_tokens=0, output_tokens=20_000)},
        )

    soon = fresh(SpotRule.ON_DEMAND_ONLY).decide(fleet_view(expected=(expected(300),)))
    later = fresh(SpotRule.ON_DEMAND_ONLY).decide(fleet_view(expected=(expected(3000),)))

    assert sum(start.count for start in soon.starts) >= 1
    assert soon.standings[0].reason is FleetReason.FORECAST
    assert later.starts == ()


def test_little_work_that_is_far_from_due_is_waited_with() -> None:
    plan = fresh().decide(fleet_view([work_class(10, 24 * HOUR)]))

    assert plan.starts == ()
    assert plan.standings[0].reason is FleetReason.SLACK


def test_an_idle_worker_goes_when_it_has_waited_as_long_as_a_start_takes() -> None:
    def stops(idle_seconds: int) -> list[FleetReason]:
        worker = standing(1, idle_since_us=-idle_seconds * US)
        return [stop.reason for stop in fresh().decide(fleet_view([], [worker])).stops]

    assert stops(299) == []
    assert stops(300) == [FleetReason.IDLE]


def test_an_idle_worker_stays_through_the_time_that_is_billed_anyway() -> None:
    pool = pool_kind(steady_offer(minimum_seconds=HOUR))
    young = standing(1, idle_since_us=-2000 * US, launched_at_us=-2400 * US)
    old = standing(2, idle_since_us=-2 * HOUR * US, launched_at_us=-3 * HOUR * US)

    plan = fresh().decide(fleet_view([], [young, old], pools=[pool]))

    assert [stop.worker_id for stop in plan.stops] == [old.worker_id]


def test_a_pool_keeps_its_warm_workers() -> None:
    pool = pool_kind(workers_min=2)
    idle = standing(1, idle_since_us=-9 * HOUR * US)

    plan = fresh().decide(fleet_view([], [idle], pools=[pool]))

    assert plan.stops == ()
    assert sum(start.count for start in plan.starts) == 1
    assert plan.standings[0].reason is FleetReason.WARM


def test_on_demand_stays_until_the_spot_that_takes_its_place_works() -> None:
    work = [work_class(10 * HOUR, 24 * HOUR)]
    paid = standing(1)
    policy = fresh()

    first = policy.decide(fleet_view(work, [paid]))
    count = first.starts[0].count
    booting = [standing(2 + number, "spot", state=WorkerState.BOOTING, requested_at_us=0) for number in range(count)]
    second = policy.decide(fleet_view(work, [paid, *booting]))
    ready = [replace(worker, state=WorkerState.READY) for worker in booting]
    third = policy.decide(fleet_view(work, [paid, *ready]))

    assert [start.offer for start in first.starts] == ["spot"]
    assert first.stops == second.stops == ()
    assert [stop.worker_id for stop in third.stops] == [paid.worker_id]


def test_a_worker_whose_machine_must_go_is_replaced_before_and_drained_in_time() -> None:
    work = [work_class(10 * HOUR, 24 * HOUR)]
    policy = fresh(SpotRule.ON_DEMAND_ONLY, margin_seconds=120.0)
    soon = standing(1, ends_by_us=400 * US)
    now = standing(1, ends_by_us=100 * US)

    assert sum(start.count for start in policy.decide(fleet_view(work, [soon])).starts) == 1
    assert policy.decide(fleet_view(work, [soon])).stops == ()
    assert [stop.reason for stop in policy.decide(fleet_view(work, [now])).stops] == [FleetReason.LIFETIME]


def test_a_much_cheaper_zone_takes_one_workers_place_at_a_time() -> None:
    pool = pool_kind(steady_offer(), spot_offer("dear", rate_micros_per_hour=2_000_000), spot_offer("cheap"))
    work = [work_class(60 * HOUR, 30 * HOUR)]
    policy = fresh()
    count = policy.decide(fleet_view(work, pools=[pool])).standings[0].wanted
    dear = [standing(number, "dear") for number in range(count)]

    first = policy.decide(fleet_view(work, dear, pools=[pool]))
    fetched = standing(99, "cheap", state=WorkerState.BOOTING, requested_at_us=0)
    second = policy.decide(fleet_view(work, [*dear, fetched], pools=[pool]))
    third = policy.decide(fleet_view(work, [*dear, standing(99, "cheap")], pools=[pool]))

    assert [(start.offer, start.count, start.reason) for start in first.starts] == [("cheap", 1, FleetReason.REPLACED)]
    assert second.starts == second.stops == ()
    assert [(stop.worker_id, stop.reason) for stop in third.stops] == [(dear[0].worker_id, FleetReason.REPLACED)]


@pytest.mark.parametrize("rate", [950_000, 1_050_000])
def test_a_zone_that_is_hardly_cheaper_takes_nobodys_place(rate: int) -> None:
    pool = pool_kind(
        steady_offer(),
        spot_offer("held", rate_micros_per_hour=1_000_000),
        spot_offer("other", rate_micros_per_hour=rate),
    )
    work = [work_class(60 * HOUR, 30 * HOUR)]
    count = fresh().decide(fleet_view(work, pools=[pool])).standings[0].wanted

    plan = fresh().decide(fleet_view(work, [standing(number, "held") for number in range(count)], pools=[pool]))

    assert plan.starts == plan.stops == ()


def test_of_two_zones_the_one_that_lasts_is_worth_more_than_the_one_that_is_a_little_cheaper() -> None:
    brief = spot_offer("brief", rate_micros_per_hour=900_000, lifetime_seconds=900.0)
    lasting = spot_offer("lasting", rate_micros_per_hour=1_000_000, lifetime_seconds=8.0 * HOUR)

    plan = fresh().decide(
        fleet_view([work_class(10 * HOUR, 24 * HOUR)], pools=[pool_kind(steady_offer(), brief, lasting)])
    )

    assert {start.offer for start in plan.starts} == {"lasting"}


def test_where_the_model_is_already_is_preferred_to_what_is_as_cheap() -> None:
    far = spot_offer("far", egress_micros=2_000_000)
    near = spot_offer("near", rate_micros_per_hour=1_000_000)

    plan = fresh().decide(fleet_view([work_class(10 * HOUR, 24 * HOUR)], pools=[pool_kind(steady_offer(), far, near)]))

    assert {start.offer for start in plan.starts} == {"near"}


def test_spot_that_costs_more_than_on_demand_for_what_gets_done_is_left() -> None:
    pool = pool_kind(steady_offer(), spot_offer(rate_micros_per_hour=2_500_000, lifetime_seconds=1200.0))

    plan = fresh().decide(fleet_view([work_class(10 * HOUR, 24 * HOUR)], pools=[pool]))

    assert {start.offer for start in plan.starts} == {"steady"}


def test_a_zone_without_capacity_is_asked_again_for_one_worker_now_and_then() -> None:
    pool = pool_kind(steady_offer(), spot_offer(is_available=False))
    policy = fresh(rule := SpotRule.UNIFORM_PROGRESS)
    work = [work_class(40 * HOUR, 24 * HOUR)]

    asked = []
    for minute in range(25):
        view = fleet_view(work, pools=[pool], now_seconds=60.0 * minute)
        plan = policy.decide(view)
        asked.append(sum(start.count for start in plan.starts if start.offer == "spot"))

    assert rule is SpotRule.UNIFORM_PROGRESS
    assert sum(asked) <= 3
    assert max(asked) <= 1


def test_rows_that_must_stay_in_a_region_run_in_pools_that_are_there_alone() -> None:
    here = pool_kind(steady_offer("here", region="eu-1"), pool="here")
    both = pool_kind(
        steady_offer("a", "both", region="eu-1", rate_micros_per_hour=1),
        steady_offer("b", "both", region="us-1"),
        pool="both",
    )
    work = [work_class(10 * HOUR, 6 * HOUR, regions=frozenset({"eu-1"}))]

    plan = fresh().decide(fleet_view(work, pools=[here, both]))

    assert {each.pool: each.wanted > 0 for each in plan.standings} == {"here": True, "both": False}


def test_a_tier_that_a_pool_does_not_run_is_not_placed_there() -> None:
    cheap = pool_kind(steady_offer("c", "cpu", rate_micros_per_hour=1), pool="cpu", tiers=frozenset({Tier.BULK}))
    gpu = pool_kind(steady_offer("g", "gpu"), pool="gpu")

    plan = fresh().decide(fleet_view([work_class(10 * HOUR, 6 * HOUR, tier=Tier.URGENT)], pools=[cheap, gpu]))

    assert {each.pool: each.wanted > 0 for each in plan.standings} == {"cpu": False, "gpu": True}


def test_work_goes_where_a_token_costs_least_and_not_where_an_hour_does() -> None:
    slow = pool_kind(steady_offer("slow", "cpu", rate_micros_per_hour=200_000), pool="cpu")
    slow = replace(slow, paces={"model": UnitPace(output_token_seconds=30.0)})
    fast = pool_kind(steady_offer("fast", "gpu"), pool="gpu")

    plan = fresh().decide(fleet_view([work_class(10 * HOUR, 24 * HOUR)], pools=[slow, fast]))

    assert {each.pool: each.wanted > 0 for each in plan.standings} == {"cpu": False, "gpu": True}


def test_what_a_pool_cannot_do_in_time_goes_to_the_next() -> None:
    first = pool_kind(steady_offer("x", "first", rate_micros_per_hour=1_000_000), pool="first", workers_max=2)
    second = pool_kind(steady_offer("y", "second"), pool="second")

    plan = fresh().decide(fleet_view([work_class(20 * HOUR, 5 * HOUR)], pools=[first, second]))

    assert {each.pool: each.wanted for each in plan.standings} == {"first": 2, "second": 3}


def test_a_decision_for_a_large_fleet_reads_each_class_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty pools, 500 workers, 2,000 classes: the work is told by arrays, and so no class is priced by itself."""
    seen = []
    monkeypatch.setattr(UnitPace, "seconds", lambda *_: seen.append(1))
    drawn = np.random.default_rng(5)
    pools = [
        pool_kind(steady_offer(f"steady{n}", f"p{n}"), spot_offer(f"spot{n}", f"p{n}"), pool=f"p{n}") for n in range(20)
    ]
    pools = [replace(each, paces={f"m{n}": UnitPace(output_token_seconds=1.0)}) for n, each in enumerate(pools)]
    work = [
        work_class(float(drawn.uniform(1, 5000)), float(drawn.uniform(1, 24)) * HOUR, model=f"m{n % 20}")
        for n in range(2000)
    ]
    workers = [standing(n, f"steady{n % 20}", pool=f"p{n % 20}") for n in range(500)]

    plan = fresh().decide(fleet_view(work, workers, pools=pools))

    assert len(plan.standings) == 20
    assert not seen


def test_idle_gaps_that_were_short_keep_a_worker_through_the_next() -> None:
    policy = fresh(idle_rule=IdleRule.HAZARD)
    work = [work_class(100, 40 * HOUR)]
    for number in range(40):
        at = 2000.0 * number
        policy.decide(fleet_view([], [standing(1)], now_seconds=at))
        policy.decide(
            fleet_view([replace(work[0], deadline_at_us=round((at + 90_000) * US))], [standing(1)], now_seconds=at + 20)
        )
    idle = standing(1, idle_since_us=round((80_000 - 100) * US))

    plan = policy.decide(fleet_view([], [idle], now_seconds=80_000))

    assert [stop.reason for stop in plan.stops] == [FleetReason.IDLE]


def test_a_market_that_is_reserved_is_steady() -> None:
    pool = pool_kind(steady_offer("reserved", market=Market.RESERVED), spot_offer(is_available=False))

    plan = fresh().decide(fleet_view([work_class(2000, 2400)], pools=[pool]))

    assert [start.offer for start in plan.starts] == ["reserved"]
