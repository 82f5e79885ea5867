"""How often the test is wrong at its very edge, looked at after every item; and that this would notice a wrong test."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.workers.gate.simulated import Evidence, Floats, first_crossings, gains, peaks
from workers.gate.evidence import SHARES, log_evidence
from workers.gate.trial import WORSE_SHARE

RUNS = 2000
ITEMS = 4000
ALPHA = 0.05
#: What a test that is wrong with probability 0.05 exceeds one time in a thousand.
WRONG_MAX = ALPHA + 3.1 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)


def wrong_share(evidence: Evidence, *, margin: float, flips: float, threshold: float = math.log(1 / ALPHA)) -> float:
    rng = np.random.default_rng(11)
    counts, exists = peaks(rng, runs=RUNS, items=ITEMS, flips=flips, difference=-margin)
    crossed = first_crossings(counts, exists, mean_max=-margin, threshold=threshold, evidence=evidence)
    return float(np.isfinite(crossed).mean())


@pytest.mark.parametrize("flips", [0.03, 0.06, 0.20])
@pytest.mark.parametrize("margin", [0.0, 0.01, 0.02, 0.03])
def test_a_variant_at_the_margin_is_accepted_with_probability_alpha_at_most(margin: float, flips: float) -> None:
    if flips <= margin:
        flips = margin + 0.01

    assert wrong_share(log_evidence, margin=margin, flips=flips) <= ALPHA


@pytest.mark.parametrize("flips", [0.03, 0.20])
@pytest.mark.parametrize("margin", [0.01, 0.03])
def test_a_variant_worse_by_a_quarter_of_the_margin_is_rejected_with_probability_alpha_at_most(
    margin: float, flips: float
) -> None:
    loss = WORSE_SHARE * margin
    counts, exists = gains(np.random.default_rng(12), runs=RUNS, items=ITEMS, flips=flips, difference=loss)

    # Sides exchanged: what is counted as better here is the variant's loss.
    crossed = first_crossings(counts, exists, mean_max=loss, threshold=math.log(1 / ALPHA))

    assert np.isfinite(crossed).mean() <= ALPHA


def grown(counts: Floats, mean_max: float) -> Floats:
    logs: Floats = counts @ np.log(np.stack([1 + SHARES * (x - mean_max) / (1 + mean_max) for x in (-1, 0, 1)]))
    return logs


def the_best_bet_in_hindsight(counts: Floats, mean_max: float) -> Floats:
    best: Floats = grown(counts, mean_max).max(axis=-1)
    return best


def weights_that_sum_to_two(counts: Floats, mean_max: float) -> Floats:
    return log_evidence(counts, mean_max) + math.log(2)


def a_factor_that_counts_the_margin_twice(counts: Floats, mean_max: float) -> Floats:
    return log_evidence(counts, 2 * mean_max)


def same_items_that_count_as_better(counts: Floats, mean_max: float) -> Floats:
    moved = counts.copy()
    moved[..., 2] += 0.1 * moved[..., 1]
    moved[..., 1] *= 0.9
    return log_evidence(moved, mean_max)


def a_textbook_test_repeated(counts: Floats, mean_max: float) -> Floats:
    total = counts.sum(axis=-1)
    mean = (counts[..., 2] - counts[..., 0]) / np.maximum(total, 1)
    spread = np.sqrt(np.maximum((counts[..., 0] + counts[..., 2]) / np.maximum(total, 1) - mean**2, 1e-9))
    z: Floats = (mean - mean_max) * np.sqrt(total) / spread
    return np.where((z > 1.645) & (total > 100), 10.0, 0.0)


@pytest.mark.parametrize(
    "mutant",
    [
        the_best_bet_in_hindsight,
        weights_that_sum_to_two,
        a_factor_that_counts_the_margin_twice,
        same_items_that_count_as_better,
        a_textbook_test_repeated,
    ],
)
def test_the_simulation_notices_a_test_that_is_wrong_too_often(mutant: Evidence) -> None:
    assert wrong_share(mutant, margin=0.02, flips=0.10) > WRONG_MAX


def test_the_moments_simulated_are_all_that_matter() -> None:
    rng = np.random.default_rng(3)
    for _ in range(40):
        x = rng.choice([-1, 0, 1], size=400, p=[0.08, 0.86, 0.06])
        counts = np.stack([(x == value).cumsum() for value in (-1, 0, 1)], axis=-1).astype(float)
        every = log_evidence(counts, -0.02)
        peak_at = [index for index in range(400) if index == 399 or x[index + 1] == -1]

        assert every.max() == every[peak_at].max()

        rising = log_evidence(counts, 0.01)
        after_gain = [index for index in range(400) if x[index] == 1]
        # Before the first gain the evidence has only fallen, from 1.
        assert max(0.0, rising.max()) == max(0.0, rising[after_gain].max())
