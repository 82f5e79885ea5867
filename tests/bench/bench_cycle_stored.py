"""Measure whole scheduling cycles on a real Postgres and print JSON: `python -m tests.bench.bench_cycle_stored`.

A cycle is what the leading scheduler does each time: advance batches that are done, read a snapshot, decide, store the plan.
The first cycle of a term reads everything; those after it only what has changed since, and are measured with so many
packs ended, and so many batches changed, in between.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from sqlalchemy import text

from pipeline.domain.ids import new_pack_id
from scheduler.cycle import decide
from scheduler.policy import Policy
from scheduler.prediction.predictions import Predictions
from storage.cycles import CycleRepository, Leadership
from storage.database import Database
from tests.bench.machine import machine
from tests.services import fresh_database, make_template, running_postgres

SEED = (
    "INSERT INTO tenants (id, name) SELECT 'tnt_' || n, 'tnt_' || n FROM generate_series(0, :tenants - 1) AS n",
    """
    INSERT INTO projects (id, tenant_id, name, is_default)
    SELECT 'proj_' || n, 'tnt_' || n, 'default', true FROM generate_series(0, :tenants - 1) AS n
    """,
    """
    INSERT INTO files (id, tenant_id, project_id, purpose, filename, size_bytes, sha256, object_key)
    SELECT 'file_' || n, 'tnt_' || n, 'proj_' || n, 'batch', 'x', 1, repeat('0', 64), 'file_' || n
      FROM generate_series(0, :tenants - 1) AS n
    """,
    """
    INSERT INTO batches (id, tenant_id, project_id, state, reason, endpoint, completion_window, tier, input_file_id, rows_total,
                         created_at, deadline_at, in_progress_at, promise)
    SELECT 'batch_' || lpad(n::text, 9, '0'), 'tnt_' || n % :tenants, 'proj_' || n % :tenants, 'in_progress', 'queued', '/v1/chat/completions',
           '24h', (ARRAY['urgent', 'standard', 'bulk', 'nightly'])[1 + n % 4], 'file_' || n % :tenants, 4096,
           now() - n * interval '1 ms', now() + interval '1 day' + n * interval '1 ms', now(),
           (ARRAY['made', 'declined', 'declined'])[1 + n % 3]
      FROM generate_series(1, :batches) AS n
    """,
    """
    INSERT INTO shards (batch_id, shard_no, model, object_key, sha256, size_bytes, rows_total, rows_packed,
                        rows_succeeded, input_tokens_estimated, output_tokens_estimated)
    SELECT id, 0, 'echo', id, '', 1, 4096, 0, 0, 819200, 409600 FROM batches ORDER BY id
    """,
    """
    INSERT INTO workers (id, pool, market, host, pid, state, variants, rate_micros_per_hour, list_rate_micros_per_hour,
                         contracted_rate_micros_per_hour, billed_rate_micros_per_hour, on_demand_rate_micros_per_hour,
                         currency)
    SELECT 'wrk_' || n, 'local', 'spot', 'h', 1, 'ready', '{"echo": ""}', 0, 0, 0, 0, 0, 'USD' FROM generate_series(1, :workers) AS n
    """,
    "ANALYZE",
)
#: Packs that workers are done with; what they committed does not matter to what a cycle reads.
END_PACKS = text("""
    UPDATE packs SET state = 'discarded', ended_at = clock_timestamp()
     WHERE id IN (SELECT id FROM packs WHERE state = 'ready' ORDER BY ordinal, id LIMIT :packs)
""")
CHANGE_BATCHES = text("""
    UPDATE batches SET budget_micros = 1000000000
     WHERE id IN (SELECT id FROM batches WHERE state = 'in_progress' ORDER BY random() LIMIT :batches)
""")


def measure(
    database_url: str, *, batches: int, tenants: int, workers: int, ended: int, cycles: int
) -> dict[str, object]:
    """Return the milliseconds of each part of a cycle, the first one's and the median of those after it."""
    database = Database(database_url)
    for statement in SEED:
        with database.transaction() as connection:
            connection.execute(text(statement), {"batches": batches, "tenants": tenants, "workers": workers})
    leadership = Leadership.stand(database, "bench")
    assert leadership is not None
    repository = CycleRepository(database, silence=timedelta(minutes=1))
    known = Predictions()

    def cycle() -> dict[str, float]:
        spent: dict[str, float] = {}

        def timed(name: str, work: Callable[[], object]) -> object:
            started = time.perf_counter()
            found = work()
            spent[name] = 1000 * (time.perf_counter() - started)
            return found

        timed("advance", lambda: repository.advance_batches(leadership.epoch))
        seen = timed("snapshot", repository.snapshot)
        plan = timed("decide", lambda: decide(seen, Policy(), new_pack_id, known))  # type: ignore[arg-type]
        timed("dispatch", lambda: repository.dispatch(leadership.epoch, plan))  # type: ignore[arg-type]
        known.stored()
        return spent | {"whole": sum(spent.values()), "packs": float(len(plan.packs))}  # type: ignore[attr-defined]

    first, later = cycle(), []
    for _ in range(cycles):
        with database.transaction() as connection:
            connection.execute(END_PACKS, {"packs": ended})
            connection.execute(CHANGE_BATCHES, {"batches": ended})
        later.append(cycle())
    database.close()
    return {
        "batches": batches,
        "tenants": tenants,
        "workers": workers,
        "packs_ended_between": ended,
        "batches_changed_between": ended,
        "first": rounded(first),
        "median_of_later": rounded({name: statistics.median(each[name] for each in later) for name in first}),
    }


def rounded(spent: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in spent.items()}


def main() -> int:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=9)
    options = parser.parse_args()
    sizes = ((1_000, 20, 8, 4), (10_000, 1_000, 100, 20), (100_000, 1_000, 1_000, 100))
    cases = []
    with tempfile.TemporaryDirectory() as folder, running_postgres(Path(folder)) as server:
        make_template(server)
        for batches, tenants, workers, ended in sizes:
            with fresh_database(server) as url:
                case = measure(
                    url, batches=batches, tenants=tenants, workers=workers, ended=ended, cycles=options.cycles
                )
            cases.append(case)
    sys.stdout.write(json.dumps({"bench": "cycle-stored", "cases": cases, "machine": machine()}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
