"""Measures the whole path with the echo engine: `python -m tests.bench.bench_throughput --rows 1000000`.

Servers, scheduler and workers are started as `nightrate run` starts them, a file of chat requests of about 400
bytes is submitted as it does, and the time of each stage is the database's own. One JSON document comes out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import text

from pipeline.app.batches import store_input, submit
from pipeline.app.stack import Stack, collect_seldom
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import DEFAULT_TENANT
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import BatchView, Submission
from tests.bench.bench_intake import MODEL, lines
from tests.bench.machine import machine
from tests.bench.stack import running_stack
from tests.bench.usage import watched_usage

#: What is promised on two cores that nobody else uses.
INTAKE_ROWS_PER_SECOND_MIN = 30_000
ROWS_PER_SECOND_MIN = 15_000
PEAK_MIB_MAX = 700
_LOOK_SECONDS = 0.25
_CUSTOM_ID = b'"custom_id":"request-'
_TABLES = (
    "shards",
    "rosters",
    "packs",
    "pack_slices",
    "attempts",
    "parts",
    "part_slices",
    "worker_intervals",
    "transactions",
    "entries",
)


def write_input(path: Path, rows: int) -> int:
    """Write `rows` requests; return their bytes."""
    wanted = b'"echo"'
    with path.open("wb") as file:
        file.writelines(line.replace(b'"%b"' % MODEL.encode(), wanted, 1) for line in lines(rows))
        return file.tell()


def submission_of(file_id: str) -> Submission:
    """Return what `nightrate run` asks for when no option is given."""
    from pipeline.domain.ids import FileId

    return Submission(
        tenant_id=DEFAULT_TENANT,
        input_file_id=FileId(file_id),
        endpoint=Endpoint.CHAT_COMPLETIONS,
        completion_window="24h",
        tier=Tier.STANDARD,
        budget_micros=None,
        metadata=None,
        idempotency_key=None,
    )


def measure(stack: Stack, source: Path, *, rows: int, cold_start_seconds: float) -> dict[str, object]:
    """Submit, wait for the end, and return the figures."""
    began, began_cpu = time.time(), time.process_time()
    file_id = store_input(stack, source)
    stored = time.time()
    view = submit(stack, submission_of(file_id))
    intake_cpu_seconds = time.process_time() - began_cpu
    while not view.state.is_terminal:
        time.sleep(_LOOK_SECONDS)
        view = stack.batches.get(view.batch_id)
    if view.state is not BatchState.COMPLETED:
        raise SystemExit(f"the batch ended {view.state}: {view.errors[:3]}")
    admitted, done, ended = (
        view.entered_at[state].timestamp()
        for state in (BatchState.IN_PROGRESS, BatchState.FINALIZING, BatchState.COMPLETED)
    )
    return {
        "cold_start_seconds": round(cold_start_seconds, 2),
        "store_seconds": round(stored - began, 2),
        "take_in_seconds": round(admitted - stored, 2),
        "intake_rows_per_second": round(rows / (admitted - began)),
        "intake_rows_per_cpu_second": round(rows / intake_cpu_seconds),
        "run_seconds": round(done - admitted, 2),
        "run_rows_per_second": round(rows / (done - admitted)),
        "finalize_seconds": round(ended - done, 2),
        "end_to_end_seconds": round(ended - began, 2),
        "end_to_end_rows_per_second": round(rows / (ended - began)),
        "end_to_end_rows_per_second_with_cold_start": round(rows / (ended - began + cold_start_seconds)),
        "cost_micros": view.cost_micros,
        "results": check_results(stack, view, rows),
        "postgres_rows": postgres_rows(stack),
    }


def check_results(stack: Stack, view: BatchView, rows: int) -> dict[str, int]:
    """Count the result lines, and see that each request has exactly one and that they are in order."""
    seen = bytearray(rows)
    counts = {}
    for kind, file_id in (("output", view.output_file_id), ("error", view.error_file_id)):
        counts[f"{kind}_rows"] = 0
        before = -1
        if file_id is None:
            continue
        with stack.objects.open(stack.files.get(file_id).object_key) as lines_of_file:
            for line in lines_of_file:
                at = line.index(_CUSTOM_ID) + len(_CUSTOM_ID)
                number = int(line[at : line.index(b'"', at)])
                if number <= before or seen[number]:
                    raise SystemExit(f"request {number} comes twice or out of order in the {kind} file")
                seen[number], before = 1, number
                counts[f"{kind}_rows"] += 1
    if sum(seen) != rows:
        raise SystemExit(f"{rows - sum(seen)} requests have no result")
    return counts


def postgres_rows(stack: Stack) -> dict[str, int]:
    """Return how many rows each table has that grows with the work."""
    return stack.database.run(
        lambda connection: {
            table: connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()  # noqa: S608 -- our own names
            for table in _TABLES
        }
    )


def promises(figures: Mapping[str, object], peaks_mib: Mapping[str, float]) -> dict[str, bool]:
    """Say which of the promised figures were reached."""
    intake, whole = figures["intake_rows_per_second"], figures["end_to_end_rows_per_second"]
    assert isinstance(intake, int)
    assert isinstance(whole, int)
    return {
        "intake": intake >= INTAKE_ROWS_PER_SECOND_MIN,
        "end_to_end": whole >= ROWS_PER_SECOND_MIN,
        "memory": max(peaks_mib.values()) <= PEAK_MIB_MAX,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None, help="where to work; default a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nightrate-bench-", dir=options.folder) as name:
        # The servers' own user has to come through to their data.
        folder = Path(name)
        folder.chmod(0o711)
        size_bytes = write_input(folder / "input.jsonl", options.rows)
        collect_seldom()
        with watched_usage() as usage:
            began = time.monotonic()
            with running_stack(folder / "home", workers=options.workers) as stack:
                cold_start_seconds = time.monotonic() - began
                figures = measure(
                    stack, folder / "input.jsonl", rows=options.rows, cold_start_seconds=cold_start_seconds
                )
        objects_bytes = sum(path.stat().st_size for path in (folder / "home" / "objects").rglob("*") if path.is_file())
    report = {
        "benchmark": "throughput",
        "machine": machine(),
        "rows": options.rows,
        "workers": options.workers,
        "bytes_per_request": round(size_bytes / options.rows, 1),
        **figures,
        "object_bytes": objects_bytes,
        "peak_rss_mib": usage.peaks_by_kind(),
        "cpu_seconds": usage.cpu_by_kind(),
        "promises_kept": promises(figures, usage.peaks_by_kind()),
    }
    json.dump(report, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
