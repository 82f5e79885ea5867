"""How many workers deadlines need, against workers that do the work; and the classic autoscaler's numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import WorkSize
from pipeline.ports.fleet import ExpectedWork, UnitPace
from scheduler.columns import Floats
from scheduler.fleet.cold_starts import StartTimes
from scheduler.fleet.demand import Lane, lanes_of, pool_work
from scheduler.fleet.replicas import Stabilizer, replicas
from scheduler.fleet.sizing import (
    StartTime,
    cumulative,
    edf_need,
    fallback_limits,
    latest_start_seconds,
    on_demand_floor,
)
from tests.scheduler.fleet.fleet_world import US, fleet_view, work_class

START = StartTime(cold_start_seconds=300.0)
CLASSES = st.lists(st.tuples(st.floats(1, 20_000), st.floats(400, 90_000)), min_size=1, max_size=8)
READY = st.lists(st.sampled_from([0.0, 60.0, 300.0]), max_size=6)


def columns(classes: list[tuple[float, float]]) -> tuple[Floats, Floats]:
    ordered = sorted(classes, key=lambda each: each[1])
    return np.array([due for _, due in ordered]), np.cumsum([seconds for seconds, _ in ordered])


def makes_it(left: Floats, due: Floats, ready: list[float]) -> bool:
    """Whether these workers do all by its deadline: what EDF on divisible work comes to, deadline by deadline."""
    return all(sum(max(0.0, by - at) for at in ready) >= seconds - 1e-3 for by, seconds in zip(left, due, strict=True))


@settings(max_examples=200, deadline=None)
@given(classes=CLASSES, ready=READY)
def test_the_need_makes_every_deadline_and_one_worker_fewer_does_not(
    classes: list[tuple[float, float]], ready: list[float]
) -> None:
    left, due = columns(classes)

    need = edf_need(left, due, np.array(ready), START)

    there = sorted(ready)
    crew = (there + [300.0] * max(0, need - len(there)))[:need]
    assert makes_it(left, due, crew)
    assert need == 0 or not makes_it(left + 1e-6, due + 2e-3, crew[:-1])


@settings(max_examples=200, deadline=None)
@given(classes=CLASSES, more=st.tuples(st.floats(1, 20_000), st.floats(400, 90_000)), ready=READY)
def test_more_work_needs_no_fewer_workers(
    classes: list[tuple[float, float]], more: tuple[float, float], ready: list[float]
) -> None:
    before = edf_need(*columns(classes), np.array(ready), START)

    assert edf_need(*columns([*classes, more]), np.array(ready), START) >= before


@settings(max_examples=200, deadline=None)
@given(classes=CLASSES, most=st.integers(1, 50))
def test_after_the_floor_has_started_all_at_once_a_step_later_still_makes_it(
    classes: list[tuple[float, float]], most: int
) -> None:
    left, due = columns(classes)
    limits = fallback_limits(left, due, START, overhead_max=0.1, most=float(most))
    is_possible = bool((due <= limits * np.maximum(0.0, left - 300.0)).all())

    floor = on_demand_floor(left, due, np.zeros(0), START, step_seconds=60.0, limits=limits)

    assert 0 <= floor <= limits.max()
    if is_possible:
        able = np.minimum(floor, limits) * (left - 300.0).clip(0) + (limits - floor).clip(0) * (left - 360.0).clip(0)
        assert (able >= due - 1e-3).all()


def test_the_latest_moment_to_start_is_the_deadline_less_the_work_and_the_start() -> None:
    left, due = np.array([3600.0, 7200.0]), np.array([1800.0, 9000.0])

    assert latest_start_seconds(left, due, START, workers=2) == pytest.approx(7200 - 300 - 4500)
    assert latest_start_seconds(left, due, START, workers=1) == pytest.approx(7200 - 300 - 9000)


def test_ten_hours_of_work_due_in_five_take_two_workers_and_the_start_a_third() -> None:
    left, due = np.array([5 * 3600.0]), np.array([10 * 3600.0])

    assert edf_need(left, due, np.zeros(2), START) == 2
    assert edf_need(left, due, np.zeros(0), START) == 3
    assert edf_need(left, due, np.zeros(0), StartTime(cold_start_seconds=0.0, efficiency=0.5)) == 4


def test_work_that_arrives_later_counts_when_a_worker_started_now_would_work() -> None:
    expected = ExpectedWork(
        model="model",
        tier=Tier.BULK,
        from_us=0,
        to_us=4000 * US,
        window_seconds=1000.0,
        sizes={
            0.5: WorkSize(rows=4, input_tokens=0, output_tokens=400),
            0.9: WorkSize(rows=4, input_tokens=0, output_tokens=800),
        },
    )
    view = fleet_view([work_class(50, 600)], expected=(expected,))
    paces = {"model": UnitPace(output_token_seconds=1.0)}
    lane = Lane(model="model", tier=Tier.BULK)

    half, most = (pool_work(lanes_of(view, quantile=q), {lane: 1.0}, paces) for q in (0.5, 0.9))

    assert half.seconds.sum() == pytest.approx(450)
    assert most.seconds.sum() == pytest.approx(850)
    assert half.present_seconds == pytest.approx(50)
    assert half.startable(1500 * US).seconds.sum() == pytest.approx(250)
    assert list(half.due_us) == [600 * US, 1000 * US, 2000 * US, 3000 * US, 4000 * US]


def test_deadlines_that_fall_together_are_one() -> None:
    view = fleet_view([work_class(10, 600), work_class(20, 600), work_class(5, 900)])
    work = pool_work(
        lanes_of(view, quantile=0.5),
        {Lane(model="model", tier=Tier.BULK): 0.5},
        {"model": UnitPace(output_token_seconds=2.0)},
    )

    left, due = cumulative(work, 0, 100.0)

    assert list(left) == [500.0, 800.0]
    assert list(due) == [30.0, 35.0]


@pytest.mark.parametrize(
    ("current", "metric", "wanted"),
    # As in the documentation of Kubernetes: double at twice the target, half at half of it, and nothing within a tenth.
    [(3, 200.0, 6), (4, 50.0, 2), (5, 109.0, 5), (5, 91.0, 5), (5, 111.0, 6), (0, 500.0, 0), (7, 0.0, 0)],
)
def test_the_classic_autoscaler_multiplies_by_metric_over_target(current: int, metric: float, wanted: int) -> None:
    assert replicas(current, metric, 100.0) == wanted


def test_a_target_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        replicas(1, 1.0, 0.0)


def test_going_down_waits_for_the_whole_window_and_going_up_does_not() -> None:
    stabilizer = Stabilizer(down_seconds=300.0, up_period_seconds=None)

    assert stabilizer.settle(0, 2, 9) == 9
    assert stabilizer.settle(100 * US, 9, 3) == 9
    assert stabilizer.settle(299 * US, 9, 3) == 9
    assert stabilizer.settle(301 * US, 9, 3) == 3


def test_going_up_at_most_doubles_in_its_period_or_adds_four() -> None:
    stabilizer = Stabilizer()

    assert stabilizer.settle(0, 1, 100) == 5
    assert stabilizer.settle(5 * US, 5, 100) == 5
    assert stabilizer.settle(20 * US, 5, 100) == 10


def test_a_cold_start_is_what_is_believed_until_starts_were_seen() -> None:
    times = StartTimes(prior_seconds=200.0, prior_count=2)

    assert times.quantile(0.8) == 200.0
    for _ in range(20):
        times.observe(50.0)
    assert times.quantile(0.8) == 50.0
    times.observe(-1.0)
    assert len(times.seconds) == 20
