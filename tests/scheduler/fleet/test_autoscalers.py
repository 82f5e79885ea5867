"""The autoscalers to compare with: one number, and the lags that each is known by."""

from __future__ import annotations

from dataclasses import replace

from pipeline.domain.lifecycle import WorkerState
from pipeline.ports.fleet import FleetPlan, FleetPolicy, FleetReason, UnitPace
from scheduler.fleet.autoscalers import AlwaysOn, KedaLag, QueueLength
from scheduler.fleet.nightrate import NightrateFleet
from scheduler.fleet.terms import FleetTerms
from tests.scheduler.fleet.fleet_world import HOUR, US, fleet_view, pool_kind, standing, steady_offer, work_class


def decided(policy: FleetPolicy, seconds: float, count: int, *, at: float = 0.0) -> FleetPlan:
    work = [work_class(seconds, 24 * HOUR)] if seconds else []
    return policy.decide(fleet_view(work, [standing(n) for n in range(count)], now_seconds=at))


def test_always_on_has_as_many_as_it_is_told_whatever_there_is_to_do() -> None:
    plan = decided(AlwaysOn(4), 0, 1)

    assert [(start.offer, start.count) for start in plan.starts] == [("steady", 3)]
    assert decided(AlwaysOn(4), 1e9, 4).starts == ()


def test_queue_length_is_looked_at_every_five_minutes_and_no_sooner() -> None:
    policy = QueueLength(target_seconds=600.0)

    assert sum(start.count for start in decided(policy, 6000, 2).starts) == 8
    assert decided(policy, 60_000, 10, at=299).starts == ()
    assert sum(start.count for start in decided(policy, 60_000, 10, at=300).starts) == 90


def test_queue_length_goes_down_only_after_its_window() -> None:
    policy = QueueLength(target_seconds=600.0)
    decided(policy, 6000, 10)

    assert decided(policy, 600, 10, at=300).stops == ()
    stops = decided(policy, 600, 10, at=660).stops
    assert len(stops) == 9
    assert {stop.reason for stop in stops} == {FleetReason.SURPLUS}


def test_lag_wakes_one_worker_and_then_more_and_none_only_after_the_cooldown() -> None:
    policy = KedaLag(target_seconds=600.0)

    assert sum(start.count for start in decided(policy, 60_000, 0).starts) == 1
    assert sum(start.count for start in decided(policy, 60_000, 1, at=30).starts) == 4
    assert decided(policy, 0, 5, at=60).stops == ()
    assert len(decided(policy, 0, 5, at=500).stops) == 5


def test_who_has_not_started_goes_first_and_who_is_not_ours_never() -> None:
    booting = standing(1, state=WorkerState.BOOTING, requested_at_us=0)
    workers = [standing(0), booting, standing(2, None)]

    plan = QueueLength(target_seconds=600.0).decide(fleet_view([work_class(1200, 24 * HOUR)], workers))

    assert [stop.worker_id for stop in plan.stops] == [booting.worker_id]


def test_a_mix_puts_small_work_where_a_machine_is_needed_anyway() -> None:
    paces = {"big": UnitPace(output_token_seconds=1.0), "small": UnitPace(output_token_seconds=1.0)}
    gpu = pool_kind(steady_offer("g", "gpu", rate_micros_per_hour=2_000_000), pool="gpu", paces=paces)
    # A little cheaper for what is small, but a machine more.
    cpu = pool_kind(
        steady_offer("c", "cpu", rate_micros_per_hour=1_500_000), pool="cpu", paces={"small": paces["small"]}
    )
    work = [work_class(2 * HOUR, 5 * HOUR, model="big"), work_class(HOUR, 5 * HOUR, model="small")]
    view = fleet_view(work, pools=[gpu, cpu])
    alone = NightrateFleet(FleetTerms())
    mixed = NightrateFleet(replace(FleetTerms(), mixing_seconds=600.0))

    assert {start.offer for start in alone.decide(view).starts} == {"g", "c"}
    assert {start.offer for start in mixed.decide(view).starts} == {"g"}
    assert mixed.decide(replace(view, now_us=60 * US)).starts == mixed.decide(view).starts
