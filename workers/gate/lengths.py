"""Output length: a variant that says the same in more words costs more than its price per token promises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from workers.gate.outcomes import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthDrift:
    """Output tokens of the variant against the reference's, on the items both answered."""

    items: int
    reference_mean_tokens: float
    variant_mean_tokens: float
    #: Variant's mean over the reference's, with its interval; 1 is no drift.
    ratio: float
    interval: tuple[float, float]


def length_drift(outcomes: Sequence[Outcome], *, confidence: float = 0.95) -> LengthDrift | None:
    """Return the drift with the large-sample interval of a ratio of paired means (the delta method).

    None without two items that both answered with at least one token on the reference, such as for embeddings.
    """
    both = [
        (each.reference_tokens, each.variant_tokens)
        for each in outcomes
        if each.x is not None and each.variant_status == each.reference_status
    ]
    count = len(both)
    reference = sum(first for first, _ in both)
    if count < 2 or not reference:  # noqa: PLR2004 -- one item has no spread
        return None
    ratio = sum(second for _, second in both) / reference
    residuals = [second - ratio * first for first, second in both]
    spread = math.sqrt(math.fsum(each * each for each in residuals) / (count - 1))
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * spread * math.sqrt(count) / reference
    return LengthDrift(
        items=count,
        reference_mean_tokens=reference / count,
        variant_mean_tokens=ratio * reference / count,
        ratio=ratio,
        interval=(max(0.0, ratio - reach), ratio + reach),
    )
