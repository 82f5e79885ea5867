"""Rules by which a pool's shares of work wait, take spot, or go on demand; the decision table's reading is one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from scheduler.columns import Floats, Integers
from scheduler.fleet.jobs import Mode

WAITS, ON_SPOT, ON_DEMAND = 0, 1, 2


class ShareRule(Protocol):
    """How much work one worker's share is, and what shares do."""

    def share_seconds(self, left: Floats, *, is_available: bool, age_ticks: int) -> Floats:
        """Return the work of a share by the seconds it has until its deadline."""

    def choices(self, left: Floats, work: Floats, mode: Mode, *, is_available: bool, age_ticks: int) -> Integers:
        """Return what shares of so much work do that run like this now: 0 waits, 1 takes spot, 2 is on demand."""

    def work_value(self, left_seconds: float, work_seconds: float, *, is_available: bool, age_ticks: int) -> float:
        """Return what an hour of work done now is worth to a share, per hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GreedyShares:
    """Spot when there is any, nothing otherwise, and on demand when two starts more are all the time there is."""

    cold_start_seconds: float
    on_demand_price: float
    overhead_max: float

    def share_seconds(self, left: Floats, *, is_available: bool, age_ticks: int) -> Floats:  # noqa: ARG002 - the rule's
        """Return as much work as a start is worth, if there is the time."""
        worth = max(1.0, self.cold_start_seconds / max(self.overhead_max, 1e-3))
        return np.asarray(np.clip(left - 3 * self.cold_start_seconds, min(self.cold_start_seconds, worth), worth))

    def choices(self, left: Floats, work: Floats, mode: Mode, *, is_available: bool, age_ticks: int) -> Integers:  # noqa: ARG002
        """Return the safety net's on demand, spot, or nothing."""
        starts = 1 if mode is Mode.SPOT else 2
        is_short = left < work + starts * self.cold_start_seconds
        return np.where(is_short, ON_DEMAND, ON_SPOT if is_available else WAITS)

    def work_value(self, left_seconds: float, work_seconds: float, *, is_available: bool, age_ticks: int) -> float:  # noqa: ARG002
        """Return the price on demand: whatever is cheaper is taken."""
        return self.on_demand_price


@dataclass(frozen=True, slots=True, kw_only=True)
class EvenShares:
    """Keeps up with an even pace: on spot where there is any, on demand where there is none."""

    cold_start_seconds: float
    on_demand_price: float

    def share_seconds(self, left: Floats, *, is_available: bool, age_ticks: int) -> Floats:  # noqa: ARG002 - the rule's
        """Return what a worker does until the deadline, with a start and another in reserve."""
        return np.asarray(np.maximum(left - 2 * self.cold_start_seconds, max(1.0, self.cold_start_seconds)))

    def choices(self, left: Floats, work: Floats, mode: Mode, *, is_available: bool, age_ticks: int) -> Integers:  # noqa: ARG002
        """Return spot, or on demand: behind the pace where there is no spot, and until ahead by two starts."""
        starts = {Mode.IDLE: 1, Mode.SPOT: 1, Mode.ON_DEMAND: 2}[mode]
        is_behind = left < work + starts * self.cold_start_seconds
        return np.where(is_behind | (not is_available), ON_DEMAND, ON_SPOT)

    def work_value(self, left_seconds: float, work_seconds: float, *, is_available: bool, age_ticks: int) -> float:  # noqa: ARG002
        """Return the price on demand: that is what falling behind would cost."""
        return self.on_demand_price
