from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.gate.evidence import Tally, above, below, difference_bounds, log_evidence

COUNTS = st.integers(0, 500)
TALLIES = st.builds(Tally, worse=COUNTS, same=st.integers(0, 3000), better=COUNTS)
MEANS = st.floats(-0.2, 0.2)


@given(TALLIES, st.floats(-0.1, 0.1), st.floats(0, 1), st.floats(0, 1))
def test_no_next_item_raises_the_evidence_on_average_where_the_hypothesis_holds(
    tally: Tally, mean_max: float, flips: float, below_max: float
) -> None:
    mean = max(-flips, min(flips, mean_max - below_max * 0.2))
    if mean > mean_max:
        return
    chances = ((flips - mean) / 2, 1 - flips, (flips + mean) / 2)

    now = above(tally, mean_max)
    expected = sum(
        chance * math.exp(above(tally.plus(x), mean_max) - now) for x, chance in zip((-1, 0, 1), chances, strict=True)
    )

    assert expected <= 1 + 1e-9


def test_the_evidence_starts_at_one() -> None:
    assert above(Tally(), -0.02) == pytest.approx(0)
    assert below(Tally(), 0.0) == pytest.approx(0)


@given(TALLIES, MEANS, MEANS)
def test_doubting_a_higher_mean_is_never_easier(tally: Tally, first: float, second: float) -> None:
    assert above(tally, max(first, second)) <= above(tally, min(first, second)) + 1e-9


@given(st.lists(st.sampled_from((-1, 0, 1)), max_size=60), st.randoms(use_true_random=False))
def test_the_order_of_items_leaves_no_trace(marks: list[int], rng: random.Random) -> None:
    shuffled = rng.sample(marks, len(marks))

    assert counted(shuffled) == counted(marks)


def counted(marks: list[int]) -> Tally:
    tally = Tally()
    for x in marks:
        tally = tally.plus(x)
    return tally


@given(TALLIES, MEANS)
def test_many_tallies_at_once_give_what_each_gives_alone(tally: Tally, mean_max: float) -> None:
    other = tally.plus(1)

    together = log_evidence(np.stack([tally.as_counts(), other.as_counts()]), mean_max)

    assert together == pytest.approx([above(tally, mean_max), above(other, mean_max)])


@given(TALLIES)
def test_the_interval_holds_the_mean_and_mirrors_with_the_sides(tally: Tally) -> None:
    low, high = difference_bounds(tally)

    assert -1 <= low <= tally.difference <= high <= 1
    assert difference_bounds(tally.mirrored()) == pytest.approx((-high, -low))


def test_the_interval_excludes_what_the_test_refutes() -> None:
    tally = Tally(worse=74, same=2835, better=52)
    low, high = difference_bounds(tally)

    assert above(tally, low - 1e-6) > math.log(40) > above(tally, low + 1e-6)
    assert below(tally, high + 1e-6) > math.log(40) > below(tally, high - 1e-6)


def test_the_interval_covers_the_truth_at_every_moment_together() -> None:
    rng = np.random.default_rng(5)
    truth, missed = -0.01, 0
    for _ in range(300):
        x = rng.choice([-1, 0, 1], size=1500, p=[0.05, 0.91, 0.04])
        counts = np.stack([(x == value).cumsum() for value in (-1, 0, 1)], axis=-1).astype(float)
        high = log_evidence(counts[:, ::-1], -truth).max()
        missed += bool(max(log_evidence(counts, truth).max(), high) >= math.log(40))

    assert missed <= 300 * 0.05


def test_more_items_of_the_same_kind_narrow_the_interval() -> None:
    widths = [
        high - low
        for low, high in (difference_bounds(Tally(worse=3 * k, same=94 * k, better=3 * k)) for k in (1, 4, 16, 64))
    ]

    assert widths == sorted(widths, reverse=True)


def test_counts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Tally(worse=-1)
    with pytest.raises(ValueError, match="-1, 0 or 1"):
        Tally().plus(2)


@given(TALLIES)
def test_a_tally_survives_being_stored(tally: Tally) -> None:
    assert Tally.from_plain(tally.as_plain()) == tally
