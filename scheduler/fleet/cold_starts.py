"""How long starts take, from the request to the first row, as seen: quantiles, and a guess until there are some."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

#: Starts that are remembered: what an image or a model takes changes.
_STARTS_MAX: Final = 64


@dataclass(slots=True, kw_only=True)
class StartTimes:
    """What some kind of start took, the last ones."""

    #: What it is thought to take before any was seen, and how many that counts for.
    prior_seconds: float
    prior_count: int = 3
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_STARTS_MAX))

    def observe(self, seconds: float) -> None:
        """Take in a start that ended well."""
        if seconds >= 0:
            self.seconds.append(seconds)

    def quantile(self, share: float = 0.8) -> float:
        """Return what this share of starts take no longer than; the prior counts as so many starts."""
        seen = np.array([*self.seconds, *[self.prior_seconds] * self.prior_count])
        return float(np.quantile(seen, share, method="higher"))
