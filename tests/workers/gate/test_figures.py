from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.gate.divergence import HISTOGRAM_EDGES, kl_per_position, summary
from workers.gate.evidence import Tally
from workers.gate.lengths import length_drift
from workers.gate.outcomes import Outcome
from workers.gate.paired import Pairs, fixed_size_interval, mcnemar, pairs_of, worse_by_chance
from workers.gate.slices import holm, slices_of


def outcome(
    first: int, second: int, *, is_same: bool = False, part: str | None = None, tokens: tuple[int, int] = (5, 5)
) -> Outcome:
    return Outcome(
        custom_id="1", slice=part, reference_is_right=bool(first), variant_is_right=bool(second), is_same_answer=is_same,
        x=second - first, reference_tokens=tokens[0], variant_tokens=tokens[1], reference_status=200, variant_status=200,
    )  # fmt: skip


def test_flips_are_told_apart_by_direction_and_wrong_answers_by_whether_they_changed() -> None:
    pairs = pairs_of(
        [
            outcome(True, True), outcome(True, False), outcome(True, False), outcome(False, True),
            outcome(False, False), outcome(False, False, is_same=True),
        ]
    )  # fmt: skip

    assert pairs == Pairs(both_right=1, right_to_wrong=2, wrong_to_right=1, wrong_same=1, wrong_to_wrong=1)
    assert (pairs.flips, pairs.changes) == (3, 4)
    assert pairs.tally == Tally(worse=2, same=3, better=1)
    assert pairs.variant_accuracy - pairs.reference_accuracy == pytest.approx(pairs.tally.difference)


@pytest.mark.parametrize(
    ("worse", "better", "p"), [(0, 0, 1.0), (5, 1, 14 / 64), (1, 5, 14 / 64), (3, 3, 1.0), (10, 0, 2 / 1024)]
)
def test_mcnemar_is_the_binomial_counted_out(worse: int, better: int, p: float) -> None:
    assert mcnemar(Tally(worse=worse, same=100, better=better)) == pytest.approx(p)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_two_one_sided_chances_overlap_in_one_outcome(worse: int, better: int) -> None:
    tally = Tally(worse=worse, better=better)
    point = math.comb(worse + better, worse) / 2 ** (worse + better)

    assert worse_by_chance(tally) + worse_by_chance(tally.mirrored()) == pytest.approx(1 + point)


def test_mcnemar_takes_counts_past_the_largest_factorial() -> None:
    assert 0 < mcnemar(Tally(worse=50_500, better=49_500)) < 0.002


@given(*[st.integers(0, 80)] * 5)
def test_the_fixed_size_interval_holds_the_difference_and_mirrors(a: int, b: int, c: int, d: int, e: int) -> None:
    pairs = Pairs(both_right=a, right_to_wrong=b, wrong_to_right=c, wrong_same=d, wrong_to_wrong=e)
    low, high = fixed_size_interval(pairs)
    swapped = Pairs(both_right=a, right_to_wrong=c, wrong_to_right=b, wrong_same=d, wrong_to_wrong=e)

    assert low - 1e-9 <= pairs.tally.difference <= high + 1e-9
    assert fixed_size_interval(swapped) == pytest.approx((-high, -low))


def test_the_fixed_size_interval_covers_what_it_says() -> None:
    rng = np.random.default_rng(2)
    draws = rng.multinomial(300, [0.55, 0.06, 0.04, 0.35], size=2000)
    covered = 0
    for a, b, c, d in draws.tolist():
        low, high = fixed_size_interval(Pairs(both_right=a, right_to_wrong=b, wrong_to_right=c, wrong_same=d))
        covered += low <= -0.02 <= high

    assert 0.93 < covered / 2000 < 0.985


def test_holm_multiplies_by_the_hypotheses_left_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_slice_that_loses_comes_first() -> None:
    fine = [outcome(True, True, part="fine") for _ in range(40)]
    bad = [outcome(True, index % 2 == 0, part="bad") for index in range(40)]

    first, second = slices_of([*fine, *bad, outcome(True, False)])

    assert (first.name, second.name) == ("bad", "fine")
    assert first.tally == Tally(worse=20, same=20)
    assert first.p_holm == pytest.approx(2 * 2**-20)
    assert second.p_holm == 1.0


def test_twice_the_tokens_are_a_drift_of_two() -> None:
    drift = length_drift([outcome(True, True, tokens=(length, 2 * length)) for length in (5, 9, 30)])

    assert drift is not None
    assert drift.ratio == pytest.approx(2)
    assert drift.interval == pytest.approx((2, 2))


def test_lengths_that_vary_by_chance_leave_one_inside_the_interval() -> None:
    rng = np.random.default_rng(4)
    inside = 0
    for _ in range(1000):
        lengths = rng.poisson(40, size=(80, 2)).tolist()
        drift = length_drift([outcome(True, True, tokens=(first, second)) for first, second in lengths])
        assert drift is not None
        inside += drift.interval[0] <= 1 <= drift.interval[1]

    assert inside > 925


def test_one_item_has_no_drift() -> None:
    assert length_drift([outcome(True, True)]) is None


def test_equal_logits_diverge_by_nothing_wherever_they_lie() -> None:
    logits = np.random.default_rng(1).normal(size=(200, 30)).astype(np.float32)

    nats, same = kl_per_position(logits, logits + 3)

    assert nats == pytest.approx(np.zeros(200), abs=1e-12)
    assert same.all()


def test_kl_is_what_its_formula_says() -> None:
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.3, 0.6])
    nats, same = kl_per_position(np.log(p)[None], np.log(q)[None] + 1)

    assert nats[0] == pytest.approx(float((p * np.log(p / q)).sum()))
    assert not same[0]


def test_a_token_that_the_reference_rules_out_counts_nothing() -> None:
    nats, _ = kl_per_position(np.array([[0.0, -np.inf]]), np.array([[0.0, 0.0]]))

    assert nats[0] == pytest.approx(math.log(2))


def test_the_histogram_counts_every_position() -> None:
    rng = np.random.default_rng(6)
    parts = [kl_per_position(rng.normal(size=(n, 9)), rng.normal(size=(n, 9))) for n in (3, 70)]
    found = summary([*parts, kl_per_position(np.zeros((2, 9)), np.zeros((2, 9)))])

    assert found is not None
    assert sum(found.histogram) == found.positions == 75
    assert found.histogram[0] == 2
    assert len(found.histogram) == len(HISTOGRAM_EDGES) - 1
    assert found.median_nats <= found.p99_nats <= found.max_nats
    assert summary([]) is None
