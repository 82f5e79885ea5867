"""Evidence about the mean of a bounded quantity, carried as what doubters own: pure, and small enough to be stored.

`workers.gate.evidence` explains the method for x in {-1, 0, 1}, where three counts are the whole state. Of an x that may
be anything within bounds the state is the logarithm of the capital of each doubter. A doubter of "the mean of x is at
least m" who bets the share s of the capital on each item multiplies it by

    1 - s + s * (high - x) / (high - m)

where `high` is what x cannot exceed. Where the hypothesis holds, the factor's mean is at most 1 given everything before, so
the weighted sum of the capitals is a non-negative supermartingale: it reaches 1/alpha with probability alpha at most, however
often somebody looks (Ville). `high` may differ from item to item as long as it is known before x is: an answer decoded
greedily cannot be likelier than the reference's own, so its `high` is 0, and a loss of three margins doubles the capital
of those who bet a half; knowing only x <= 1 it would grow by a hundredth. Doubting "at most m" is the same mirrored.

Where items of several bounds are mixed, the hypothesis is that the mean of each kind is at least m.

The factors are multiplied, so the order of items leaves no trace and evidence from several places adds up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

_CENTRE: Final = 0.25
_SPREAD: Final = 0.9
_COUNT: Final = 32
_LEAST, _MOST = 0.02, 0.97

#: Shares of the capital that are bet, each by a doubter of its own: in geometric steps.
SHARES: Final = tuple(_LEAST * (_MOST / _LEAST) ** (step / (_COUNT - 1)) for step in range(_COUNT))
_UNSCALED: Final = tuple(math.exp(-0.5 * (math.log(share / _CENTRE) / _SPREAD) ** 2) for share in SHARES)
#: What each doubter starts with; together 1.
WEIGHTS: Final = tuple(weight / math.fsum(_UNSCALED) for weight in _UNSCALED)
_LOG_WEIGHTS: Final = tuple(math.log(weight) for weight in WEIGHTS)

#: An x computed from probabilities may lie this far out of its bounds.
_ROUNDING: Final = 1e-9

#: What x may be, known before it is seen.
Bounds = tuple[float, float]

assert math.isclose(math.fsum(WEIGHTS), 1.0)
assert all(0 < share < 1 for share in SHARES)


@dataclass(frozen=True, slots=True)
class Wealth:
    """What the doubters of one hypothesis have made of 1: the whole state of a test."""

    #: Natural logarithm of each doubter's capital, in the order of `SHARES`.
    logs: tuple[float, ...] = (0.0,) * _COUNT

    def __post_init__(self) -> None:
        """Refuse a state of other doubters."""
        if len(self.logs) != _COUNT:
            raise ValueError(f"a state has {_COUNT} capitals, not {len(self.logs)}")

    def doubting_at_least(self, mean_min: float, x: float, bounds: Bounds) -> Self:
        """Return the wealth after one more item of those who doubt "the mean is at least `mean_min`"."""
        low, high = bounds
        return self.doubting_at_most(-mean_min, -x, (-high, -low))

    def doubting_at_most(self, mean_max: float, x: float, bounds: Bounds) -> Self:
        """Return the wealth after one more item of those who doubt "the mean is at most `mean_max`".

        Raises:
            ValueError: `x` is out of its `bounds` by more than rounding explains.
        """
        low, high = bounds
        if not low - _ROUNDING <= x <= high + _ROUNDING:
            raise ValueError(f"{x} is not between {low} and {high}")
        if not low < mean_max < high:
            # The hypothesis is certain, or impossible, whatever x is: there is nothing to bet on.
            return self
        odds = (min(max(x, low), high) - low) / (mean_max - low) - 1.0
        return type(self)(tuple(log + math.log1p(share * odds) for share, log in zip(SHARES, self.logs, strict=True)))

    @property
    def log_evidence(self) -> float:
        """Return the natural logarithm of the evidence against the hypothesis doubted."""
        terms = [log + weight for log, weight in zip(self.logs, _LOG_WEIGHTS, strict=True)]
        highest = max(terms)
        return highest + math.log(math.fsum(math.exp(term - highest) for term in terms))

    def as_plain(self) -> list[float]:
        """Return the state as JSON would hold it."""
        return list(self.logs)

    @classmethod
    def from_plain(cls, plain: Sequence[float]) -> Self:
        """Return the wealth that `as_plain` wrote."""
        return cls(tuple(plain))
