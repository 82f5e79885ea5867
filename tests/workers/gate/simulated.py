"""Runs of the sequential test on made-up items, many at once, looked at after every single item.

Evidence that the mean of x is above m falls at -1 alone where m is 0 or less: its highest value comes just before a -1
or at the end. Where m is more than 0 it grows at 1 alone: its highest value comes just after a 1. Only those moments
are computed, which is the same as all of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from workers.gate.evidence import log_evidence

Floats = NDArray[np.float64]
Evidence = Callable[[Floats, float], Floats]

RUNS_AT_ONCE = 16


def peaks(
    rng: np.random.Generator, *, runs: int, items: int, flips: float, difference: float
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return counts [worse, same, better] just before each -1 and at the end, and which of these moments exist.

    `flips` is P(x != 0), `difference` the mean of x; shapes are (runs, moments, 3) and (runs, moments).
    """
    worse, better = (flips - difference) / 2, (flips + difference) / 2
    assert worse > 0, (flips, difference)
    assert better >= 0, (flips, difference)
    moments = int(items * worse + 8 * np.sqrt(items * worse) + 12)
    # Items between two -1; `geometric` counts the -1 itself.
    gaps = rng.geometric(worse, size=(runs, moments)) - 1
    before = np.cumsum(gaps, axis=1) + np.arange(moments)
    starts = before - gaps
    exists = starts <= items
    assert not exists[:, -1].any(), "too few moments were drawn"
    gaps = np.clip(np.minimum(before, items) - starts, 0, None)
    plus = rng.binomial(gaps, better / (1 - worse)).cumsum(axis=1)
    minus = np.broadcast_to(np.arange(moments), plus.shape)
    total = np.minimum(before, items)
    return np.stack([minus, total - minus - plus, plus], axis=-1).astype(np.float64), exists


def gains(
    rng: np.random.Generator, *, runs: int, items: int, flips: float, difference: float
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return counts just after each 1, and which of these moments exist; otherwise as `peaks`."""
    worse, better = (flips - difference) / 2, (flips + difference) / 2
    assert worse >= 0, (flips, difference)
    assert better > 0, (flips, difference)
    moments = int(items * better + 8 * np.sqrt(items * better) + 12)
    gaps = rng.geometric(better, size=(runs, moments)) - 1
    plus = np.broadcast_to(np.arange(1, moments + 1), gaps.shape)
    total = np.cumsum(gaps, axis=1) + plus
    exists = total <= items
    assert not exists[:, -1].any(), "too few moments were drawn"
    minus = rng.binomial(gaps, worse / (1 - better)).cumsum(axis=1)
    return np.stack([minus, total - minus - plus, plus], axis=-1).astype(np.float64), exists


def first_crossings(
    counts: Floats, exists: NDArray[np.bool_], *, mean_max: float, threshold: float, evidence: Evidence = log_evidence
) -> Floats:
    """Return for each run an upper bound of the item at which the evidence reached `threshold`; infinite if never."""
    crossed = np.zeros(exists.shape, dtype=bool)
    # Evidence holds 32 numbers for every moment: few runs at a time stay in the processor's cache.
    for start in range(0, len(counts), RUNS_AT_ONCE):
        part = slice(start, start + RUNS_AT_ONCE)
        crossed[part] = evidence(counts[part], mean_max) >= threshold
    crossed &= exists
    at = crossed.argmax(axis=1)
    totals = counts.sum(axis=-1)[np.arange(len(counts)), at]
    return np.where(crossed.any(axis=1), totals, np.inf)
