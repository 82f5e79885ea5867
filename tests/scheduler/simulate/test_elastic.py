"""A simulated fleet: lives, bills, interruptions, and what a policy may see."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from pipeline.domain.costs.billing_rules import AWS_LINUX_V1
from pipeline.domain.costs.prices import Market
from pipeline.domain.lifecycle import IntervalKind, WorkerEnd, WorkerState
from pipeline.domain.tiers import Tier
from pipeline.ports.fleet import FleetPolicy
from scheduler.fleet.policies import FLEET_POLICIES
from scheduler.fleet.terms import FleetTerms
from scheduler.simulate.arrivals import Arrival
from scheduler.simulate.capacity import Capacity, made_up_capacity
from scheduler.simulate.elastic import ElasticSimulation
from scheduler.simulate.fleet_bound import lower_bound
from scheduler.simulate.fleet_record import figures_of
from scheduler.simulate.plain_fleets import Fixed
from scheduler.simulate.scene import Scene
from tests.scheduler.simulate.scenes import Scripted, batch, everybody, offering, scene, simulated


def _busy_world(seed: int) -> tuple[list[Arrival], Scene]:
    random = Random(seed)
    arrivals = [
        batch(
            f"batch_{number}",
            rows=random.randint(50, 900),
            at=random.uniform(0, 20_000),
            window=random.choice([7200.0, 40_000.0]),
            tier=random.choice(list(Tier)),
        )
        for number in range(12)
    ]
    capacity = made_up_capacity(
        workers=4, run_hours=0.7, outage_hours=0.4, until_seconds=100_000, seed=f"capacity {seed}"
    )
    spot = offering("spot", market=Market.SPOT, price=0.3, provider="gcp", capacity=capacity)
    return arrivals, scene(offering("steady", price=1.0, provider="gcp"), spot)


def test_a_machines_seconds_are_each_of_one_kind() -> None:
    arrivals, where = _busy_world(1)

    made = simulated(arrivals, where, Fixed(offer="spot", workers=4)).fleet_record.machines

    assert any(machine.end is WorkerEnd.INTERRUPTED for machine in made)
    for machine in made:
        assert sum(machine.seconds_by_kind().values()) == pytest.approx(machine.seconds)
        ends = [machine.launched_at, *(span.to_seconds for span in machine.spans)]
        assert [span.from_seconds for span in machine.spans] == ends[:-1]


def test_work_of_machines_is_work_of_packs_and_what_was_lost_of_them() -> None:
    arrivals, where = _busy_world(2)

    found = simulated(arrivals, where, Fixed(offer="spot", workers=4))

    kinds = [machine.seconds_by_kind() for machine in found.fleet_record.machines]
    worked = sum(each.get(kind, 0.0) for each in kinds for kind in (IntervalKind.WORK, IntervalKind.PREEMPTED))
    assert worked == pytest.approx(found.record.busy_seconds)


def test_equal_seeds_give_equal_runs_and_others_do_not() -> None:
    arrivals, where = _busy_world(3)
    where = replace(where, pools=(replace(where.pools[0], boot=replace(where.pools[0].boot, spread=0.5)),))

    first, again, other = (
        simulated(arrivals, where, Fixed(offer="spot", workers=4), seed=seed).fleet_record for seed in (1, 1, 2)
    )

    assert first == again
    assert first.machines != other.machines


def test_a_bill_is_what_the_providers_rule_says_of_a_life() -> None:
    # Two machines work 300 rows, of which each second is one; a third is stopped before it works.
    policy = Scripted({0.0: ("steady", 2), 60.0: ("steady", 1)}, stops={120.0: lambda view: everybody(view)[-1:]})
    where = scene(offering("steady", price=3.6))

    made = simulated([batch("batch", rows=300)], where, policy).fleet_record.machines

    lives = sorted(machine.seconds for machine in made)
    assert lives[0] == 60.0
    billed = [max(60, -(-round(seconds * 1_000_000) // 1_000_000)) for seconds in lives]
    # $3.6 an hour is a thousand micro-units a second.
    assert [machine.billed_micros for machine in sorted(made, key=lambda each: each.seconds)] == [
        1000 * seconds for seconds in billed
    ]
    assert (
        figures_of(simulated([batch("batch", rows=300)], where, Scripted({0.0: ("steady", 1)})).fleet_record).cost > 0
    )


def test_a_minute_is_billed_for_a_machine_that_is_stopped_sooner() -> None:
    policy = Scripted({0.0: ("steady", 1), 31.0: ("steady", 1)}, stops={20.0: everybody})
    where = scene(offering("steady", price=3.6), interval_seconds=10.0)

    made = simulated([batch("batch", rows=10)], where, policy).fleet_record.machines

    assert made[0].seconds == 20.0
    assert made[0].billed_micros == 60_000
    assert made[0].costs == {"boot": 20_000, "rounding": 0, "minimum": 40_000}


@pytest.mark.parametrize(("taken_at", "is_free"), [(3599.0, True), (3600.0, False)])
def test_a_spot_machine_of_aws_taken_in_its_first_hour_is_free(taken_at: float, is_free: bool) -> None:  # noqa: FBT001
    capacity = Capacity((0.0, taken_at), (1, 0))
    spot = offering("spot", market=Market.SPOT, price=0.5, capacity=capacity)
    policy = Scripted({0.0: ("spot", 1), 4000.0: ("steady", 1)})

    made = simulated([batch("batch", rows=5000)], scene(spot, offering("steady")), policy).fleet_record.machines

    assert (made[0].offer, made[0].end, made[0].seconds) == ("spot", WorkerEnd.INTERRUPTED, taken_at)
    assert taken_at * 1_000_000 < AWS_LINUX_V1.free_below_us or not is_free
    assert (made[0].billed_micros == 0) == is_free
    # On demand it would have cost three dollars an hour all the same.
    assert made[0].on_demand_micros == int(taken_at * 3_000_000 / 3600) or not is_free


def test_a_drained_worker_ends_its_pack_and_only_then_goes() -> None:
    policy = Scripted({0.0: ("steady", 1), 600.0: ("steady", 1)}, stops={180.0: everybody})

    found = simulated([batch("batch", rows=600)], scene(offering("steady")), policy)

    first = found.fleet_record.machines[0]
    packs = [pack for pack in found.record.packs if pack.worker == 1]
    assert not any(pack.is_lost for pack in packs)
    # It works from 120 on, a minute a pack: the pack that began by 180 ends by 240, and then it drains.
    assert first.spans[-1].kind is IntervalKind.DRAIN
    assert first.spans[-1].from_seconds == packs[-1].to_seconds
    assert 180.0 <= packs[-1].to_seconds <= 241.0


def test_a_worker_that_is_told_in_time_hands_back_what_it_has_not_done() -> None:
    capacity = Capacity((0.0, 160.0, 200.0), (1, 0, 1))
    spot = offering("spot", market=Market.SPOT, price=0.5, capacity=capacity)
    policy = Scripted({0.0: ("spot", 1), 240.0: ("spot", 1)})

    found = simulated([batch("batch", rows=200)], scene(spot, lost_seconds=7.0), policy)

    taken, after = found.fleet_record.machines
    assert taken.seconds_by_kind()[IntervalKind.PREEMPTED] == 7.0
    assert taken.end is WorkerEnd.INTERRUPTED
    assert after.seconds_by_kind()[IntervalKind.WORK] == pytest.approx(200.0 - 33.0 + 1.0, abs=1.0)
    assert found.record.batches[0].rows_done == 200


@pytest.mark.parametrize("seed", range(6))
def test_no_row_is_lost_or_done_twice_over_interruptions(seed: int) -> None:
    arrivals, where = _busy_world(seed)

    found = simulated(arrivals, where, Fixed(offer="spot", workers=4))

    finished = [each for each in found.record.batches if each.is_finished]
    assert finished
    assert all(each.rows_done == each.rows for each in finished)
    assert all(each.rows_done < each.rows for each in found.record.batches if each.is_expired)
    # A row takes a second, so seconds that counted are rows, but for the one that each loss cut.
    kinds = [machine.seconds_by_kind() for machine in found.fleet_record.machines]
    worked = sum(each.get(IntervalKind.WORK, 0.0) for each in kinds)
    rows = sum(each.rows_done for each in found.record.batches)
    lost = sum(pack.is_lost for pack in found.record.packs)
    expired = sum(each.is_expired for each in found.record.batches)
    if not expired:
        assert rows <= worked + 1e-6 <= rows + lost + 1


def test_a_request_is_refused_where_there_is_no_capacity_or_no_quota() -> None:
    spot = offering("spot", market=Market.SPOT, capacity=Capacity((0.0,), (1,)))
    steady = offering("steady", workers_max=1)
    policy = Scripted({0.0: ("spot", 3), 1.0: ("steady", 3)})

    found = simulated([batch("batch", rows=200)], scene(spot, steady), policy)

    assert found.fleet_record.refusals == {"spot": 1, "steady": 1}
    assert [machine.offer for machine in found.fleet_record.machines].count("spot") == 1
    view = policy.views[2]
    seen = {offer.offer: offer for offer in view.pools[0].offers}
    assert seen["spot"].is_available is False
    assert seen["spot"].refused_until_us > view.now_us


def test_a_policy_does_not_see_capacity_that_it_has_not_asked_for() -> None:
    capacity = Capacity((0.0, 1000.0), (5, 0))
    spot, other = (offering(name, market=Market.SPOT, capacity=capacity) for name in ("spot", "other"))
    policy = Scripted({0.0: ("spot", 1), 2000.0: ("steady", 1)})

    simulated([batch("batch", rows=4000)], scene(spot, other, offering("steady")), policy)

    def seen(offer: str) -> list[bool | None]:
        return [each.is_available for view in policy.views for each in view.pools[0].offers if each.offer == offer]

    assert set(seen("other")) == {None}
    assert seen("spot")[0] is None
    assert set(seen("spot")[1:]) == {True, False, None}


def test_a_machine_is_gone_when_its_time_is_up() -> None:
    where = scene(offering("steady"), lifetime_seconds=1000.0)

    found = simulated([batch("batch", rows=3000)], where, Fixed(offer="steady", workers=1))

    assert all(machine.seconds <= 1000.0 for machine in found.fleet_record.machines)
    assert not any(pack.is_lost for pack in found.record.packs)
    assert found.record.batches[0].is_finished


def test_a_deadline_that_a_grown_fleet_can_meet_is_promised_by_a_small_one() -> None:
    # One worker would take 10,000 s; the window is an hour.
    policy = Scripted({0.0: ("steady", 1), 300.0: ("steady", 7)})

    found = simulated([batch("batch", rows=10_000, window=3600.0)], scene(offering("steady")), policy)

    (made,) = found.record.batches
    assert made.promise.value == "made"
    assert made.is_finished


def test_workers_stand_in_the_view_as_they_live() -> None:
    policy = Scripted({0.0: ("steady", 1)}, stops={600.0: everybody})
    policy.starts[700.0] = ("steady", 1)

    simulated([batch("batch", rows=700)], scene(offering("steady"), boot=90.0, interval_seconds=10.0), policy)

    states = [view.workers[0].state for view in policy.views if view.workers]
    assert list(dict.fromkeys(states))[:3] == [WorkerState.BOOTING, WorkerState.LOADING, WorkerState.READY]
    assert WorkerState.DRAINING in states


def _policies() -> list[FleetPolicy]:
    terms = FleetTerms(always_on_workers=3, target_seconds=600.0, tick_seconds=1200.0, horizon_seconds=6 * 3600.0)
    return [make(terms) for make in FLEET_POLICIES.values()]


@pytest.mark.parametrize("seed", range(4))
def test_no_policy_that_is_in_time_costs_less_than_the_bound(seed: int) -> None:
    arrivals, where = _busy_world(seed)
    where = replace(where, pools=(replace(where.pools[0], workers_max=12),))
    bound = lower_bound(arrivals, where)

    costs = []
    for policy in (*_policies(), Fixed(offer="steady", workers=3)):
        run = simulated(arrivals, where, policy).fleet_record
        figures = figures_of(run)
        if not figures.missed:
            costs.append(figures.cost)

    assert costs
    assert bound.impossible_seconds < 1.0
    assert 0 < bound.cost <= min(costs)


def test_the_bound_is_the_cheapest_seconds_in_the_window() -> None:
    # 7200 s of work in a window of two hours; spot is there for the first half hour only, twice.
    capacity = Capacity((0.0, 1800.0), (2, 0))
    spot = offering("spot", market=Market.SPOT, price=0.25, provider=None, capacity=capacity)
    where = scene(spot, offering("steady", price=1.0))

    found = lower_bound([batch("batch", rows=7200, window=7200.0)], where)

    assert found.cost == pytest.approx(0.25 + 1.0)
    assert found.impossible_seconds == 0.0


def test_the_bound_says_what_nobody_can_do_in_time() -> None:
    steady = offering("steady", workers_max=1)

    found = lower_bound([batch("batch", rows=7200, window=3600.0)], scene(steady))

    assert found.impossible_seconds == pytest.approx(3600.0)


def test_a_run_that_is_given_up_at_a_miss_stops_there() -> None:
    where = scene(offering("steady"))
    arrivals = [batch("late", rows=1000, window=300.0), batch("later", rows=10, at=5000.0)]
    from tests.scheduler.simulate.scenes import POLICY

    simulation = ElasticSimulation(
        arrivals, where, POLICY, Fixed(offer="steady", workers=1), seed=0, is_ended_by_a_miss=True
    )
    simulation.run()

    assert simulation.fleet_record.seconds == 300.0
    assert figures_of(simulation.fleet_record).missed == 1
