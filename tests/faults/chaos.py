"""One run: a batch under fire to its end, the same batch in quiet, and the verdict."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import text

from tests.bench.machine import machine as this_machine
from tests.faults.inputs import write_input
from tests.faults.plan import Plan
from tests.faults.stand import ROWS_A_STEP, Stand, standing, strike, within
from tests.faults.strikes import Striker
from tests.faults.verify import differences, misplaced, rows_of, violations_of

#: Events of the logs that say what happened to the product.
_TOLD = (
    *("commit_refused", "finish_refused", "worker_fenced_itself", "heartbeat_failed", "lease_failed", "broker_down"),
    *("deposed", "doer_failed", "doer_crashed", "committer_failed", "engine_failed", "hints_stopped"),
)
#: These are only ever written about a bug.
_NEVER_TOLD = ("doer_crashed", "engine_failed", "hints_stopped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What to run."""

    seed: int
    rows: int
    plan: Plan
    home: Path
    workers: int = 2
    lease_seconds: float = 3.0
    pack_seconds: float = 1.0
    #: What the batch would take with nobody killed: time for the faults to strike in.
    quiet_seconds: float
    seconds_max: float


@dataclass(kw_only=True)
class Report:
    """What came of it."""

    seed: int
    rows: int
    planned: dict[str, int]
    kills: dict[str, int] = field(default_factory=dict)
    sometimes: dict[str, int] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)
    rework_percent: float = 0.0
    seconds: float = 0.0
    machine: dict[str, object] = field(default_factory=this_machine)
    violations: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.violations

    def as_document(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": "good" if self.is_good else "bad"}


def run(chaos: Run) -> Report:
    """Run the plan to the batch's end, then verify everything."""
    report = Report(seed=chaos.seed, rows=chaos.rows, planned=chaos.plan.kills())
    source = chaos.home.parent / f"{chaos.home.name}-input.jsonl"
    custom_ids = write_input(source, rows=chaos.rows, seed=chaos.seed)
    started = time.monotonic()
    with standing(
        chaos.home, workers=chaos.workers, lease_seconds=chaos.lease_seconds, pack_seconds=chaos.pack_seconds
    ) as stand:
        pace = chaos.quiet_seconds * chaos.workers * ROWS_A_STEP / chaos.rows
        striker = Striker(stand=stand, lease_seconds=chaos.lease_seconds, seed=chaos.seed, pace_seconds=pace)
        stand.set_pace(pace)
        batch_id = striker.submit(source, "the-batch", points=chaos.plan.submit_points)
        _strike_all(chaos, striker, batch_id)
        _await_ends(chaos, stand, report, started)
        report.seconds = round(time.monotonic() - started, 1)
        report.rework_percent = _rework_percent(stand)
        stand.set_pace(0)
        quiet_id = striker.submit(source, "the-quiet-batch", points=())
        _await_ends(chaos, stand, report, time.monotonic())
        _end_workers(stand, report)
        _judge(report, striker, batch_id, quiet_id, custom_ids)
    return report


def _strike_all(chaos: Run, striker: Striker, batch_id: str) -> None:
    deadline = time.monotonic() + chaos.seconds_max
    for event in chaos.plan.events:
        while _done_fraction(striker.stand, batch_id) < event.at:
            if time.monotonic() > deadline:
                striker.problems.append(f"the batch stands still before {event.fault} at {event.at}")
                return
            time.sleep(0.05)
        striker.strike(event)


def _done_fraction(stand: Stand, batch_id: str) -> float:
    done = """
        SELECT coalesce(sum(rows_succeeded + rows_errored)::float / sum(rows_total), 0) AS fraction FROM shards
         WHERE batch_id = :batch_id
    """
    return float(rows_of(stand.stack, done, batch_id=batch_id)[0]["fraction"])


def _await_ends(chaos: Run, stand: Stand, report: Report, started: float) -> None:
    """Wait until every batch has ended by itself."""
    live = "SELECT id, state FROM batches WHERE state IN ('validating', 'in_progress', 'finalizing', 'cancelling')"
    for _ in within(max(1.0, chaos.seconds_max - (time.monotonic() - started))):
        if not rows_of(stand.stack, live):
            return
    report.violations.append(f"not ended after {chaos.seconds_max:.0f} s: {rows_of(stand.stack, live)}")


def _rework_percent(stand: Stand) -> float:
    (row,) = rows_of(stand.stack, "SELECT coalesce(sum(rows_succeeded + rows_errored), 0) AS done FROM shards")
    done: int = row["done"]
    return round(100 * (stand.rows_computed() / max(1, done) - 1), 2)


def _end_workers(stand: Stand, report: Report) -> None:
    """Stop the workers in good order; the scheduler stays until the killed ones are declared lost."""
    stand.stop_restarting()
    for name in stand.worker_names():
        pid = stand.pid(name)
        if pid is not None:
            strike(pid, signal.SIGTERM)
    live = "SELECT id, state FROM workers WHERE state NOT IN ('stopped', 'lost')"
    for _ in within(30.0):
        if not rows_of(stand.stack, live):
            return
    report.violations.append(f"workers that never ended: {rows_of(stand.stack, live)}")


def _judge(report: Report, striker: Striker, batch_id: str, quiet_id: str, custom_ids: list[str]) -> None:
    stack = striker.stand.stack
    report.kills = dict(striker.kills)
    # Valkey is our Redis; its process goes by its own name.
    report.kills["redis"] = report.kills.pop("valkey", 0)
    report.told = striker.stand.log_events(*_TOLD)
    report.sometimes = dict(striker.sometimes + _seen(stack.database.run))
    found = [*striker.problems, *violations_of(stack), *differences(stack, batch_id, quiet_id)]
    found += [f"{folder.name} was left in the spool" for folder in stack.spool_folder.iterdir()]
    batches = {batch_id: custom_ids, quiet_id: custom_ids, **striker.side_batches, **_orphans(striker)}
    for each, expected in batches.items():
        found += misplaced(stack, each, expected)
    for kind, wanted in report.planned.items():
        if report.kills.get(kind, 0) < wanted:
            found.append(f"{kind} was killed {report.kills.get(kind, 0)} times, {wanted} were planned")
    found += [f"the logs tell of {name}" for name in _NEVER_TOLD if report.told[name]]
    found += [f"it never came to {name}" for name in _due(report) if not report.sometimes.get(name)]
    report.violations += found


def _due(report: Report) -> list[str]:
    """Return what the schedule guarantees to have happened."""
    due = ["leases_rescued", "resubmits", "redis_flushes", "workers_lost", "late_commits_refused", "bisections"]
    return [*due, "terms_led"] if report.planned["scheduler"] else due


def _seen(run_query: Callable[..., Any]) -> Counter[str]:
    queries = {
        "leases_rescued": "SELECT count(*) FROM attempts WHERE outcome = 'lease_lost'",
        "attempts_preempted": "SELECT count(*) FROM attempts WHERE outcome = 'preempted'",
        "bisections": "SELECT count(DISTINCT parent_id) FROM packs WHERE parent_id IS NOT NULL",
        "workers_lost": "SELECT count(*) FROM workers WHERE state = 'lost'",
        "intake_taken_over": "SELECT count(*) FROM batches WHERE claim_token > 2",
        "late_spans": "SELECT count(*) FROM worker_intervals WHERE kind = 'late'",
        "terms_led": "SELECT max(epoch) - 1 FROM leadership",
        "packs": "SELECT count(*) FROM packs",
        "attempts": "SELECT count(*) FROM attempts",
        "parts": "SELECT count(*) FROM parts",
    }
    return Counter(
        {
            name: run_query(lambda connection, query=query: connection.execute(text(query)).scalar_one() or 0)
            for name, query in queries.items()
        }
    )


def _orphans(striker: Striker) -> dict[str, list[str]]:
    """Return the batches nobody came back for, by id."""
    rows = rows_of(striker.stand.stack, "SELECT id, idempotency_key FROM batches")
    id_of = {row["idempotency_key"]: row["id"] for row in rows}
    return {id_of[key]: custom_ids for key, custom_ids in striker.orphans.items()}
