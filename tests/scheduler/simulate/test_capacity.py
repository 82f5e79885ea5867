"""Capacity over time: steps, what is recorded, and what is made up."""

from __future__ import annotations

import pytest

from scheduler.simulate.capacity import Capacity, made_up_capacity


def test_looks_that_find_the_same_are_one_step() -> None:
    found = Capacity.of([(5.0, 2), (10.0, 2), (20.0, 0), (30.0, 3)])

    assert found == Capacity((0.0, 20.0, 30.0), (2, 0, 3))
    assert [found.at(at) for at in (0.0, 19.9, 20.0, 1e9)] == [2, 2, 0, 3]
    assert list(found.drops()) == [(20.0, 0)]


def test_a_trace_begins_anew_when_it_ends() -> None:
    found = Capacity.tiled([1, 0, 0], tick_seconds=10.0, until_seconds=65.0)

    assert [found.at(10.0 * tick) for tick in range(7)] == [1, 0, 0, 1, 0, 0, 1]


@pytest.mark.parametrize(("times", "counts"), [((), ()), ((1.0,), (1,)), ((0.0, 0.0), (1, 2)), ((0.0,), (-1,))])
def test_steps_out_of_order_are_refused(times: tuple[float, ...], counts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="capacity"):
        Capacity(times, counts)


def test_capacity_that_is_made_up_is_there_as_often_as_asked() -> None:
    def made(seed: str) -> Capacity:
        return made_up_capacity(workers=8, run_hours=3.0, outage_hours=1.0, until_seconds=3e7, seed=seed)

    found = made("a")

    share = sum(found.at(at) > 0 for at in range(0, 30_000_000, 1800)) / (30_000_000 / 1800)
    assert 0.55 < share < 0.9
    assert found == made("a")
    assert found != made("b")
