"""Pace: the worker-seconds that rows and tokens take, for one variant in one pool, fitted as packs end.

seconds = a * rows + b * input tokens + c * output tokens, none of them negative: the features of HyGen's batch
latency predictor (2501.14808) that a pack's totals can tell. Observations count by their relative error, and each
older one a hundredth less than the next (recursive least squares with forgetting, in its normal equations). What
was assumed before anything ran is one more observation, so that a few packs do not make wild guesses. What a pack
takes however few its rows are is told apart (`scheduler.prediction.fixed`), and is in bounds only.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.shares import UnitCosts
from pipeline.ports.cycle import WorkSize
from scheduler.columns import Floats, Sizes
from scheduler.prediction.fixed import SPANS_KEPT, FixedTime

#: What an observation counts when one more has come.
FORGETTING: Final = 0.99
#: What the assumption counts beside the observations.
_PRIOR_WEIGHT: Final = 0.25
#: Packs whose actual and predicted seconds are remembered.
RATIOS_KEPT: Final = 500
#: Of the packs' ratios, the share that an upper bound holds for.
_CONFIDENCE: Final = 0.9
#: The least that an upper bound allows beyond the prediction, however good the predictions were.
UPPER_FACTOR_MIN: Final = 1.05
_FEATURES: Final = 3
#: Which coefficients may be above zero, as indices of a vector and of a matrix; the most first.
_SUBSETS: Final = [
    (np.array(subset), np.ix_(subset, subset))
    for size in range(_FEATURES, 0, -1)
    for subset in combinations(range(_FEATURES), size)
]


@dataclass(slots=True)
class Pace:
    """What a variant's packs took in one pool so far."""

    #: Sums over the observations, each divided by its seconds: x x' and x.
    gram: NDArray[np.float64] = field(default_factory=lambda: np.zeros((_FEATURES, _FEATURES)))
    moment: NDArray[np.float64] = field(default_factory=lambda: np.zeros(_FEATURES))
    #: How many observations these are, older ones as the fraction they count for.
    weight: float = 0.0
    #: Actual seconds over predicted ones, the last packs'.
    ratios: deque[float] = field(default_factory=lambda: deque(maxlen=RATIOS_KEPT))
    #: Predicted and actual seconds of the last packs.
    spans: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=SPANS_KEPT))
    #: As fitted last, and the assumption it was fitted with.
    _fit: tuple[float, tuple[float, float, float]] | None = None
    #: Mean of the ratios and the quantile that bounds them; NaN while there are too few.
    _bound: tuple[float, float] | None = None
    _fixed: FixedTime | None = None

    def learn(self, size: WorkSize, seconds: float, *, expected: WorkSize | None = None) -> None:
        """Take in a pack that ended: its size as it was, its seconds, and the size it was expected to have.

        How far the prediction was off is remembered, unless nothing had run yet and it was no prediction.
        """
        if self.weight > 0:
            # Once packs have run, the assumed speed says nothing: that of the last fit saves another.
            predicted = self.seconds(expected or size, tokens_per_second=1.0 if self._fit is None else self._fit[0])
            if predicted > 0:
                # Short packs of a variant with a fixed time would be many times their prediction.
                self.ratios.append(max(seconds - self.fixed.expected, min(seconds, predicted)) / predicted)
                self.spans.append((predicted, seconds))
        row = np.array([size.rows, size.input_tokens, size.output_tokens], dtype=np.float64) / seconds
        self.gram = FORGETTING * self.gram + np.outer(row, row)
        self.moment = FORGETTING * self.moment + row
        self.weight = FORGETTING * self.weight + 1
        self._fit = self._bound = self._fixed = None

    @property
    def fixed(self) -> FixedTime:
        """What a pack takes beyond its rows."""
        if self._fixed is None:
            self._fixed = FixedTime.of(self.spans)
        return self._fixed

    def seconds(self, size: WorkSize, *, tokens_per_second: float) -> float:
        """Return the predicted worker-seconds; `tokens_per_second` is what is assumed as long as little has run."""
        a, b, c = self._fitted(tokens_per_second)
        return a * size.rows + b * size.input_tokens + c * size.output_tokens

    def seconds_of_each(self, sizes: Sizes, *, tokens_per_second: float) -> Floats:
        """Return the same for each of many sizes."""
        a, b, c = self._fitted(tokens_per_second)
        return a * sizes.rows + b * sizes.input_tokens + c * sizes.output_tokens

    def unit_costs(self, *, tokens_per_second: float) -> UnitCosts:
        """Return what these seconds are made of."""
        a, b, c = self._fitted(tokens_per_second)
        return UnitCosts.of_seconds(row=a, input_token=b, output_token=c)

    def upper_factors(self, packs: Floats, *, assumed: float) -> Floats:
        """Return what to multiply predicted seconds by for a bound that holds for most, for each number of packs.

        Split conformal prediction over the last ratios (V. Vovk et al., 2005): that quantile of them that makes
        the bound hold for the next pack with the confidence wanted. Over many packs errors even out with the square
        root of their number. `assumed` until enough packs have run.
        """
        if self._bound is None:
            self._bound = _bound_of(self.ratios)
        if math.isnan(self._bound[0]):
            return np.full(len(packs), assumed)
        mean, quantile = self._bound
        return np.maximum(UPPER_FACTOR_MIN, mean + max(0.0, quantile - mean) / np.sqrt(np.maximum(1.0, packs)))

    def as_plain(self) -> dict[str, Any]:
        """Return the state as JSON has it."""
        return {
            "gram": self.gram.tolist(),
            "moment": self.moment.tolist(),
            "weight": self.weight,
            "ratios": [round(ratio, 6) for ratio in self.ratios],
            "spans": [[round(seconds, 6) for seconds in span] for span in self.spans],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Pace:
        """Return the pace that `as_plain` told."""
        return cls(
            gram=np.array(plain["gram"], dtype=np.float64),
            moment=np.array(plain["moment"], dtype=np.float64),
            weight=float(plain["weight"]),
            ratios=deque(plain["ratios"], maxlen=RATIOS_KEPT),
            # What was stored before there were any has none.
            spans=deque(((predicted, seconds) for predicted, seconds in plain.get("spans", ())), maxlen=SPANS_KEPT),
        )

    def _fitted(self, tokens_per_second: float) -> tuple[float, float, float]:
        if self._fit is None or self._fit[0] != tokens_per_second:
            assumed = np.array([0.0, 1.0, 1.0]) / tokens_per_second
            if (explained := float(assumed @ self.moment)) > 0:
                # The proportions are assumed; how fast it goes on the whole, the packs have told.
                assumed *= self.weight / explained
            scale = np.sqrt(np.maximum(np.diag(self.gram), _floor(self.gram, assumed)))
            # In units in which every feature is about one, a ridge pulls each coefficient to what is assumed.
            ridge = _PRIOR_WEIGHT / (1 + self.weight)
            gram = self.gram / np.outer(scale, scale) + ridge * np.eye(_FEATURES)
            moment = self.moment / scale + ridge * assumed * scale
            a, b, c = (least_non_negative(gram, moment) / scale).tolist()
            self._fit = tokens_per_second, (a, b, c)
        return self._fit[1]


def _floor(gram: NDArray[np.float64], assumed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a scale for features that were never seen: that at which the assumption explains a pack."""
    largest = float(np.diag(gram).max())
    return np.full(_FEATURES, largest * 1e-9 if largest > 0 else 1 / float(assumed.max()) ** 2)


def _bound_of(ratios: Sequence[float]) -> tuple[float, float]:
    known = len(ratios)
    rank = math.ceil((known + 1) * _CONFIDENCE)
    return (math.nan, math.nan) if rank > known else (sum(ratios) / known, sorted(ratios)[rank - 1])


def least_non_negative(gram: NDArray[np.float64], moment: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the x >= 0 that minimizes x' gram x - 2 moment' x, by trying which coefficients are zero.

    C. Lawson, R. Hanson, "Solving Least Squares Problems" (1974), ch. 23; with three coefficients there are
    seven cases. `gram` is positive definite, so the first case that meets the conditions of Kuhn and Tucker is
    the minimum; where rounding hides it, it is the best of all.
    """
    best, best_value = np.zeros(len(moment)), 0.0
    for subset, block in _SUBSETS:
        part = np.linalg.solve(gram[block], moment[subset])
        if (part < 0).any():
            continue
        found = np.zeros(len(moment))
        found[subset] = part
        slopes = gram @ found - moment
        slopes[subset] = 0.0
        if (slopes >= 0).all():
            return found
        value = float(-moment[subset] @ part)
        if value < best_value:
            best, best_value = found, value
    return best


def mean_absolute_percentage_error(pairs: Iterable[tuple[float, float]]) -> float | None:
    """Return the mean of |predicted - actual| / actual in percent, of such pairs; None where there are none."""
    errors = [abs(predicted / actual - 1) for predicted, actual in pairs]
    return 100 * sum(errors) / len(errors) if errors else None
