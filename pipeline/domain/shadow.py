"""Watching variants in production: which rows are looked at again, and when what was seen ends a variant's service.

Of the rows that ran on a variant a small share is judged by the variant's reference afterwards; each gives one x, a loss
in shares of 1 (`workers.gate.deficit`). A `Watch` folds them in, for one variant, gate key and tier. It starts new when the
variant is let run, and never accepts anything.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, Self

from pipeline.domain.ids import BatchId
from pipeline.domain.wealth import Bounds, Wealth

#: Bound on the chance that a variant within its margin is ever rolled back. Smaller than the gate's, because a watch
#: never ends.
ALPHA: Final = 0.01
_POINTS: Final = 100.0
_HASH_BYTES: Final = 8
_PLACES: Final = 2 ** (8 * _HASH_BYTES)


class SampleState(StrEnum):
    """What became of a row chosen to be judged."""

    WAITING = "waiting"
    JUDGED = "judged"
    #: Nothing could be made of it, or the watch began anew meanwhile.
    DROPPED = "dropped"
    #: Nobody judged it in time.
    EXPIRED = "expired"


def is_chosen(batch_id: BatchId, shard_no: int, position: int, share: float) -> bool:
    """Say whether a row is among the `share` of rows to be judged: for a row always the same, whoever asks.

    What decides is a hash of the row's name, so that neither the time nor the answer has a say.
    """
    name = f"{batch_id}/{shard_no}/{position}".encode()
    place = int.from_bytes(hashlib.blake2b(name, digest_size=_HASH_BYTES).digest())
    return place / _PLACES < share


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What was seen of a variant in production since it was let run."""

    margin_points: float
    samples: int = 0
    tokens: int = 0
    #: Sum of the samples' x, each from -1 to 1.
    x_sum: float = 0.0
    #: Of those who doubt that the loss is within the margin.
    wealth: Wealth = field(default_factory=Wealth)

    def plus(self, x: float, bounds: Bounds, *, tokens: int) -> Self:
        """Return the watch after one more sample, `x` as a share of 1; raises `ValueError` where it is out of `bounds`."""
        return replace(
            self,
            samples=self.samples + 1,
            tokens=self.tokens + tokens,
            x_sum=self.x_sum + x,
            wealth=self.wealth.doubting_at_least(-self.margin_points / _POINTS, x, bounds),
        )

    @property
    def mean_points(self) -> float:
        """Return the mean of x in points; 0 before the first sample."""
        return _POINTS * self.x_sum / self.samples if self.samples else 0.0

    @property
    def is_beyond(self) -> bool:
        """Say whether the loss is shown to be beyond the margin."""
        return self.wealth.log_evidence >= math.log(1 / ALPHA)

    @property
    def sentence(self) -> str:
        """Return for people why the variant is rolled back."""
        return (
            f"In production: {self.samples:,} answers that its reference judged lose {-self.mean_points:.2f} points on "
            f"average, which is shown to be more than {self.margin_points:g}."
        )

    def as_plain(self) -> dict[str, Any]:
        """Return the watch as JSON would hold it."""
        return {
            "margin_points": self.margin_points,
            "samples": self.samples,
            "tokens": self.tokens,
            "x_sum": self.x_sum,
            "wealth": self.wealth.as_plain(),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Return the watch that `as_plain` wrote."""
        return cls(**{**plain, "wealth": Wealth.from_plain(plain["wealth"])})
