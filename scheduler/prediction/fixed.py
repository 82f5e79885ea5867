"""Fixed time: the seconds that a pack takes however few rows it has: its input is fetched, its engine warms up, it is committed.

What packs took is laid over what their rows were predicted to take: seconds = fixed + s * predicted, neither below zero,
each pack by its relative error. Packs of one length say nothing of what another would take without rows, and the error of
`fixed` is then as large: an upper bound is what was assumed, and never more than the shortest pack took.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from scheduler.columns import Floats

#: Packs whose predicted and actual seconds are remembered.
SPANS_KEPT: Final = 100
#: So few tell nothing of their errors.
_SPANS_ENOUGH: Final = 4
#: Standard errors that an upper bound allows for: nineteen of twenty stay below.
_ERRORS: Final = 1.64
#: Lengths that differ by less are one, in squares of their relative spread.
_SPREAD_LEAST: Final = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedTime:
    """The fixed seconds of one variant's packs in one pool."""

    #: As it is expected; 0 while nothing is known.
    expected: float = 0.0
    #: Its standard error; infinite while nothing is known.
    error: float = math.inf
    #: How far packs spread about what this says of them, as a share.
    spread: float = 0.0
    #: The shortest pack, in seconds.
    shortest: float = math.inf

    @classmethod
    def of(cls, spans: Iterable[tuple[float, float]]) -> FixedTime:
        """Return what packs say, each given as its rows' predicted seconds and the seconds that it took."""
        predicted, seconds = np.array([*spans], dtype=np.float64).reshape(-1, 2).T
        if not len(seconds):
            return cls()
        shortest = float(seconds.min())
        if len(seconds) < _SPANS_ENOUGH:
            return cls(shortest=shortest)
        # The lucky packs would count for more than the others: the second time by what the first says of them.
        found = _laid_over(predicted, seconds, seconds)
        found = found and _laid_over(predicted, seconds, found[0] + found[1] * predicted)
        if found is None:
            return cls(shortest=shortest)
        fixed, _slope, error, spread = found
        return cls(expected=fixed, error=error, spread=spread, shortest=shortest)

    def upper(self, assumed: float) -> float:
        """Return seconds that few packs need more than before their first row; `assumed` as long as packs do not tell."""
        known = self.expected + _ERRORS * self.error
        return min(known, max(min(assumed, self.shortest), 2 * self.expected)) * (1 + _ERRORS * self.spread)


def _laid_over(predicted: Floats, seconds: Floats, scale: Floats) -> tuple[float, float, float, float] | None:
    """Return fixed seconds, slope, the error of the former, and the spread relative to `scale`; None for packs of one length."""
    ones, slopes, wanted = 1 / scale, predicted / scale, seconds / scale
    gram = np.array([[ones @ ones, ones @ slopes], [ones @ slopes, slopes @ slopes]])
    determinant = float(np.linalg.det(gram))
    if determinant < _SPREAD_LEAST * gram[0, 0] * gram[1, 1]:
        return None
    fixed, slope = np.linalg.solve(gram, np.array([ones @ wanted, slopes @ wanted])).tolist()
    if fixed < 0:
        fixed, slope = 0.0, float(slopes @ wanted / gram[1, 1])
    elif slope < 0:
        fixed, slope = float(ones @ wanted / gram[0, 0]), 0.0
    residuals = wanted - fixed * ones - slope * slopes
    spread = math.sqrt(float(residuals @ residuals) / (len(seconds) - 2))
    return fixed, slope, spread * math.sqrt(gram[1, 1] / determinant), spread
