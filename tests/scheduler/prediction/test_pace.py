from __future__ import annotations

from itertools import combinations
from random import Random

import numpy as np
import pytest

from pipeline.ports.cycle import WorkSize
from scheduler.prediction.pace import RATIOS_KEPT, Pace, least_non_negative, mean_absolute_percentage_error


def pack(random: Random) -> WorkSize:
    rows = random.randint(64, 512)
    return WorkSize(rows=rows, input_tokens=rows * random.randint(20, 400), output_tokens=rows * random.randint(4, 128))


def took(size: WorkSize) -> float:
    return 0.01 * size.rows + 0.0004 * size.input_tokens + 0.005 * size.output_tokens


def learned(packs: int, *, noise: float, seed: int = 1) -> tuple[Pace, Random]:
    random, pace = Random(seed), Pace()
    for _ in range(packs):
        size = pack(random)
        seconds = took(size) * random.gauss(1, noise)
        pace.learn(size, seconds)
    return pace, random


def test_before_anything_ran_the_assumed_speed_is_the_prediction() -> None:
    size = WorkSize(rows=7, input_tokens=300, output_tokens=200)

    assert Pace().seconds(size, tokens_per_second=100.0) == pytest.approx(5.0)


def test_packs_to_come_are_predicted_within_two_percent_of_a_linear_truth() -> None:
    pace, random = learned(150, noise=0.01)
    held_out = [pack(random) for _ in range(100)]

    error = mean_absolute_percentage_error(
        (pace.seconds(size, tokens_per_second=100.0), took(size)) for size in held_out
    )

    assert error is not None
    assert error < 2.0


def test_few_packs_make_no_wild_guess() -> None:
    pace, random = learned(3, noise=0.05)

    ratios = [took(size) / pace.seconds(size, tokens_per_second=100.0) for size in (pack(random) for _ in range(50))]

    assert all(0.3 < ratio < 3 for ratio in ratios)


def test_a_pace_that_changes_is_followed() -> None:
    pace, random = learned(100, noise=0.02)
    for _ in range(400):
        size = pack(random)
        pace.learn(size, 2 * took(size))

    size = pack(random)

    assert pace.seconds(size, tokens_per_second=100.0) == pytest.approx(2 * took(size), rel=0.15)


def test_no_prediction_is_negative_however_odd_the_packs() -> None:
    pace = Pace()
    for rows, inputs, outputs, seconds in ((10, 1000, 10, 9.0), (10, 2000, 20, 3.0), (20, 500, 900, 1.0)):
        pace.learn(WorkSize(rows=rows, input_tokens=inputs, output_tokens=outputs), seconds)

    for feature in np.eye(3):
        size = WorkSize(rows=feature[0], input_tokens=feature[1], output_tokens=feature[2])
        assert pace.seconds(size, tokens_per_second=100.0) >= 0


def test_the_upper_bound_holds_for_nine_packs_of_ten() -> None:
    pace, random = learned(500, noise=0.1)
    (factor,) = pace.upper_factors(np.array([1.0]), assumed=9.0)
    held_out = [pack(random) for _ in range(400)]

    within = sum(
        took(size) * random.gauss(1, 0.1) <= factor * pace.seconds(size, tokens_per_second=100.0) for size in held_out
    )

    assert 0.86 <= within / 400 <= 0.96


def test_over_many_packs_errors_even_out_but_never_to_nothing() -> None:
    pace, _ = learned(500, noise=0.1)

    factors = pace.upper_factors(np.array([1.0, 4.0, 100.0, 1e6]), assumed=9.0).tolist()

    assert factors == sorted(factors, reverse=True)
    assert factors[-1] == 1.05


def test_while_too_little_has_run_for_a_bound_the_assumed_one_holds() -> None:
    assert learned(8, noise=0.1)[0].upper_factors(np.array([1.0]), assumed=1.5).tolist() == [1.5]


def test_what_is_told_and_read_again_predicts_the_same() -> None:
    pace, random = learned(RATIOS_KEPT + 20, noise=0.1)
    again = Pace.from_plain(pace.as_plain())
    size = pack(random)

    assert again.seconds(size, tokens_per_second=100.0) == pace.seconds(size, tokens_per_second=100.0)
    three = np.array([3.0])
    assert again.upper_factors(three, assumed=9.0) == pytest.approx(pace.upper_factors(three, assumed=9.0), rel=1e-5)
    assert len(again.ratios) == RATIOS_KEPT


def test_the_least_squares_solution_is_the_best_of_all_corners() -> None:
    random = np.random.default_rng(5)
    for _ in range(200):
        rows = random.normal(size=(6, 3))
        gram, moment = rows.T @ rows + 0.01 * np.eye(3), random.normal(size=3)

        found = least_non_negative(gram, moment)

        gradient = gram @ found - moment
        assert (found >= 0).all()
        # Karush-Kuhn-Tucker: no coefficient could be better elsewhere.
        assert np.allclose(gradient[found > 0], 0, atol=1e-9)
        assert (gradient[found == 0] >= -1e-9).all()
    assert len(list(combinations(range(3), 2))) == 3
