from __future__ import annotations

from random import Random

import pytest

from scheduler.prediction.fixed import FixedTime

ASSUMED = 2.0


def spans(fixed: float, lengths: list[float], *, noise: float = 0.0, seed: int = 3) -> list[tuple[float, float]]:
    random = Random(seed)
    return [(length, (fixed + length) * random.gauss(1, noise)) for length in lengths]


def test_what_packs_take_however_few_their_rows_are_is_told_by_short_ones() -> None:
    found = FixedTime.of(spans(0.4, [0.01, 0.5, 2.0, 8.0, 10.0]))

    assert found.expected == pytest.approx(0.4)
    assert found.upper(ASSUMED) == pytest.approx(0.4, abs=0.02)


def test_packs_of_one_length_tell_no_more_than_that_it_is_no_longer_than_they_are() -> None:
    assert FixedTime.of(spans(0.4, [10.0] * 20)).upper(ASSUMED) == ASSUMED
    assert FixedTime.of(spans(0.4, [0.1] * 20)).upper(ASSUMED) == pytest.approx(0.5)


def test_before_anything_ran_it_is_what_was_assumed() -> None:
    assert FixedTime.of([]).upper(ASSUMED) == ASSUMED
    assert FixedTime.of([]).expected == 0.0


@pytest.mark.parametrize("fixed", [0.0, 0.05, 1.0, 5.0, 30.0])
def test_few_packs_need_more_than_the_bound(fixed: float) -> None:
    random = Random(7)
    beyond = 0
    for seed in range(100):
        lengths = [random.choice([0.05, 0.5, 4.0, 10.0]) for _ in range(40)]
        found = FixedTime.of(spans(fixed, lengths, noise=0.1, seed=seed))
        beyond += found.upper(ASSUMED) < fixed * random.gauss(1, 0.1)

    assert beyond <= 15


def test_packs_that_take_no_longer_with_more_rows_have_a_fixed_time_only() -> None:
    found = FixedTime.of([(1.0, 3.0), (2.0, 2.9), (4.0, 2.8), (8.0, 2.7)])

    assert found.expected == pytest.approx(2.85, abs=0.05)
