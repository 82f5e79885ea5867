from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.wealth import SHARES, WEIGHTS, Bounds, Wealth
from workers.gate.evidence import Tally, above, below

BOTH: Bounds = (-1.0, 1.0)
LOSS: Bounds = (-1.0, 0.0)
LOSSES = st.lists(st.floats(-1, 0), max_size=30)


def doubting_within(xs: Iterable[float], margin: float, bounds: Bounds = LOSS) -> Wealth:
    wealth = Wealth()
    for x in xs:
        wealth = wealth.doubting_at_least(-margin, x, bounds)
    return wealth


@given(st.lists(st.sampled_from((-1, 0, 1)), max_size=40), st.floats(-0.2, 0.2))
def test_of_three_outcomes_capitals_say_what_counts_say(marks: list[int], mean: float) -> None:
    tally, low, high = Tally(), Wealth(), Wealth()
    for x in marks:
        tally = tally.plus(x)
        low, high = low.doubting_at_most(mean, x, BOTH), high.doubting_at_least(mean, x, BOTH)

    assert low.log_evidence == pytest.approx(above(tally, mean), abs=1e-9)
    assert high.log_evidence == pytest.approx(below(tally, mean), abs=1e-9)


@given(LOSSES, st.floats(0.001, 0.5), st.floats(0, 1), st.floats(0, 1))
def test_no_next_item_raises_the_evidence_on_average_where_the_hypothesis_holds(
    xs: list[float], margin: float, worst: float, share: float
) -> None:
    # Two outcomes, the rarer a loss of `worst`, with a mean of the margin at most.
    chance = min(1.0, share * margin / worst) if worst else share
    before = doubting_within(xs, margin)

    after = [before.doubting_at_least(-margin, x, LOSS).log_evidence for x in (-worst, 0.0)]
    mean = chance * math.exp(after[0] - before.log_evidence) + (1 - chance) * math.exp(after[1] - before.log_evidence)

    assert mean <= 1 + 1e-9


@given(LOSSES, st.randoms(use_true_random=False))
def test_the_order_of_items_leaves_no_trace(xs: list[float], rng: random.Random) -> None:
    shuffled = rng.sample(xs, len(xs))

    assert doubting_within(shuffled, 0.02).log_evidence == pytest.approx(
        doubting_within(xs, 0.02).log_evidence, abs=1e-9
    )


@pytest.mark.parametrize(("bounds", "worst"), [(LOSS, 1.0), (LOSS, 0.05), (BOTH, 1.0)])
def test_a_variant_exactly_at_its_margin_is_hardly_ever_shown_beyond_it(bounds: Bounds, worst: float) -> None:
    runs, items, margin, alpha = 1000, 400, 0.02, 0.05
    rng = np.random.default_rng(20261121)
    # Beta losses, skewed as those of answers are, scaled to at most `worst`; of both bounds, a gain as often as not.
    mean = margin / worst
    losses = worst * rng.beta(0.3, 0.3 * (1 - mean) / mean, size=(runs, items))
    xs = -losses if bounds is LOSS else np.where(rng.random((runs, items)) < 0.5, -2 * losses, 0.0).clip(-1, 1)
    assert xs.mean() >= -margin * 1.1

    step = (bounds[1] - xs) / (bounds[1] + margin) - 1
    capital = np.zeros((runs, items))
    for share, weight in zip(SHARES, WEIGHTS, strict=True):
        capital += weight * np.exp(np.log1p(share * step).cumsum(axis=1))
    crossed = (capital >= 1 / alpha).any(axis=1).mean()

    assert math.log(capital[0, -1]) == pytest.approx(doubting_within(xs[0], margin, bounds).log_evidence)
    assert crossed <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)


def test_a_loss_of_several_margins_is_shown_in_few_items_where_x_cannot_be_above_zero() -> None:
    known = next(n for n in range(1, 999) if doubting_within([-0.1] * n, 0.02).log_evidence > math.log(100))
    unknown = next(n for n in range(1, 999) if doubting_within([-0.1] * n, 0.02, BOTH).log_evidence > math.log(100))

    assert known < 10 < unknown


def test_answers_of_both_kinds_add_up() -> None:
    mixed = Wealth()
    for x, bounds in ((-0.1, LOSS), (0.3, BOTH), (-0.2, LOSS)):
        mixed = mixed.doubting_at_least(-0.01, x, bounds)
    apart = doubting_within([-0.1, -0.2], 0.01), doubting_within([0.3], 0.01, BOTH)

    assert mixed.logs == pytest.approx([a + b for a, b in zip(apart[0].logs, apart[1].logs, strict=True)])


def test_wealth_survives_being_stored() -> None:
    wealth = doubting_within([-0.1, 0.0, -1.0], 0.02)

    assert Wealth.from_plain(json.loads(json.dumps(wealth.as_plain()))) == wealth


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="not between"):
        Wealth().doubting_at_least(-0.02, 0.1, LOSS)
    with pytest.raises(ValueError, match="32 capitals"):
        Wealth((0.0,))


def test_a_hypothesis_that_no_x_can_speak_for_or_against_is_not_bet_on() -> None:
    assert Wealth().doubting_at_least(-1.0, -0.5, LOSS) == Wealth()
