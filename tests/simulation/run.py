"""Run many seeds: `python -m tests.simulation.run --seeds 20000 --jobs 2`, one: `--seed 7 --trace`."""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from tests.bench.machine import machine
from tests.simulation.harness import SOMETIMES, run
from tests.simulation.layers import REAL, Layers
from tests.simulation.world import Report

_SEEDS_PER_TASK = 250
_VIOLATIONS_SHOWN = 20


@dataclass(slots=True)
class Tally:
    """Reports of many seeds, added up."""

    seeds: int = 0
    steps: int = 0
    cpu_seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    #: Seed, kind, particulars.
    violations: list[tuple[int, str, str]] = field(default_factory=list)

    def add(self, report: Report) -> None:
        self.seeds += 1
        self.steps += report.steps
        self.counts.update(report.counts)
        self.violations += [(report.seed, kind, detail) for kind, detail in report.violations]

    def merge(self, other: Tally) -> None:
        self.seeds += other.seeds
        self.steps += other.steps
        self.cpu_seconds += other.cpu_seconds
        self.counts.update(other.counts)
        self.violations += other.violations

    def never(self) -> list[str]:
        """Return the events that ought to have happened and did not."""
        return [event for event in SOMETIMES if not self.counts[event]]


def run_many(seeds: Iterable[int], layers: Layers = REAL) -> Tally:
    tally = Tally()
    started = time.process_time()
    # Runs leave cycles behind, but few: collecting once for all of them is a tenth faster.
    gc.disable()
    try:
        for seed in seeds:
            tally.add(run(seed, layers))
    finally:
        gc.enable()
    tally.cpu_seconds = time.process_time() - started
    return tally


def run_parallel(first: int, seeds: int, jobs: int) -> Tally:
    """Run `seeds` seeds from `first` on, in `jobs` processes."""
    if jobs == 1:
        return run_many(range(first, first + seeds))
    ranges = [
        range(start, min(start + _SEEDS_PER_TASK, first + seeds))
        for start in range(first, first + seeds, _SEEDS_PER_TASK)
    ]
    tally = Tally()
    with ProcessPoolExecutor(jobs) as pool:
        for part in pool.map(run_many, ranges):
            tally.merge(part)
    return tally


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20_000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--seed", type=int, help="run this seed only")
    parser.add_argument("--trace", action="store_true", help="with --seed: print every event")
    parser.add_argument("--without", default="", help="with --seed: layers to switch off, with commas between")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        layers = Layers(**dict.fromkeys(filter(None, options.without.split(",")), False))
        return _show(run(options.seed, layers, traced=options.trace))
    started = time.perf_counter()
    tally = run_parallel(options.first, options.seeds, options.jobs)
    seconds = time.perf_counter() - started
    summary = {
        "benchmark": "simulation",
        "machine": machine(),
        "seeds": tally.seeds,
        "first": options.first,
        "jobs": options.jobs,
        "seconds": round(seconds, 2),
        "seeds_per_second": round(tally.seeds / seconds),
        "cpu_milliseconds_a_seed": round(1_000 * tally.cpu_seconds / tally.seeds, 2),
        "steps": tally.steps,
        "violations": len(tally.violations),
        "violations_shown": [
            {"seed": seed, "kind": kind, "detail": detail}
            for seed, kind, detail in tally.violations[:_VIOLATIONS_SHOWN]
        ],
        "sometimes": dict(sorted(tally.counts.items())),
        "never": tally.never(),
    }
    sys.stdout.write(json.dumps(summary, indent=None if options.json else 2) + "\n")
    return 1 if tally.violations or tally.never() else 0


def _show(report: Report) -> int:
    for line in report.trace or ():
        sys.stdout.write(line + "\n")
    outcome = {
        "seed": report.seed,
        "steps": report.steps,
        "violations": report.violations,
        "sometimes": dict(sorted(report.counts.items())),
    }
    sys.stdout.write(json.dumps(outcome) + "\n")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
