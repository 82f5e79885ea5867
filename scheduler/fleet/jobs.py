"""A job on one machine with a deadline, the moment a decision is made at, and what a decision leads to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

#: Seconds that sums of seconds may be off by.
_SLOP_SECONDS: Final = 1e-6


class Mode(StrEnum):
    """What the job runs on, or is to run on for the next tick."""

    IDLE = "idle"
    SPOT = "spot"
    ON_DEMAND = "on_demand"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Work that one machine does alone, whole ticks of which are paid. Prices are per hour, in any one currency."""

    work_seconds: float
    deadline_seconds: float
    tick_seconds: float
    #: Of a machine, from its request until it works: boot and load, paid and without progress.
    startup_seconds: float
    spot_price: float
    on_demand_price: float

    def __post_init__(self) -> None:
        """Refuse what no decision could be made about."""
        for name in ("work_seconds", "deadline_seconds", "tick_seconds", "spot_price", "on_demand_price"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; it must be above 0")
        if not (math.isfinite(self.startup_seconds) and self.startup_seconds >= 0):
            raise ValueError(f"startup_seconds is {self.startup_seconds}; it must be 0 or more")

    @property
    def ticks(self) -> int:
        """Whole ticks until the deadline; what is left of the last one is not counted on."""
        return math.floor(self.deadline_seconds / self.tick_seconds + _SLOP_SECONDS)

    @property
    def is_feasible(self) -> bool:
        """Whether on demand from the first tick on makes it."""
        return self.ticks * self.tick_seconds >= self.work_seconds + self.startup_seconds - _SLOP_SECONDS

    def price_of_tick(self, mode: Mode) -> float:
        """Return what a tick costs."""
        per_hour = {Mode.IDLE: 0.0, Mode.SPOT: self.spot_price, Mode.ON_DEMAND: self.on_demand_price}[mode]
        return per_hour * self.tick_seconds / 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is known as a tick begins, a machine that was lost being gone already."""

    tick: int
    work_left_seconds: float
    mode: Mode = Mode.IDLE
    #: Of the machine that runs; 0 when it works.
    startup_left_seconds: float = 0.0
    is_available: bool
    #: Ticks that spot has been there, or not been there, this one included.
    age_ticks: int = 1


def time_left_seconds(job: Job, moment: Moment) -> float:
    """Return the whole ticks that are left, in seconds."""
    return (job.ticks - moment.tick) * job.tick_seconds


def after(job: Job, moment: Moment, choice: Mode) -> tuple[float, float]:
    """Return work and start-up left, in seconds, when the tick has passed."""
    if choice is Mode.IDLE:
        return moment.work_left_seconds, 0.0
    startup = moment.startup_left_seconds if choice is moment.mode else job.startup_seconds
    progress = max(0.0, job.tick_seconds - startup)
    return max(0.0, moment.work_left_seconds - progress), max(0.0, startup - job.tick_seconds)


def is_safe(job: Job, moment: Moment, choice: Mode) -> bool:
    """Whether on demand still makes the deadline after this, even if spot is lost and never comes back."""
    work, startup = after(job, moment, choice)
    if work <= _SLOP_SECONDS:
        return True
    needed = work + (startup if choice is Mode.ON_DEMAND else job.startup_seconds)
    return time_left_seconds(job, moment) - job.tick_seconds >= needed - _SLOP_SECONDS


def guarded(job: Job, moment: Moment, choice: Mode) -> Mode:
    """Return the choice, or on demand where it could not be had or could make the job late.

    What is safe stays safe: if every earlier choice passed here and the job is feasible, on demand makes it.
    """
    if choice is Mode.SPOT and not moment.is_available:
        choice = Mode.IDLE
    return choice if is_safe(job, moment, choice) else Mode.ON_DEMAND
