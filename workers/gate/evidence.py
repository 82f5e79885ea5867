"""Evidence about a mean difference that may be looked at after every item: a mixture of bets, from counts alone.

Each item gives x in {-1, 0, 1}: correct on the variant minus correct on the reference. To test the hypothesis
"the mean of x is at most m" for some m > -1, somebody who doubts it starts with capital 1 and, before each item,
puts the share s of the capital on z = (1 + x) / (1 + m), keeping the rest in cash: the capital is multiplied by

    1 - s + s * (1 + x) / (1 + m)  =  1 + s * (x - m) / (1 + m).

Where the hypothesis holds, z has a mean of at most 1 given everything before, so the capital is a non-negative
supermartingale for each s in [0, 1]; so is the mean of the capitals over shares with weights that sum to one
(`log_evidence`). By Ville's inequality the probability that it ever reaches 1/alpha is at most alpha, whenever and
however often somebody looks, and whatever made them stop. Nothing outside this family does better: valid evidence
about the mean of a bounded variable is never above what such bets, the share chosen by the past, would have made
(Clerico, "On the optimality of coin-betting for mean estimation", 2024).

A fixed share multiplies one of three factors per item, so the capital depends on how often each x came and on
nothing else: the counts are the whole state, in whatever order the items came, and a test can be stored, merged
and continued. That is what is given up for it: a share chosen item by item (aGRAPA, online Newton) depends on order.

The weights are a log-normal around a quarter, cut to (0, 1): the share that grows fastest is near
(mean - m) / P(x != 0), and variants that matter change 3 to 10 % of the answers at margins of 1 to 3 points, which
gives 0.1 to 0.7. Its tails hold what is left: a lossless variant is best bet on with nearly everything. Against six
equally weighted shares {.02, .05, .1, .2, .4, .6} this needs 2 to 16 % fewer items (docs/benchmarks/gate.json).
Source of the method: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSS B,
2024); Cover's universal portfolio (1991) is the same mixture.

An x in between, such as -0.3, may be counted as three tenths of a -1 and seven tenths of a 0: the logarithm of the capital
is concave in x, so that claims no more evidence than there is. It claims less; what decides on such x is
`pipeline.domain.wealth`, which keeps each doubter's capital instead of counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.domain import wealth

Floats = NDArray[np.float64]

#: Shares of the capital that are bet, each by a doubter of its own.
SHARES: Final[Floats] = np.array(wealth.SHARES)
#: What each doubter starts with; together 1.
WEIGHTS: Final[Floats] = np.array(wealth.WEIGHTS)
#: Steps of the search for a bound: 2 halved this often is 1e-9, a ten-millionth of a point.
_HALVINGS: Final = 31

assert math.isclose(WEIGHTS.sum(), 1.0)
assert 0 < SHARES[0] < SHARES[-1] < 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How often each outcome came: the whole state of a test. Whole numbers, unless an x lay in between."""

    #: Items the reference got right and the variant wrong.
    worse: float = 0
    #: Items both got right, or both wrong.
    same: float = 0
    #: Items the variant got right and the reference wrong.
    better: float = 0

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        if min(self.worse, self.same, self.better) < 0:
            raise ValueError(f"counts cannot be negative: {self}")

    @property
    def items(self) -> int:
        """Return how many items were counted."""
        return round(self.worse + self.same + self.better)

    @property
    def difference(self) -> float:
        """Return the mean of x, variant minus reference, as a share; 0 before the first item."""
        return (self.better - self.worse) / self.items if self.items else 0.0

    def plus(self, x: float) -> Self:
        """Return the tally with one more item.

        Raises:
            ValueError: `x` is not -1, 0 or 1.
        """
        if x not in {-1, 0, 1}:
            raise ValueError(f"an item counts -1, 0 or 1, not {x}")
        return type(self)(worse=self.worse + (x < 0), same=self.same + (x == 0), better=self.better + (x > 0))

    def plus_part(self, x: float) -> Self:
        """Return the tally with one more item, an `x` from -1 to 1 counted in part as the two outcomes beside it.

        Raises:
            ValueError: `x` is not from -1 to 1.
        """
        if not -1 <= x <= 1:
            raise ValueError(f"an item counts from -1 to 1, not {x}")
        return type(self)(
            worse=self.worse + max(0.0, -x), same=self.same + 1 - abs(x), better=self.better + max(0.0, x)
        )

    def mirrored(self) -> Self:
        """Return the tally with the sides exchanged: x becomes -x."""
        return type(self)(worse=self.better, same=self.same, better=self.worse)

    def as_counts(self) -> Floats:
        """Return [worse, same, better], the form that `log_evidence` takes."""
        return np.array([self.worse, self.same, self.better], dtype=np.float64)

    def as_plain(self) -> dict[str, float]:
        """Return the tally as JSON would hold it."""
        return {"worse": self.worse, "same": self.same, "better": self.better}

    @classmethod
    def from_plain(cls, plain: Mapping[str, float]) -> Self:
        """Return the tally that `as_plain` wrote."""
        return cls(worse=plain["worse"], same=plain["same"], better=plain["better"])


def log_evidence(counts: Floats, mean_max: float) -> Floats:
    """Return the natural logarithm of the evidence that the mean of x is above `mean_max`.

    Args:
        counts: How often x was -1, 0 and 1, in the last of its dimensions; any number of tallies at once.
        mean_max: The hypothesis doubted is "the mean is at most this"; above -1 and at most 1.

    The evidence falls as `mean_max` rises, for every tally: doubting more is never easier. So a variant shown within
    one point is shown within three, and testing several margins on one tally needs no correction: a false
    acceptance at any margin is one at the widest margin that the truth violates.
    """
    assert -1 < mean_max <= 1
    step = SHARES / (1 + mean_max)
    grown = np.log(np.stack([1 - SHARES, 1 - SHARES + step, 1 - SHARES + 2 * step]))
    logs: Floats = counts @ grown + np.log(WEIGHTS)
    highest = logs.max(axis=-1)
    total: Floats = highest + np.log(np.exp(logs - highest[..., None]).sum(axis=-1))
    return total


def above(tally: Tally, mean_max: float) -> float:
    """Return the log evidence that the mean of x is above `mean_max`."""
    return float(log_evidence(tally.as_counts(), mean_max))


def below(tally: Tally, mean_min: float) -> float:
    """Return the log evidence that the mean of x is below `mean_min`."""
    return above(tally.mirrored(), -mean_min)


def difference_bounds(tally: Tally, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval for the mean of x that holds at every moment together with probability `confidence`.

    A confidence sequence: the means that neither of two one-sided tests, each at half the error, refutes now.
    Unlike a textbook interval it stays true when sampling stopped because of what was seen.
    """
    threshold = math.log(2 / (1 - confidence))
    return _lowest_mean(tally, threshold), -_lowest_mean(tally.mirrored(), threshold)


def _lowest_mean(tally: Tally, threshold: float) -> float:
    low, high = -1.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if above(tally, middle) >= threshold:
            low = middle
        else:
            high = middle
    # The lower end is refuted or the least value there is, so the interval never claims too much.
    return low
