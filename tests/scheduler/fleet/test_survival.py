"""What is learned of runs and outages."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scheduler.fleet.survival import (
    AGE_EDGES,
    BUCKETS,
    Exposure,
    PoolHistory,
    Survival,
    bucket_of,
    fit,
    nelson_aalen,
)


def test_nelson_aalen_agrees_with_a_table_made_by_hand() -> None:
    # Runs of 1, 2, 2 and 3 ticks, and two still there after 2 and 4: at risk 6, 4 and 2 at ages 1, 2 and 3,
    # for nobody knows whether what was last seen at 2 ticks ended with them.
    exposure = Exposure()
    for length, is_censored in ((1, False), (2, False), (2, False), (3, False), (2, True), (4, True)):
        exposure.run(length, is_censored=is_censored)

    cumulative, survival = nelson_aalen(exposure)

    assert cumulative == pytest.approx([1 / 6, 1 / 6 + 2 / 4, 1 / 6 + 2 / 4 + 1 / 2])
    assert survival == pytest.approx(np.exp(-cumulative))
    assert exposure.at_risk == [6, 4, 2]


def test_a_run_that_was_still_there_is_at_risk_and_does_not_end() -> None:
    history = PoolHistory.of([False, True, True, True])

    assert history.runs.at_risk == [1, 1]
    assert history.runs.ended == [0, 0]
    assert history.outages.ended == [1]
    assert (history.is_available, history.age_ticks) == (True, 3)


def test_history_tick_by_tick_is_that_of_the_whole_trace() -> None:
    trace = np.random.default_rng(3).random(500) < 0.6
    online = PoolHistory()

    for each in trace:
        online.observe(bool(each))

    assert online == PoolHistory.of(trace)


def test_what_nobody_looked_at_ends_no_run() -> None:
    history = PoolHistory.of([True, True, None, False, False, True])

    assert sum(history.runs.ended) == 0
    assert history.runs.at_risk == [1]
    assert history.outages.ended == [0, 1]


def test_every_age_has_one_bucket() -> None:
    assert [bucket_of(age) for age in AGE_EDGES] == list(range(BUCKETS))
    assert bucket_of(0) == 0
    assert bucket_of(10_000) == BUCKETS - 1


def test_ticks_left_are_those_of_a_geometric_life_when_the_hazard_is_the_same_at_all_ages() -> None:
    flat = np.full(BUCKETS, 0.05)
    survival = Survival(run_hazards=flat, outage_hazards=flat * 4)

    for age in (1, 7, 300):
        assert survival.left_ticks(age, is_available=True) == pytest.approx(20)
    assert survival.residual_ticks(is_available=True) == pytest.approx(20)
    assert survival.availability == pytest.approx(0.8)
    assert survival.age_weights(is_available=True).sum() == pytest.approx(1)


def test_pools_are_shrunk_to_the_fleet_and_the_more_is_known_the_less() -> None:
    drawn = np.random.default_rng(0)
    steady = [_geometric(drawn, 0.02, 0.2, 4000) for _ in range(4)]
    shaky = _geometric(drawn, 0.3, 0.2, 4000)
    known = {f"steady-{at}": PoolHistory.of(trace) for at, trace in enumerate(steady)}

    fleet, pools = fit(
        {**known, "shaky": PoolHistory.of(shaky), "new": PoolHistory.of(shaky[:6]), "unseen": PoolHistory()}
    )

    # By the mean of a bucket that all have been in.
    assert pools["shaky"].run_hazards[0] == pytest.approx(0.3, rel=0.2)
    assert pools["unseen"].run_hazards == pytest.approx(fleet.run_hazards)
    low, high = sorted((fleet.run_hazards[0], pools["shaky"].run_hazards[0]))
    assert low <= pools["new"].run_hazards[0] <= high
    assert np.all(pools["steady-0"].run_hazards[:5] < fleet.run_hazards[:5])


def test_hazards_are_never_certain() -> None:
    _, pools = fit({"always": PoolHistory.of([True] * 5000), "never": PoolHistory.of([False] * 5000)})

    for survival in pools.values():
        for hazards in (survival.run_hazards, survival.outage_hazards):
            assert np.all((hazards > 0) & (hazards < 1))
    assert pools["always"].left_ticks(1, is_available=True) > 1000
    assert math.isfinite(pools["always"].left_ticks(1, is_available=True))


def _geometric(drawn: np.random.Generator, run: float, outage: float, ticks: int) -> np.ndarray:
    trace = np.zeros(ticks, dtype=bool)
    for tick in range(1, ticks):
        ends = run if trace[tick - 1] else outage
        trace[tick] = trace[tick - 1] != (drawn.random() < ends)
    return trace
