"""Named policies for one machine in one zone, all behind one protocol; `decision_table` is the default."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

from scheduler.fleet.decision_table import DecisionTable, build
from scheduler.fleet.jobs import Job, Mode, Moment, time_left_seconds
from scheduler.fleet.survival import Survival


class SpotPolicy(Protocol):
    """Decides for a job, tick by tick. Whoever asks passes the answer through `guarded`, so that none can be late."""

    @property
    def name(self) -> str:
        """What the policy is called in settings and reports."""
        ...

    def choose(self, moment: Moment) -> Mode:
        """Return what to run on for the next tick."""
        ...


def _safety_net(job: Job, moment: Moment, wanted: Mode) -> Mode:
    """Return on demand where waiting, or leaving a machine that works, would leave less than two starts of room."""
    left, work, startup = time_left_seconds(job, moment), moment.work_left_seconds, job.startup_seconds
    if moment.mode is not Mode.SPOT and _ticks_up(job, work + 2 * startup) >= _ticks_down(job, left):
        wanted = Mode.ON_DEMAND
    if _ticks_up(job, work + startup) >= _ticks_down(job, left):
        is_warm = moment.mode is Mode.SPOT and moment.startup_left_seconds <= 0
        wanted = Mode.SPOT if is_warm else Mode.ON_DEMAND
    return wanted


def _ticks_up(job: Job, seconds: float) -> int:
    return math.ceil(seconds / job.tick_seconds - 1e-9)


def _ticks_down(job: Job, seconds: float) -> int:
    return math.floor(seconds / job.tick_seconds + 1e-9)


@dataclass(frozen=True, slots=True)
class OnDemandOnly:
    """Pays on demand from start to end: what everything else is cheaper than."""

    job: Job
    name: str = "on_demand_only"

    def choose(self, moment: Moment) -> Mode:  # noqa: ARG002 - the protocol's
        """Return on demand."""
        return Mode.ON_DEMAND


@dataclass(frozen=True, slots=True)
class SpotOnly:
    """Takes spot and nothing else; the only one that may be late, and is never guarded."""

    job: Job
    name: str = "spot_only"

    def choose(self, moment: Moment) -> Mode:
        """Return spot where it is there."""
        return Mode.SPOT if moment.is_available else Mode.IDLE


@dataclass(frozen=True, slots=True)
class Greedy:
    """Takes spot when there is any, waits otherwise, and pays on demand when time runs out (Wu et al., NSDI '24)."""

    job: Job
    name: str = "greedy"

    def choose(self, moment: Moment) -> Mode:
        """Return spot, or none, or on demand to the end."""
        return _safety_net(self.job, moment, Mode.SPOT if moment.is_available else Mode.IDLE)


@dataclass(frozen=True, slots=True)
class TimeSliced:
    """Cuts the time into slices, each with its share of the work as a deadline of its own (Wu et al., NSDI '24)."""

    job: Job
    slice_seconds: float

    @property
    def name(self) -> str:
        """Its slices, in hours."""
        return f"time_sliced_{self.slice_seconds / 3600:g}h"

    def choose(self, moment: Moment) -> Mode:
        """Return what greedy would for the slice; what earlier slices did too much is carried over."""
        job = self.job
        now = moment.tick * job.tick_seconds
        ends = min(job.deadline_seconds, (math.floor(now / self.slice_seconds) + 1) * self.slice_seconds)
        due = job.work_seconds * ends / job.deadline_seconds
        work_left = due - (job.work_seconds - moment.work_left_seconds)
        if work_left <= 0:
            wanted = Mode.SPOT if moment.is_available and moment.mode is Mode.SPOT else Mode.IDLE
            return _safety_net(job, moment, wanted)
        wanted = Mode.SPOT if moment.is_available else Mode.IDLE
        left = ends - now
        if moment.mode is not Mode.SPOT and left < work_left + 2 * job.startup_seconds:
            wanted = Mode.ON_DEMAND
        return _safety_net(job, moment, wanted)


@dataclass(frozen=True, slots=True)
class UniformProgress:
    """Keeps up with an even pace: on demand when behind it, none when ahead and spot is gone (Wu et al., NSDI '24)."""

    job: Job
    #: Stays on demand until it is ahead by two starts.
    has_hysteresis: bool = True

    @property
    def name(self) -> str:
        """With or without hysteresis."""
        return "uniform_progress" if self.has_hysteresis else "uniform_progress_no_hysteresis"

    def choose(self, moment: Moment) -> Mode:
        """Return what the even pace asks for."""
        job = self.job
        now = moment.tick * job.tick_seconds
        done = job.work_seconds - moment.work_left_seconds
        pace = job.work_seconds / job.deadline_seconds
        without = Mode.ON_DEMAND if done < now * pace else Mode.IDLE
        wanted = Mode.SPOT if moment.is_available else without
        if self.has_hysteresis and moment.mode is Mode.ON_DEMAND:
            is_ahead = done >= (now + 2 * job.startup_seconds) * pace
            wanted = Mode.SPOT if moment.is_available and is_ahead else Mode.ON_DEMAND
        return _safety_net(job, moment, wanted)


@dataclass(frozen=True, slots=True)
class SkyNomadRule:
    """The utility rule of SkyNomad (NSDI '27) for one zone: value of progress, times what a life yields, less its price."""

    job: Job
    survival: Survival
    name: str = "skynomad"

    def choose(self, moment: Moment) -> Mode:
        """Return the choice of the highest utility; what runs need not start again."""
        job = self.job
        value = progress_value(job, moment)
        startup = job.startup_seconds / job.tick_seconds
        utilities = {Mode.IDLE: 0.0, Mode.ON_DEMAND: value - job.on_demand_price}
        if moment.is_available:
            life = self.survival.left_ticks(moment.age_ticks, is_available=True)
            lost = moment.startup_left_seconds / job.tick_seconds if moment.mode is Mode.SPOT else startup
            utilities[Mode.SPOT] = value * max(0.0, life - lost) / life - job.spot_price
        if moment.mode is not Mode.IDLE:
            # As published: what runs is left for a better machine, and not for none.
            del utilities[Mode.IDLE]
        return max(utilities, key=lambda mode: (utilities[mode], mode is moment.mode))


def progress_value(job: Job, moment: Moment) -> float:
    """Return SkyNomad's V, per hour of work: the on-demand price times the pace needed over the pace so far."""
    now = moment.tick * job.tick_seconds
    done = job.work_seconds - moment.work_left_seconds
    left = job.deadline_seconds - now
    if now <= 0 or left <= 0:
        return job.on_demand_price
    needed = moment.work_left_seconds / left
    return job.on_demand_price * needed / (done / now) if done > 0 else job.on_demand_price / needed


@dataclass(frozen=True, slots=True)
class TablePolicy:
    """Looks up the decision table."""

    table: DecisionTable
    name: str = "decision_table"

    def choose(self, moment: Moment) -> Mode:
        """Return the choice of the least expected cost."""
        return self.table.choice(moment)


#: What a setting may name, and how it is made for a job and what is known of its pool.
POLICIES: Final[Mapping[str, Callable[[Job, Survival], SpotPolicy]]] = MappingProxyType(
    {
        "decision_table": lambda job, survival: TablePolicy(build(job, survival)),
        "uniform_progress": lambda job, _: UniformProgress(job),
        "uniform_progress_no_hysteresis": lambda job, _: UniformProgress(job, has_hysteresis=False),
        "greedy": lambda job, _: Greedy(job),
        "time_sliced_1h": lambda job, _: TimeSliced(job, 3600.0),
        "time_sliced_4h": lambda job, _: TimeSliced(job, 4 * 3600.0),
        "time_sliced_13h": lambda job, _: TimeSliced(job, 13 * 3600.0),
        "skynomad": SkyNomadRule,
        "on_demand_only": lambda job, _: OnDemandOnly(job),
    }
)
DEFAULT: Final = "decision_table"
