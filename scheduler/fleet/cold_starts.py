"""How long starts take, as seen: quantiles of boots and loads, of which a guess is believed until there are some."""

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


@dataclass(slots=True, kw_only=True)
class ColdStarts:
    """From the request to the first row, by pool: boots by the machine's kind, loads by the pool, which names the models."""

    boot_prior_seconds: float = 120.0
    load_prior_seconds: float = 60.0
    _boots: dict[str, StartTimes] = field(default_factory=dict)
    _loads: dict[str, StartTimes] = field(default_factory=dict)

    def observe(self, *, kind: str, pool: str, boot_seconds: float | None, load_seconds: float | None) -> None:
        """Take in a start; what is not known of it is None."""
        if boot_seconds is not None:
            self._of(self._boots, kind, self.boot_prior_seconds).observe(boot_seconds)
        if load_seconds is not None:
            self._of(self._loads, pool, self.load_prior_seconds).observe(load_seconds)

    def seconds(self, *, kind: str, pool: str, share: float = 0.8) -> float:
        """Return what a start takes at most, but for one in so many. Boot and load are each counted as slow."""
        boots = self._of(self._boots, kind, self.boot_prior_seconds)
        return boots.quantile(share) + self._of(self._loads, pool, self.load_prior_seconds).quantile(share)

    def _of(self, known: dict[str, StartTimes], name: str, prior_seconds: float) -> StartTimes:
        return known.setdefault(name, StartTimes(prior_seconds=prior_seconds))
