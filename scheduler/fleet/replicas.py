"""The classic replica autoscaler: current x metric / target, with its tolerance, its windows and its steps."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

_US = 1_000_000


def replicas(current: int, metric: float, target: float, *, tolerance: float = 0.1) -> int:
    """Return ceil(current x metric / target), or what there is where the ratio is within the tolerance of 1.

    `metric` is the mean over what there is now. Of none nothing is a mean, and none it stays.
    """
    if target <= 0:
        raise ValueError(f"the target is {target}; it must be above 0")
    ratio = metric / target
    if abs(ratio - 1) <= tolerance:
        return current
    return math.ceil(current * ratio - 1e-9)


@dataclass(slots=True, kw_only=True)
class Stabilizer:
    """Kubernetes' behaviour of a horizontal autoscaler: windows of recommendations, and how fast it goes up and down.

    Up goes to the least of what was recommended within the up window, down to the most within the down window.
    """

    up_seconds: float = 0.0
    down_seconds: float = 300.0
    #: Within so many seconds it at most doubles, or grows by so many, whichever is more. None: there is no such limit.
    up_period_seconds: float | None = 15.0
    up_count: int = 4
    _seen: deque[tuple[int, int]] = field(default_factory=deque)
    #: What it had, and when: to tell how many it had a period ago.
    _had: deque[tuple[int, int]] = field(default_factory=deque)

    def settle(self, now_us: int, current: int, recommended: int) -> int:
        """Take in what is recommended now, and return what is to be."""
        self._seen.append((now_us, recommended))
        longest_us = max(self.up_seconds, self.down_seconds) * _US
        while self._seen[0][0] < now_us - longest_us:
            self._seen.popleft()
        up = min(count for at, count in self._seen if at >= now_us - self.up_seconds * _US)
        down = max(count for at, count in self._seen if at >= now_us - self.down_seconds * _US)
        wanted = max(current, up) if up > current else min(current, down)
        return min(wanted, self._fastest(now_us, current)) if wanted > current else wanted

    def _fastest(self, now_us: int, current: int) -> int:
        if self.up_period_seconds is None:
            return 1_000_000
        self._had.append((now_us, current))
        while self._had[0][0] < now_us - self.up_period_seconds * _US:
            self._had.popleft()
        # Of the period that ends now.
        began = min(count for _, count in self._had)
        return max(2 * began, began + self.up_count)
