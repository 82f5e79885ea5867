"""A job run through a trace of availability under a policy: what it costs, and when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.fleet.jobs import Job, Mode, Moment, after, guarded
from scheduler.fleet.spot_policies import SpotPolicy

#: Work below this is done, in seconds.
_DONE_SECONDS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Ride:
    """What became of a job."""

    cost: float
    is_late: bool
    modes: tuple[Mode, ...]
    starts: int


def ride(
    job: Job,
    policy: SpotPolicy,
    available: Sequence[bool] | NDArray[np.bool_],
    ages: Sequence[int] | NDArray[np.int64] | None = None,
    *,
    is_guarded: bool = True,
) -> Ride:
    """Return what the job comes to over these ticks, in which spot is there or is not for the whole of a tick.

    `ages` are ticks since availability last changed; without them they are counted from the first tick. A trace that
    ends before the deadline has no spot from there on.
    """
    work, mode, startup = job.work_seconds, Mode.IDLE, 0.0
    cost, starts, age, modes = 0.0, 0, 0, []
    for tick in range(job.ticks):
        is_there = tick < len(available) and bool(available[tick])
        age = age + 1 if tick and tick < len(available) and is_there == bool(available[tick - 1]) else 1
        if mode is Mode.SPOT and not is_there:
            mode, startup = Mode.IDLE, 0.0
        moment = Moment(
            tick=tick,
            work_left_seconds=work,
            mode=mode,
            startup_left_seconds=startup,
            is_available=is_there,
            age_ticks=int(ages[tick]) if ages is not None and tick < len(ages) else age,
        )
        choice = policy.choose(moment)
        if is_guarded:
            choice = guarded(job, moment, choice)
        starts += choice not in (Mode.IDLE, mode)
        work, startup = after(job, moment, choice)
        cost += job.price_of_tick(choice)
        mode = choice
        modes.append(choice)
        if work <= _DONE_SECONDS:
            return Ride(cost=cost, is_late=False, modes=tuple(modes), starts=starts)
    return Ride(cost=cost, is_late=True, modes=tuple(modes), starts=starts)


def ages_of(trace: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return for each tick how many ticks its run or outage is old, itself included."""
    ages = np.ones(len(trace), dtype=np.int64)
    for tick in range(1, len(trace)):
        if trace[tick] == trace[tick - 1]:
            ages[tick] = ages[tick - 1] + 1
    return ages
