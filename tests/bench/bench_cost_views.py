"""How fast the example queries of examples/analytics answer on a simulated month of a million entries.

Prints a report as JSON: seconds of each query, the median of five; what summing up and exporting took; whether the FOCUS
export passes its schema, and whether reports equal DuckDB's sums of raw entries.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import jsonschema_rs
import orjson
import psycopg

from pipeline.app.cost_exports import focus_export
from pipeline.ports.cost_reports import Period, ReportKey
from pipeline.report.focus import columns
from pipeline.report.focus.columns import FocusVersion
from pipeline.report.tables import TableFormat
from storage.cost_exports import CostExports
from storage.cost_reports import CostReports
from storage.cost_sums import CostSums
from storage.database import Database
from storage.migrations import upgrade
from tests.bench.machine import machine
from tests.bench.seeded_month import fill
from tests.bench.simulated_month import Month, simulate
from tests.services import connect, running_postgres, with_database
from tests.storage.duck import EXAMPLES, RAW_KEYS, over_raw, raw_report

GOAL_SECONDS = 0.3
ROUNDS = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=30, help="fewer make fewer entries")
    month = Month(days=parser.parse_args().days)
    with tempfile.TemporaryDirectory() as folder, running_postgres(Path(folder) / "home") as server:
        with connect(server) as connection:
            connection.execute("CREATE DATABASE month")
        url = with_database(server, "month")
        upgrade(url)
        started, used = time.monotonic(), time.process_time()
        simulated = simulate(month)
        simulation = {
            "seconds": since(started),
            "processor_seconds": round(time.process_time() - used, 1),
            "cycles": simulated.record.cycles,
            "packs": len(simulated.record.packs),
            "packs_lost": sum(pack.is_lost for pack in simulated.record.packs),
            "machines": len(simulated.lives),
            "utilisation": round(simulated.record.utilisation, 3),
            "batches_expired": sum(batch.is_expired for batch in simulated.record.batches),
        }
        tell("the month is simulated")
        started = time.monotonic()
        fill(url, month, simulated, tell=tell)
        report = {
            "machine": machine(),
            "simulation": simulation,
            "fill_seconds": since(started),
            **measured(url, month),
        }
    print(json.dumps(report, indent=2))
    return 0


def measured(url: str, month: Month) -> dict[str, object]:
    database = Database(url)
    period = Period(first=month.first, until=month.first + timedelta(days=month.days))
    with connect(url) as connection:
        untouched = timings(connection, month, only="08_tier_mix", rounds=1)
        started = time.monotonic()
        while CostSums(database).sum_up():
            pass
        summed = since(started)
        tell("summed up")
        connection.execute("VACUUM (ANALYZE)")
        queries = timings(connection, month)
        counts = {
            name: connection.execute(f"SELECT count(*) FROM nightrate.{name}").fetchall()[0][0]  # type: ignore[arg-type] # noqa: S608
            for name in ("transactions", "entries", "batches", "cost_hours", "cost_days")
        }
        requests = connection.execute("SELECT sum(row_count) FROM nightrate.entries").fetchall()[0][0]
    tell("queries are timed")
    report: dict[str, object] = {
        "rows": counts,
        "requests": int(requests),
        "seed": month.seed,
        "sum_up_seconds": summed,
        "goal_seconds": GOAL_SECONDS,
        "queries_seconds": queries,
        "slowest_seconds": max(queries.values()),
        "goal_is_met": max(queries.values()) < GOAL_SECONDS,
        "tier_mix_with_nothing_summed_up_seconds": untouched["08_tier_mix"],
    }
    report["reports_seconds"], report["reports_equal_duckdb"] = reports_compared(database, period)
    tell("reports are compared")
    report["focus"] = {str(version): focus(database, period, version) for version in FocusVersion}
    report["memory_peak_mebibytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    report["sums_that_differ_from_the_journal"] = differences(url)
    database.close()
    return report


def timings(connection: psycopg.Connection, month: Month, *, only: str = "*", rounds: int = ROUNDS) -> dict[str, float]:
    """Return the median seconds of each example, as of the month's last day."""
    today = month.first + timedelta(days=month.days - 1)
    found = {}
    for path in sorted(EXAMPLES.glob(f"{only}.sql")):
        statement = path.read_text().replace("current_date", f"DATE '{today}'")
        if path.stem.startswith("01_"):
            # Last month, as of the month after.
            statement = path.read_text().replace("current_date", f"DATE '{today + timedelta(days=1)}'")
        taken = []
        for _ in range(rounds):
            started = time.monotonic()
            connection.execute(statement).fetchall()  # type: ignore[arg-type]
            taken.append(time.monotonic() - started)
        found[path.stem] = round(statistics.median(taken), 4)
    return found


def reports_compared(database: Database, period: Period) -> tuple[Mapping[str, float], bool]:
    """Return how long reports take, and whether each equals DuckDB's sums of raw entries."""
    reports, taken, equal = CostReports(database), {}, True
    with over_raw(database) as raw:
        for by in RAW_KEYS:
            started = time.monotonic()
            lines = reports.report(ReportKey(by), period, label="team" if by == "label" else None)
            taken[by] = since(started, decimals=4)
            told = {
                line.key: (
                    line.list_micros,
                    line.effective_micros,
                    line.billed_micros,
                    line.charged_micros,
                    line.row_count,
                    line.tokens,
                    line.waste_micros,
                )
                for line in lines
            }
            equal = equal and told == raw_report(raw, by)
    return taken, equal


def focus(database: Database, period: Period, version: FocusVersion) -> dict[str, object]:
    """Return what an export of the month takes, and how many of its rows fail their schema."""
    schema = orjson.loads((Path(columns.__file__).parent / f"cost_and_usage_{version}.schema.json").read_bytes())
    validator = jsonschema_rs.validator_for(schema)
    started, rows, wrong, size = time.monotonic(), 0, 0, 0
    with CostExports(database).moment() as moment:
        for part in focus_export(moment, version, period, TableFormat.JSON):
            size += len(part)
            for line in part.splitlines():
                rows += 1
                wrong += not validator.is_valid(orjson.loads(line))
    tell(f"FOCUS {version} is exported")
    return {"seconds": since(started), "rows": rows, "bytes_as_json": size, "rows_that_fail_the_schema": wrong}


def differences(url: str) -> int:
    # Reads the journal twice, past the limit that holds for statements of the product.
    database = Database(url)
    with connect(url) as connection:
        connection.execute("SET search_path TO nightrate")
        from storage.cost_sums import _DIFFERENCES

        found = connection.execute(_DIFFERENCES.text).fetchall()[0][0]  # type: ignore[arg-type]
    database.close()
    return int(found)


def since(started: float, *, decimals: int = 1) -> float:
    return round(time.monotonic() - started, decimals)


def tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
