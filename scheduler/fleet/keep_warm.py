"""How long a worker with nothing to do is kept: rent of waiting against the cost of a new start."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from scheduler.columns import Floats

#: Gaps that are remembered at most, and that a threshold is learned from at least.
_GAPS_MAX: Final = 256
_GAPS_MIN: Final = 16


def start_cost_seconds(cold_start_seconds: float, *, minimum_seconds: float = 0.0, lost_seconds: float = 0.0) -> float:
    """Return what stopping now and starting again costs, in seconds of rent.

    A start is paid while nothing is done, is billed for its minimum at least, and finds its caches empty.
    """
    return max(cold_start_seconds, minimum_seconds) + lost_seconds


def ski_rental_seconds(start_seconds: float) -> float:
    """Return how long to wait idle without knowing what comes: as long as the start would cost, so never more than twice."""
    return start_seconds


@dataclass(slots=True)
class IdleGaps:
    """How long it was quiet before work came again, and what that says of how long to wait."""

    #: Seconds, the last ones.
    gaps: deque[float] = field(default_factory=lambda: deque(maxlen=_GAPS_MAX))
    quiet_since_us: int | None = None

    def observe(self, now_us: int, *, has_work: bool) -> None:
        """Take in whether there is work now."""
        if not has_work:
            self.quiet_since_us = now_us if self.quiet_since_us is None else self.quiet_since_us
        elif self.quiet_since_us is not None:
            self.gaps.append((now_us - self.quiet_since_us) / 1_000_000)
            self.quiet_since_us = None

    def threshold_seconds(self, start_seconds: float) -> float:
        """Return how long to wait so that rent and starts cost least over the gaps so far; ski rental while they are few.

        Where the chance of work per second falls with the gap, this is where it falls below one in `start_seconds`.
        """
        if len(self.gaps) < _GAPS_MIN:
            return ski_rental_seconds(start_seconds)
        return learned_threshold(np.array(self.gaps), start_seconds)


def learned_threshold(gaps: Floats, start_seconds: float) -> float:
    """Return the wait that would have cost least over these gaps: one of their lengths, or none at all."""
    waits = np.concatenate(([0.0], np.sort(gaps)))
    # What is no longer than the wait is rent alone; what is longer is the wait's rent, and a start.
    costs = np.array([np.where(gaps <= wait, gaps, wait + start_seconds).sum() for wait in waits])
    return float(waits[int(np.argmin(costs))])


def idle_cost_seconds(gaps: Floats, wait_seconds: float, start_seconds: float) -> float:
    """Return what waiting so long costs over gaps, in seconds of rent."""
    return float(np.where(gaps <= wait_seconds, gaps, wait_seconds + start_seconds).sum())
