"""Measure one scheduling cycle and print JSON: `python -m tests.bench.bench_cycle`.

The target of the case `thousand_backlogs` is a median of 50 ms at most, and makes the exit code. `ten_thousand` and
`hundred_thousand` have goals of 50 ms and 1 s, with as many packs to make as workers of a fleet at work ask for between two
cycles, and say where their time goes. The other cases show what makes a cycle dear: many tenants, packs that are filled up from hundreds of
batches, a large fleet.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path

from pipeline.app.stack import collect_seldom
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import BatchId, PackId, TenantId
from pipeline.domain.promises import Promise
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Backlog, FairTag, OpenShard, PoolView, Snapshot, WorkSize
from scheduler.cycle import decide
from scheduler.policy import Policy
from tests.bench.machine import machine
from tests.scheduler.world import references

MILLISECONDS_MAX = 50.0
NOW_US = 1_700_000_000_000_000
MODELS = ("model-a", "model-b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A snapshot's size."""

    name: str
    backlogs: int
    tenants: int
    workers: int
    rows_per_shard: int
    #: Packs that wait already, of the two a worker there may be.
    packs_waiting: int = 0
    shards_per_backlog: int = 8
    repeats: int = 15
    milliseconds_wanted: float | None = None


CASES = (
    Case(name="thousand_backlogs", backlogs=1000, tenants=20, workers=8, rows_per_shard=4096),
    Case(name="one_tenant", backlogs=1000, tenants=1, workers=8, rows_per_shard=4096),
    Case(name="packs_of_many_batches", backlogs=1000, tenants=20, workers=8, rows_per_shard=1, shards_per_backlog=1),
    Case(name="thousand_idle_workers", backlogs=1000, tenants=20, workers=1000, rows_per_shard=4096),
    Case(
        name="ten_thousand",
        backlogs=10_000,
        tenants=1000,
        workers=100,
        packs_waiting=180,
        rows_per_shard=4096,
        shards_per_backlog=1,
        milliseconds_wanted=50.0,
    ),
    Case(
        name="hundred_thousand",
        backlogs=100_000,
        tenants=1000,
        workers=1000,
        packs_waiting=1900,
        rows_per_shard=4096,
        shards_per_backlog=1,
        repeats=5,
        milliseconds_wanted=1000.0,
    ),
    Case(
        name="hundred_thousand_and_all_workers_idle",
        backlogs=100_000,
        tenants=1000,
        workers=1000,
        rows_per_shard=4096,
        shards_per_backlog=1,
        repeats=5,
        milliseconds_wanted=1000.0,
    ),
)
#: Whose time is told apart, by the function that it is spent below.
PARTS = {
    "lineup": ("lineup.py", "of"),
    "promises": ("promises.py", "__init__"),
    "answers": ("promises.py", "answers"),
    "pressing": ("promises.py", "pressing"),
    "nominate": ("nominate.py", "refusals_of"),
    "queues": ("fairness.py", "__init__"),
    "press": ("fairness.py", "press"),
    "pack": ("cycle.py", "_fill_pools"),
    "standings": ("cycle.py", "_standings_of"),
    "tags": ("cycle.py", "_tags_of"),
    "recall": ("charges.py", "recall"),
}


def snapshot_of(case: Case, fair_tags: tuple[FairTag, ...] = ()) -> Snapshot:
    """Return a snapshot of the case: every tier, two models, one pool."""
    tiers = tuple(Tier)
    backlogs = tuple(
        Backlog(
            tenant_id=TenantId(f"tnt_{number % case.tenants}"),
            batch_id=BatchId(f"batch_{number:06d}"),
            tier=tiers[number % len(tiers)],
            model=MODELS[number % len(MODELS)],
            endpoint=Endpoint.CHAT_COMPLETIONS,
            created_at_us=NOW_US - number,
            deadline_at_us=NOW_US + 3_600_000_000 + number,
            promise=(Promise.MADE, Promise.DECLINED, Promise.PENDING)[number % 3],
            hold_until_us=None,
            is_paused=False,
            left=WorkSize(
                rows=case.rows_per_shard * case.shards_per_backlog,
                input_tokens=200 * case.rows_per_shard * case.shards_per_backlog,
                output_tokens=100 * case.rows_per_shard * case.shards_per_backlog,
            ),
            spent_micros=0,
            budget_micros=None,
            shards=tuple(
                OpenShard(
                    shard_id=number * case.shards_per_backlog + shard_no,
                    shard_no=shard_no,
                    rows_total=case.rows_per_shard,
                    rows_packed=0,
                    input_tokens=200 * case.rows_per_shard,
                    output_tokens=100 * case.rows_per_shard,
                )
                for shard_no in range(case.shards_per_backlog)
            ),
        )
        for number in range(case.backlogs)
    )
    return Snapshot(
        now_us=NOW_US,
        backlogs=backlogs,
        pools=(
            PoolView(pool="gpu", workers=case.workers, servings=references(MODELS), packs_waiting=case.packs_waiting),
        ),
        tokens_per_second=dict.fromkeys(MODELS, 5000.0),
        virtual_seconds=0.0,
        fair_tags=fair_tags,
    )


def measure(case: Case) -> dict[str, object]:
    """Return the cycle's times for the case, in milliseconds, with the memory that a first cycle leaves."""
    # As the scheduler's process does.
    collect_seldom()
    numbers = count()

    def new_pack_id() -> PackId:
        return PackId(f"pack_{next(numbers)}")

    plan = decide(snapshot_of(case), Policy(), new_pack_id)
    reasons = {standing.batch_id: standing.reason for standing in plan.standings}
    seen = snapshot_of(case, plan.fair_tags)
    snapshot = replace(seen, backlogs=tuple(replace(each, reason=reasons[each.batch_id]) for each in seen.backlogs))
    times = []
    for _ in range(case.repeats):
        started = time.perf_counter()
        plan = decide(snapshot, Policy(), new_pack_id)
        times.append((time.perf_counter() - started) * 1000)
    found: dict[str, object] = {}
    if case.milliseconds_wanted is not None:
        found["is_goal_met"] = statistics.median(times) <= case.milliseconds_wanted
        found["time_shares"] = time_shares(lambda: decide(snapshot, Policy(), new_pack_id))
    return asdict(case) | {
        "packs": len(plan.packs),
        "slices": sum(len(pack.slices) for pack in plan.packs),
        "milliseconds_best": round(min(times), 2),
        "milliseconds_median": round(statistics.median(times), 2),
        "milliseconds_max": round(max(times), 2),
        **found,
    }


def time_shares(cycle: Callable[[], object]) -> dict[str, float]:
    """Return which share of one cycle, slowed down by looking at it, goes to each of its parts."""
    profile = cProfile.Profile()
    profile.runcall(cycle)
    # (file, line, function) to (calls, primitive calls, own seconds, seconds, callers); typeshed lacks it.
    stats: dict[tuple[str, int, str], tuple[int, int, float, float, object]] = vars(pstats.Stats(profile))["stats"]
    seconds = {
        (Path(file).name, function): each[3] for (file, _, function), each in stats.items() if "scheduler" in file
    }
    whole = seconds["cycle.py", "decide"]
    return {part: round(seconds.get(place, 0.0) / whole, 3) for part, place in PARTS.items()}


def main() -> int:
    """Print the report; exit 1 when the target is missed."""
    cases = [measure(case) for case in CASES]
    is_met = float(str(cases[0]["milliseconds_median"])) <= MILLISECONDS_MAX
    report = {
        "bench": "cycle",
        "target_milliseconds": MILLISECONDS_MAX,
        "is_met": is_met,
        "cases": cases,
        "machine": machine(),
    }
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
