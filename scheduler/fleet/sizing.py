"""How many workers: what deadlines need, and from when on they need it on demand.

Work is divisible and earliest-deadline-first keeps all workers on what is due, so n workers make all deadlines when for
each deadline D the seconds due by D are no more than the n workers' seconds until D, each counted from when it works.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from scheduler.columns import Floats
from scheduler.fleet.demand import PoolWork

#: Worker-seconds that sums may be off by.
_SLOP_SECONDS: Final = 1e-6
#: What no new worker can make in time is given so long after a start, lest it ask for all machines there are.
_LATE_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTime:
    """How long a new worker takes, and how much of its time is work once it does."""

    cold_start_seconds: float
    #: Of the seconds it runs, those whose results count: the rest goes with workers that are lost.
    efficiency: float = 1.0


def cumulative(work: PoolWork, now_us: int, margin_seconds: float) -> tuple[Floats, Floats]:
    """Return the seconds until each deadline and the worker-seconds due by then, the first first."""
    left = work.left_seconds(now_us, margin_seconds)
    due = np.cumsum(work.seconds)
    if not len(left):
        return left, due
    last = np.ones(len(left), dtype=np.bool_)
    np.greater(work.due_us[1:], work.due_us[:-1], out=last[:-1])
    return left[last], due[last]


def edf_need(left: Floats, due: Floats, ready_in: Floats, start: StartTime, *, share_seconds_min: float = 1.0) -> int:
    """Return how many workers make every deadline if started now and kept.

    `ready_in` are the seconds until each worker that is there works, the first first; those beyond it are new. New workers that
    would have less than `share_seconds_min` for it make nothing in time: see `reachable`.
    """
    if not len(due) or due[-1] <= _SLOP_SECONDS:
        return 0
    needed = 0
    there = np.sort(ready_in)
    left = reachable(left, start, share_seconds_min)
    # Worker-seconds by each deadline, of the first n workers.
    capable = np.cumsum(np.maximum(0.0, left[None, :] - there[:, None]) * start.efficiency, axis=0)
    of_new = (left - start.cold_start_seconds) * start.efficiency
    if len(there):
        enough = (capable >= due - _SLOP_SECONDS).all(axis=1)
        if enough.any():
            return int(np.argmax(enough)) + 1
        needed, due = len(there), due - capable[-1]
    return needed + max(1, math.ceil(float((due / of_new).max()) - _SLOP_SECONDS))


def reachable(left: Floats, start: StartTime, share_seconds_min: float) -> Floats:
    """Return the seconds until each deadline, and an hour after a start where it is too near for a new worker."""
    is_near = left - start.cold_start_seconds < share_seconds_min
    found: Floats = np.where(is_near, start.cold_start_seconds + _LATE_SECONDS, left)
    return found


def on_demand_floor(
    left: Floats,
    due: Floats,
    ready_in: Floats,
    start: StartTime,
    *,
    step_seconds: float,
    limits: Floats,
    share_seconds_min: float = 1.0,
) -> int:
    """Return how many on-demand workers there must be now, so that to look again in a step is early enough.

    Nothing else is counted on. `ready_in` are the on-demand workers that are there; `limits` how many there may be at most,
    for what is due by each deadline. The latest moment to start: the others, all started a step later, would just make it.
    """
    if not len(due) or due[-1] <= _SLOP_SECONDS:
        return 0
    there = np.sort(ready_in)
    now = np.maximum(0.0, left - start.cold_start_seconds) * start.efficiency
    later = np.maximum(0.0, left - start.cold_start_seconds - step_seconds) * start.efficiency
    capable = np.cumsum(np.maximum(0.0, left[None, :] - there[:, None]) * start.efficiency, axis=0)
    # New workers that come too late help nobody: of what is due so soon, as much counts as those that are there can do.
    is_near = now < share_seconds_min * start.efficiency
    due = np.where(is_near, np.minimum(due, capable[-1] if len(there) else 0.0), due)
    for count in range(len(there) + 1):
        have = capable[count - 1] if count else np.zeros(len(left))
        # Of those that are there, whoever is not needed is gone, and would start again.
        if bool((due - have - np.maximum(0.0, limits - count) * later <= _SLOP_SECONDS).all()):
            return count
    short = due - (capable[-1] if len(there) else 0.0) - np.maximum(0.0, limits - len(there)) * later
    gain = np.maximum(now - later, _SLOP_SECONDS)
    added = np.ceil(short / gain - _SLOP_SECONDS)
    # Where all at once do not make it, all at once is what there is.
    added = np.where(is_near, 0.0, added)
    most = np.maximum(0.0, limits - len(there))
    return len(there) + int(np.clip(added, 0.0, most).max())


def fallback_limits(
    left: Floats, due: Floats, start: StartTime, *, overhead_max: float, most: float, share_seconds_min: float = 1.0
) -> Floats:
    """Return how many on-demand workers may share what is due by each deadline.

    So many that their starts cost no more than this share of the work, and at least as many as the time left asks for.
    """
    worth = np.ceil(overhead_max * due / max(start.cold_start_seconds, 1.0) - _SLOP_SECONDS)
    of_new = np.maximum(left - start.cold_start_seconds, share_seconds_min) * start.efficiency
    needed = np.ceil(due / of_new - _SLOP_SECONDS)
    limits: Floats = np.minimum(most, np.maximum(np.maximum(worth, needed), 1.0))
    return limits


def latest_start_seconds(left: Floats, due: Floats, start: StartTime, *, workers: float) -> float:
    """Return how long so many new workers can still wait and make every deadline; below 0 once they cannot."""
    if not len(due) or workers <= 0:
        return math.inf if not len(due) else -math.inf
    return float((left - start.cold_start_seconds - due / (workers * start.efficiency)).min())
