"""Measure what a job with a deadline costs on one spot zone, policy by policy, against the exact optimum.

    python -m tests.bench.bench_spot [--data FOLDER] [--fit FOLDER] [--starts 10] [--cells 720:52,72:52]

Prints one JSON object; exits 1 where a goal is missed or a job is late. `--data` is a folder of availability traces, a
file per zone; without it traces are made up, and no goal holds. What is known of zones is learned from the first half of
each trace, and everything is reported on the second; with `--fit`, learned from another folder and reported on all.

The setting is that of Can't Be Late (Wu et al., NSDI '24): 48 hours of work, one V100 at $3.06 on demand and $0.9731 on
spot, ticks of 10 minutes paid whole, and a start of so many seconds that is paid and does nothing. Windows begin at
random; those of a zone overlap. The ratio is that of mean costs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scheduler.fleet.decision_table import build
from scheduler.fleet.jobs import Job
from scheduler.fleet.optimum import optimum
from scheduler.fleet.replay import ages_of, ride
from scheduler.fleet.spot_policies import POLICIES, SpotOnly, SpotPolicy, TablePolicy
from scheduler.fleet.survival import PoolHistory, Survival, fit
from tests.bench.machine import machine
from tests.bench.spot_traces import Traces, made_up, spot_traces

TICK_SECONDS = 600
WORK_HOURS = 48
ON_DEMAND, SPOT = 3.06, 0.9731
DEADLINES = (52, 60, 70, 72, 92)
STARTUPS = (720, 360, 72)
GOALS = {"720:52": 1.117, "720:60": 1.093, "720:72": 1.080, "720:92": 1.067, "72:52": 1.008}
DEFAULT = "decision_table"
#: The table of the fleet's hazards, as a zone without history has.
FLEET = "decision_table_fleet"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--fit", type=Path, default=None)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", default=None, help="start-up seconds and deadline hours, such as 720:52,72:52")
    given = parser.parse_args(arguments)
    traces = spot_traces(given.data, TICK_SECONDS) if given.data else made_up(4, 2500)
    learned, told = (spot_traces(given.fit, TICK_SECONDS), traces) if given.fit else halves(traces)
    fleet, pools = fit({zone: PoolHistory.of(trace) for zone, trace in learned.items()})
    wanted = (
        given.cells.split(",") if given.cells else [f"{start}:{hours}" for start in STARTUPS for hours in DEADLINES]
    )
    cells = {}
    for name in wanted:
        cells[name] = measured(name, told, fleet, pools, np.random.default_rng(given.seed), given.starts)
        print(name, cells[name]["ratio"], file=sys.stderr)
    report = {
        "bench": "spot",
        "data": "spot-v100" if given.data else "made up",
        "learned_from": "another folder" if given.fit else "the first half of each trace",
        "zones": {zone: round(float(trace.mean()), 3) for zone, trace in told.items()},
        "hours_per_zone": round(min(len(trace) for trace in told.values()) * TICK_SECONDS / 3600, 1),
        "starts_per_zone": given.starts,
        "goals": {name: goal for name, goal in GOALS.items() if name in cells},
        "cells": cells,
        "is_met": all(
            not any(count for name, count in cell["late"].items() if name != "spot_only")
            and (given.data is None or cell["ratio"][DEFAULT] <= GOALS.get(name, np.inf))
            for name, cell in cells.items()
        ),
        "machine": machine(),
    }
    print(json.dumps(report, indent=2))
    return 0 if report["is_met"] else 1


def halves(traces: Traces) -> tuple[Traces, Traces]:
    """Return the first half of each trace, and the second."""
    return (
        {zone: trace[: len(trace) // 2] for zone, trace in traces.items()},
        {zone: trace[len(trace) // 2 :] for zone, trace in traces.items()},
    )


@dataclass(slots=True)
class _Sums:
    costs: dict[str, list[float]] = field(default_factory=dict)
    late: dict[str, int] = field(default_factory=dict)
    starts: dict[str, list[int]] = field(default_factory=dict)


def measured(
    cell: str,
    traces: Traces,
    fleet: Survival,
    pools: Mapping[str, Survival],
    drawn: np.random.Generator,
    starts: int,
) -> dict[str, Any]:
    """Return a cell's figures: a length of starts and a deadline."""
    job = job_of(cell)
    began = time.perf_counter()
    fleet_table = TablePolicy(build(job, fleet), FLEET)
    built = time.perf_counter() - began
    sums = _Sums()
    optima = []
    for zone, trace in traces.items():
        last = len(trace) - job.ticks
        if last < 0:
            raise SystemExit(f"{zone} has {len(trace)} ticks; a window of {cell} needs {job.ticks}")
        policies: list[SpotPolicy] = [make(job, pools.get(zone, fleet)) for make in POLICIES.values()]
        policies += [fleet_table, SpotOnly(job)]
        ages = ages_of(trace)
        for start in drawn.integers(0, last + 1, starts):
            window = slice(start, start + job.ticks)
            optima.append(optimum(job, trace[window]))
            for policy in policies:
                found = ride(job, policy, trace[window], ages[window], is_guarded=not isinstance(policy, SpotOnly))
                sums.costs.setdefault(policy.name, []).append(found.cost)
                sums.late[policy.name] = sums.late.get(policy.name, 0) + found.is_late
                sums.starts.setdefault(policy.name, []).append(found.starts)
    best = float(np.mean(optima))
    return {
        "startup_seconds": job.startup_seconds,
        "deadline_hours": job.deadline_seconds / 3600,
        "runs": len(optima),
        "optimum": round(best, 2),
        "cost": {name: round(float(np.mean(costs)), 2) for name, costs in sums.costs.items()},
        "ratio": {name: round(float(np.mean(costs)) / best, 4) for name, costs in sums.costs.items()},
        "late": sums.late,
        "starts": {name: round(float(np.mean(counts)), 1) for name, counts in sums.starts.items()},
        "seconds_to_build_a_table": round(built, 2),
    }


def job_of(cell: str) -> Job:
    """Return the job of a cell named like 720:52."""
    startup, hours = cell.split(":")
    return Job(
        work_seconds=WORK_HOURS * 3600.0,
        deadline_seconds=float(hours) * 3600,
        tick_seconds=TICK_SECONDS,
        startup_seconds=float(startup),
        spot_price=SPOT,
        on_demand_price=ON_DEMAND,
    )


if __name__ == "__main__":
    sys.exit(main())
