"""Sketches of how long answers are: counts by length in buckets of equal ratio.

C. Masson, J. Rim, H. Lee, "DDSketch: a fast and fully-mergeable quantile sketch" (VLDB 2019). Every quantile
is right to 5 % of itself, sketches of parts add up to the sketch of the whole, and one is a few dozen counts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

#: Largest error of a quantile, relative to it.
ACCURACY: Final = 0.05
_GAMMA: Final = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_GAMMA: Final = math.log(_GAMMA)


@dataclass(slots=True)
class LengthSketch:
    """How many answers had which length; an empty answer counts as one token."""

    #: Answers by bucket: those longer than gamma^(bucket - 1) and no longer than gamma^bucket.
    counts: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, lengths: Iterable[int]) -> LengthSketch:
        """Return the sketch of these lengths in tokens."""
        sketch = cls()
        # By length first: most lengths come many times, and a logarithm takes longer than a count.
        for length, count in Counter(lengths).items():
            bucket = bucket_of(length)
            sketch.counts[bucket] = sketch.counts.get(bucket, 0.0) + count
        return sketch

    @classmethod
    def merged(cls, plains: Iterable[Mapping[str, float]]) -> LengthSketch:
        """Return the sketch of all of these together, each as `as_plain` told it."""
        sketch = cls()
        for plain in plains:
            sketch.add(cls.from_plain(plain))
        return sketch

    @classmethod
    def from_plain(cls, plain: Mapping[str, float]) -> LengthSketch:
        """Return the sketch that `as_plain` told."""
        return cls({int(bucket): float(count) for bucket, count in plain.items()})

    def as_plain(self) -> dict[str, float]:
        """Return the sketch as JSON has it."""
        return {str(bucket): round(count, 3) for bucket, count in sorted(self.counts.items()) if count > 0}

    @property
    def total(self) -> float:
        """Return how many answers it is of."""
        return sum(self.counts.values())

    def add(self, other: LengthSketch, *, kept: float = 1.0) -> None:
        """Take in another sketch, and keep only a share of what was there: old answers count less and less."""
        if kept < 1:
            self.counts = {bucket: count * kept for bucket, count in self.counts.items()}
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0.0) + count

    def quantile(self, share: float) -> float:
        """Return the length that this share of the answers does not exceed; there must be some."""
        assert self.counts
        wanted = share * self.total
        for bucket, count in sorted(self.counts.items()):
            wanted -= count
            if wanted <= 0:
                return length_of(bucket)
        return length_of(max(self.counts))

    def mean(self, *, longest: float = math.inf) -> float:
        """Return the mean length, answers longer than `longest` cut there; there must be some answers."""
        assert self.counts
        cut = sum(count * min(length_of(bucket), longest) for bucket, count in self.counts.items())
        return cut / self.total


def bucket_of(length: int) -> int:
    """Return the bucket of a length in tokens."""
    return 0 if length <= 1 else math.ceil(math.log(length) / _LOG_GAMMA - 1e-9)


def length_of(bucket: int) -> float:
    """Return the length that stands for a bucket: none in it is further off than the accuracy."""
    return 1.0 if bucket == 0 else 2 * _GAMMA**bucket / (_GAMMA + 1)
