"""Measure by how much budgets are overrun, in many random runs of tenants, projects, batches and months.

    python -m tests.bench.bench_budgets [--runs 1000]

Prints one JSON object; exits 1 where a budget is overrun by more than one pack's upper bound. `all_wrong` has no target:
it tells what happens where every bound is too low.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from tests.bench.machine import machine
from tests.scheduler.treasury import Outcome, all_wrong, as_assumed, beside_fixed_time, treasury, within_bounds

WITH_TARGET = (within_bounds, as_assumed, beside_fixed_time)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--runs-all-wrong", type=int, default=200)
    options = parser.parse_args(arguments)
    report: dict[str, Any] = {each.__name__: of_runs(each, options.runs) for each in WITH_TARGET}
    report["all_wrong"] = of_runs(all_wrong, options.runs_all_wrong)
    report["machine"] = machine()
    is_met = all(report[each.__name__]["overrun_packs_max"] <= 1 for each in WITH_TARGET)
    print(json.dumps({"bench": "budgets", "is_met": is_met} | report, indent=2))
    return 0 if is_met else 1


def of_runs(ratio: Callable[[Random], float], runs: int) -> dict[str, Any]:
    """Return what came of so many runs: whatever is broken in one raises."""
    began = time.perf_counter()
    outcomes: list[Outcome] = [treasury(seed, ratio).run() for seed in range(runs)]
    overrun = [each.overrun_packs for each in outcomes]
    worst = max(outcomes, key=lambda each: each.overrun_packs)
    return {
        "charges": (ratio.__doc__ or "").strip(),
        "runs": runs,
        "overrun_packs_max": round(max(overrun), 3),
        "runs_with_an_overrun": sum(each > 0 for each in overrun),
        "runs_over_one_pack": sum(each > 1 for each in overrun),
        "worst": {
            "account": worst.where,
            "overrun_micros": worst.overrun_micros,
            "pack_bound_micros": worst.pack_bound_micros,
        },
        "packs": sum(each.packs for each in outcomes),
        "packs_beyond_their_bound": sum(each.packs_beyond for each in outcomes),
        "budgets_reached": sum(each.stops for each in outcomes),
        "spent_micros": sum(each.spent_micros for each in outcomes),
        "seconds": round(time.perf_counter() - began, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
