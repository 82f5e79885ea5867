from __future__ import annotations

import numpy as np
import pytest

from workers.gate.answer_reader import SAMPLED_BOUNDS
from workers.gate.deficit import greedy_deficit, sampled_deficit

RNG = np.random.default_rng(3)
LOGITS = RNG.normal(scale=3, size=(6, 50))


def softmax(
    logits: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def test_the_token_that_the_reference_would_have_taken_costs_nothing() -> None:
    assert greedy_deficit(LOGITS, LOGITS.argmax(axis=-1).tolist()).tolist() == [0.0] * 6


def test_a_token_as_likely_as_the_best_costs_nothing_and_an_impossible_one_all_that_the_best_had() -> None:
    logits = np.array([[5.0, 5.0, -np.inf]] * 3)

    assert greedy_deficit(logits, [0, 1, 2]).tolist() == pytest.approx([0.0, 0.0, -0.5])


def test_tokens_drawn_from_the_references_own_distribution_cost_nothing_on_average() -> None:
    p = softmax(LOGITS)
    values = np.stack([sampled_deficit(LOGITS, [token] * len(LOGITS)) for token in range(50)], axis=-1)

    assert (p * values).sum(axis=-1) == pytest.approx(np.zeros(6), abs=1e-12)


def test_tokens_drawn_from_a_flatter_distribution_cost_something() -> None:
    flatter = softmax(LOGITS / 3)
    values = np.stack([sampled_deficit(LOGITS, [token] * len(LOGITS)) for token in range(50)], axis=-1)

    assert ((flatter * values).sum(axis=-1) < -0.01).all()
    assert values.min() >= SAMPLED_BOUNDS[0]


def test_no_drawn_token_is_worth_more_than_its_bound() -> None:
    p = np.linspace(0.001, 0.999, 999)
    logits = np.log(np.stack([p, 1 - p], axis=-1))

    values = sampled_deficit(logits, [0] * len(p))

    assert values.max() == pytest.approx(0.125)
    assert values.max() <= SAMPLED_BOUNDS[1]
    spread = np.log(np.concatenate([[0.5], np.full(5000, 0.0001)]))[None]
    assert sampled_deficit(spread, [0])[0] == pytest.approx(SAMPLED_BOUNDS[1], abs=1e-3)
