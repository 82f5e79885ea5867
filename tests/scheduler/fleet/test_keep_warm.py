"""Idle workers: never more than twice what knowing the next arrival would cost, and less once gaps are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.fleet.keep_warm import (
    IdleGaps,
    idle_cost_seconds,
    learned_threshold,
    ski_rental_seconds,
    start_cost_seconds,
)
from tests.scheduler.fleet.fleet_world import US

GAPS = st.lists(st.floats(0, 100_000), min_size=1, max_size=60).map(np.array)


@settings(max_examples=200, deadline=None)
@given(gaps=GAPS, start=st.floats(1, 5000))
def test_waiting_as_long_as_a_start_costs_is_never_dearer_than_twice_the_optimum(
    gaps: np.ndarray, start: float
) -> None:
    optimum = float(np.minimum(gaps, start).sum())

    assert idle_cost_seconds(gaps, ski_rental_seconds(start), start) <= 2 * optimum + 1e-6


def test_waiting_twice_as_long_is_found_out() -> None:
    gaps = np.full(10, 10_000.0)

    assert idle_cost_seconds(gaps, 2 * ski_rental_seconds(300.0), 300.0) > 2 * np.minimum(gaps, 300.0).sum()


@settings(max_examples=100, deadline=None)
@given(gaps=GAPS, start=st.floats(1, 5000), other=st.floats(0, 100_000))
def test_the_learned_wait_costs_least_over_what_was_seen(gaps: np.ndarray, start: float, other: float) -> None:
    best = idle_cost_seconds(gaps, learned_threshold(gaps, start), start)

    assert best <= idle_cost_seconds(gaps, other, start) + 1e-6


def test_long_gaps_teach_to_stop_at_once_and_short_ones_to_wait() -> None:
    assert learned_threshold(np.full(20, 5000.0), 300.0) == 0.0
    assert learned_threshold(np.array([20.0] * 19 + [5000.0]), 300.0) == 20.0


def test_gaps_are_from_quiet_to_work_and_few_of_them_teach_nothing() -> None:
    gaps = IdleGaps()
    for number in range(16):
        assert gaps.threshold_seconds(300.0) == 300.0
        gaps.observe(1000 * number * US, has_work=False)
        gaps.observe((1000 * number + 5) * US, has_work=False)
        gaps.observe((1000 * number + 30) * US, has_work=True)
        gaps.observe((1000 * number + 40) * US, has_work=True)

    assert list(gaps.gaps) == [30.0] * 16
    assert gaps.threshold_seconds(300.0) == 30.0


def test_what_is_billed_at_least_is_part_of_a_start() -> None:
    assert start_cost_seconds(30.0, minimum_seconds=60.0) == 60.0
    assert start_cost_seconds(300.0, minimum_seconds=60.0, lost_seconds=20.0) == pytest.approx(320.0)
