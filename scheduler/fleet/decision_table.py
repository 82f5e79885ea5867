"""When to wait, take spot, or pay on demand: a finite-horizon semi-Markov decision problem, solved backwards into a table.

The state is the tick, the slack (time left minus work left), what runs and how far its start is, whether spot is there,
and for how long it has been so. Slack in place of work left keeps the table small: a tick that works keeps it, a tick
that waits costs one, a start costs its own length; and whatever has slack below nothing is late.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scheduler.fleet.jobs import Job, Mode, Moment, time_left_seconds
from scheduler.fleet.survival import AGE_EDGES, BUCKETS, Floats, Survival, bucket_of

#: Parts of a tick that slack is told apart by; what lies between them is interpolated, and never counted as more.
SLOTS_PER_TICK: Final = 5
#: What is late costs this much, and what leads to it with any chance more than the limit: it is never chosen.
_LATE: Final = 1e15
_LATE_FROM: Final = 1e9
_MODES: Final = (Mode.IDLE, Mode.SPOT, Mode.ON_DEMAND)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionTable:
    """The least expected cost of every state, and the choice that leads to it."""

    job: Job
    slots_per_tick: int
    #: By whether spot is there (0, 1): tick, mode with its stage of starting, bucket of age, slack in slots.
    choices: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    #: Expected cost from an idle state on: tick, bucket, slack; infinite where the deadline cannot be promised.
    idle_values: tuple[NDArray[np.float32], NDArray[np.float32]]

    def choice(self, moment: Moment) -> Mode:
        """Return what to do with the next tick."""
        slack = self._slack_slots(moment)
        if slack < 0 or moment.tick >= self.job.ticks:
            return Mode.ON_DEMAND
        table = self.choices[moment.is_available]
        return _MODES[table[moment.tick, self._row(moment), bucket_of(moment.age_ticks), slack]]

    def expected_cost(self, moment: Moment) -> float:
        """Return the expected cost from here on with nothing running; infinite where lateness cannot be ruled out."""
        slack = self._slack_slots(moment)
        if slack < 0:
            return math.inf
        table = self.idle_values[moment.is_available]
        return float(table[moment.tick, bucket_of(moment.age_ticks), slack])

    def work_value(self, moment: Moment, *, over_ticks: int = 1) -> float:
        """Return what an hour of work done is worth now, per hour: how much less the rest costs with less left to do.

        Where the deadline could not be promised without it, it is worth what on demand costs.
        """
        step = self.slots_per_tick * over_ticks
        table = self.idle_values[moment.is_available][min(moment.tick, self.job.ticks)]
        row = table[bucket_of(moment.age_ticks)]
        slack = self._slack_slots(moment)
        high = min(max(slack, 0) + step, len(row) - 1)
        low = max(0, high - step)
        if slack < 0 or high == low or not math.isfinite(row[low]):
            return self.job.on_demand_price
        hours = (high - low) / self.slots_per_tick * self.job.tick_seconds / 3600
        return float(row[low] - row[high]) / hours

    def _slack_slots(self, moment: Moment) -> int:
        slack_seconds = time_left_seconds(self.job, moment) - moment.work_left_seconds
        slots = math.floor(slack_seconds / self.job.tick_seconds * self.slots_per_tick + 1e-6)
        return min(slots, int(self.idle_values[0].shape[-1]) - 1)

    def _row(self, moment: Moment) -> int:
        if moment.mode is Mode.IDLE:
            return 0
        left = moment.startup_left_seconds / self.job.tick_seconds * self.slots_per_tick
        stages = _stages(self.job, self.slots_per_tick)
        # The stage that has at least as much of its start before it.
        stage = max((at for at, slots in enumerate(stages) if slots >= left - 1e-6), key=lambda at: -stages[at])
        first = 1 if moment.mode is Mode.SPOT else 1 + len(stages) * int(moment.is_available)
        return first + stage


def build(job: Job, survival: Survival, *, slots_per_tick: int = SLOTS_PER_TICK) -> DecisionTable:
    """Return the table of a job whose spot capacity comes and goes like this."""
    slack = math.floor(job.ticks * slots_per_tick - job.work_seconds / job.tick_seconds * slots_per_tick + 1e-6)
    return _Induction(job, survival, slots_per_tick, max(0, slack) + 1).table()


def _stages(job: Job, slots_per_tick: int) -> list[float]:
    """Return slots of start-up that are left when a tick begins, by stage; the first is none, working."""
    left = job.startup_seconds / job.tick_seconds * slots_per_tick - slots_per_tick
    stages = [0.0]
    while left > 1e-9:  # noqa: PLR2004 - below rounding
        stages.append(left)
        left -= slots_per_tick
    return stages


class _Induction:
    """The backward pass. Values are arrays of mode and stage, bucket of age, slack."""

    def __init__(self, job: Job, survival: Survival, slots_per_tick: int, slack_slots: int) -> None:
        self._job, self._slots, self._width = job, slots_per_tick, slack_slots
        self._stages = _stages(job, slots_per_tick)
        self._fresh_slots = job.startup_seconds / job.tick_seconds * slots_per_tick
        widths = np.diff([*AGE_EDGES, np.inf])
        self._older = (1 / widths)[:, None]
        self._ends = (survival.outage_hazards[:, None], survival.run_hazards[:, None])
        self._elsewhere, self._elsewhere_bucket = survival.elsewhere, survival.elsewhere_bucket

    def table(self) -> DecisionTable:
        job, stages, width = self._job, len(self._stages), self._width
        rows = (1 + stages, 1 + 2 * stages)
        choices = tuple(np.zeros((job.ticks, each, BUCKETS, width), dtype=np.uint8) for each in rows)
        idle = tuple(np.zeros((job.ticks + 1, BUCKETS, width), dtype=np.float32) for _ in rows)
        there = np.zeros((rows[1], BUCKETS, width))
        gone = np.zeros((rows[0], BUCKETS, width))
        for tick in range(job.ticks - 1, -1, -1):
            there, gone = self._step(there, gone, choices[1][tick], choices[0][tick])
            done = (job.ticks - tick) * self._slots
            there[..., done:] = gone[..., done:] = 0.0
            for values, kept in ((gone, idle[0]), (there, idle[1])):
                np.copyto(values, _LATE, where=values > _LATE_FROM)
                kept[tick] = np.where(values[0] >= _LATE, np.inf, values[0])
        return DecisionTable(
            job=job, slots_per_tick=self._slots, choices=(choices[0], choices[1]), idle_values=(idle[0], idle[1])
        )

    def _step(
        self, there: Floats, gone: Floats, choose_there: NDArray[np.uint8], choose_gone: NDArray[np.uint8]
    ) -> tuple[Floats, Floats]:
        stages = len(self._stages)
        # Of what runs when spot is gone: on demand is the same machine, spot is none.
        lost = [0, *[0] * stages, *range(1, 1 + stages)]
        kept = [0, *range(1 + stages, 1 + 2 * stages)]
        ended = gone[lost][:, :1]
        if self._elsewhere > 0:
            # Another pool's capacity is there at once, and a start away for what ran on spot.
            others = [0, *[0] * stages, *range(1 + stages, 1 + 2 * stages)]
            at = self._elsewhere_bucket
            ended = (1 - self._elsewhere) * ended + self._elsewhere * there[others][:, at : at + 1]
        next_there = self._aged(there, ended, self._ends[1])
        next_gone = self._aged(gone, there[kept][:, :1], self._ends[0])
        spot = self._runs(next_there[1 : 1 + stages], self._job.price_of_tick(Mode.SPOT))
        paid = self._job.price_of_tick(Mode.ON_DEMAND)
        on_demand = self._runs(next_there[1 + stages :], paid)
        waits = self._later(next_there[0], self._slots)
        rows = [(stage, -1) for stage in range(stages)] + [(-1, stage) for stage in range(stages)]
        for row, (on_spot, on_paid) in enumerate([(-1, -1), *rows]):
            _least((waits, spot[on_spot], on_demand[on_paid]), there[row], choose_there[row])
        on_demand = self._runs(next_gone[1:], paid)
        waits = self._later(next_gone[0], self._slots)
        late = np.full_like(waits, _LATE)
        for row, on_paid in enumerate([-1, *range(stages)]):
            _least((waits, late, on_demand[on_paid]), gone[row], choose_gone[row])
        return there, gone

    def _aged(self, stays: Floats, other: Floats, ends: Floats) -> Floats:
        """Return the expectation over what the next tick brings."""
        older = np.concatenate([stays[:, 1:], stays[:, -1:]], axis=1)
        return np.asarray(ends * other + (1 - ends) * (stays + self._older * (older - stays)))

    def _runs(self, values: Floats, price: float) -> list[Floats]:
        """Return the value of running for a tick, by the stage that it begins in; the last is a fresh start."""
        made = []
        for left in [*self._stages, self._fresh_slots]:
            rest = left - self._slots
            following = next((at for at, slots in enumerate(self._stages) if abs(slots - rest) < 1e-6), 0)  # noqa: PLR2004
            made.append(price + self._later(values[following], min(float(self._slots), left)))
        return made

    def _later(self, values: Floats, lost_slots: float) -> Floats:
        """Return the values with this much less slack."""
        whole = math.floor(lost_slots + 1e-9)
        part = max(0.0, lost_slots - whole)
        made = np.full_like(values, _LATE)
        if whole < self._width:
            made[:, whole:] = (1 - part) * values[:, : self._width - whole]
            if part > 1e-9:  # noqa: PLR2004 - below rounding
                made[:, whole + 1 :] += part * values[:, : self._width - whole - 1]
                made[:, whole] = _LATE
        return made


def _least(candidates: tuple[Floats, Floats, Floats], into: Floats, choose: NDArray[np.uint8]) -> None:
    waits, spot, on_demand = candidates
    np.minimum(waits, spot, out=into)
    choose[...] = spot < waits
    choose[on_demand < into] = 2
    np.minimum(into, on_demand, out=into)
