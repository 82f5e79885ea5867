"""What two models did on the same items, as counts: flips, disagreement, the exact McNemar test, an interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from workers.gate.evidence import Tally
from workers.gate.outcomes import Outcome

_HALF: Final = math.log(0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Items by what the reference and the variant made of them."""

    both_right: int = 0
    right_to_wrong: int = 0
    wrong_to_right: int = 0
    #: Both wrong, with the same answer.
    wrong_same: int = 0
    #: Both wrong, with different answers.
    wrong_to_wrong: int = 0

    @property
    def items(self) -> int:
        """Return how many items there are."""
        return self.both_right + self.flips + self.wrong_same + self.wrong_to_wrong

    @property
    def flips(self) -> int:
        """Return the items whose correctness changed, in either direction."""
        return self.right_to_wrong + self.wrong_to_right

    @property
    def changes(self) -> int:
        """Return the items whose answer changed in a way that correctness shows or not: flips and wrong to wrong."""
        return self.flips + self.wrong_to_wrong

    @property
    def flips_share(self) -> float:
        """Return flips per item; 0 without items."""
        return self.flips / self.items if self.items else 0.0

    @property
    def changes_share(self) -> float:
        """Return changes per item; 0 without items."""
        return self.changes / self.items if self.items else 0.0

    @property
    def reference_accuracy(self) -> float:
        """Return the reference's share of right answers; 0 without items."""
        return (self.both_right + self.right_to_wrong) / self.items if self.items else 0.0

    @property
    def variant_accuracy(self) -> float:
        """Return the variant's share of right answers; 0 without items."""
        return (self.both_right + self.wrong_to_right) / self.items if self.items else 0.0

    @property
    def tally(self) -> Tally:
        """Return the counts that the sequential test needs."""
        same = self.both_right + self.wrong_same + self.wrong_to_wrong
        return Tally(worse=self.right_to_wrong, same=same, better=self.wrong_to_right)


def pairs_of(outcomes: Iterable[Outcome]) -> Pairs:
    """Count outcomes; those that were not compared are left out."""
    counts = {"both_right": 0, "right_to_wrong": 0, "wrong_to_right": 0, "wrong_same": 0, "wrong_to_wrong": 0}
    for each in outcomes:
        if each.x is None:
            continue
        match (each.reference_is_right, each.variant_is_right):
            case (True, True):
                counts["both_right"] += 1
            case (True, False):
                counts["right_to_wrong"] += 1
            case (False, True):
                counts["wrong_to_right"] += 1
            case _:
                counts["wrong_same" if each.is_same_answer else "wrong_to_wrong"] += 1
    return Pairs(**counts)


def mcnemar(tally: Tally) -> float:
    """Return the two-sided exact McNemar p-value: the flips under "either direction is as likely".

    For a sample of a size fixed beforehand; of a test that stopped early it is a description, not a proof.
    """
    worse, better = int(tally.worse), int(tally.better)
    return min(1.0, 2 * _binomial_tail(worse + better, min(worse, better)))


def worse_by_chance(tally: Tally) -> float:
    """Return the one-sided exact p-value of so many flips for the worse under "either direction is as likely"."""
    worse, better = int(tally.worse), int(tally.better)
    return _binomial_tail(worse + better, better)


def _binomial_tail(trials: int, successes_max: int) -> float:
    """Return the probability of at most `successes_max` heads in `trials` throws of a fair coin."""
    logs = (
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + trials * _HALF
        for k in range(successes_max + 1)
    )
    return min(1.0, math.fsum(map(math.exp, logs)))


def fixed_size_interval(pairs: Pairs, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return Newcombe's interval (1998, method 10) for the accuracy difference, variant minus reference.

    For a sample of a size fixed beforehand; `evidence.difference_bounds` is the one that stopping early leaves true.
    """
    total = pairs.items
    if not total:
        return -1.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    variant_right = pairs.both_right + pairs.wrong_to_right
    reference_right = pairs.both_right + pairs.right_to_wrong
    variant, reference = variant_right / total, reference_right / total
    variant_low, variant_high = _wilson(variant_right, total, z)
    reference_low, reference_high = _wilson(reference_right, total, z)
    phi = _association(pairs)

    def reach(own: float, other: float) -> float:
        return math.sqrt(max(0.0, own * own - 2 * phi * own * other + other * other))

    difference = variant - reference
    return (
        max(-1.0, difference - reach(variant - variant_low, reference_high - reference)),
        min(1.0, difference + reach(variant_high - variant, reference - reference_low)),
    )


def _wilson(successes: int, total: int, z: float) -> tuple[float, float]:
    """Return Wilson's score interval of a share."""
    share = successes / total
    centre = share + z * z / (2 * total)
    reach = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return (centre - reach) / scale, (centre + reach) / scale


def _association(pairs: Pairs) -> float:
    """Return the phi coefficient of the two models' correctness, with Newcombe's correction where it is positive."""
    both_wrong = pairs.wrong_same + pairs.wrong_to_wrong
    product = pairs.both_right * both_wrong - pairs.right_to_wrong * pairs.wrong_to_right
    margins = (
        (pairs.both_right + pairs.right_to_wrong)
        * (pairs.wrong_to_right + both_wrong)
        * (pairs.both_right + pairs.wrong_to_right)
        * (pairs.right_to_wrong + both_wrong)
    )
    if not margins:
        return 0.0
    corrected = max(0.0, product - pairs.items / 2) if product > 0 else float(product)
    return corrected / math.sqrt(margins)
