"""DuckDB over what was exported, and over raw entries: a second computation of what Postgres says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from sqlalchemy import text

from storage.database import Database

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "analytics" / "sql"
_RAW = {
    "entries": """SELECT transaction_id, line, account, batch_id, list_micros, contracted_micros, effective_micros, billed_micros,
                         on_demand_micros, charged_micros, row_count, input_tokens, output_tokens FROM entries""",
    "transactions": """SELECT id, key, kind, category, period_start, worker_id, start_us, pack_id, reverses_id, currency
                         FROM transactions""",
    "batches": "SELECT id, tenant_id, project_id, tier, labels ->> 'team' AS team FROM batches",
    "packs": "SELECT id, model, tier FROM packs",
    "worker_intervals": "SELECT worker_id, start_us, stop_us FROM worker_intervals",
}


def connect() -> duckdb.DuckDBPyConnection:
    """Return a database of its own, in memory."""
    connection = duckdb.connect(config={"threads": 2})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def over_exports(folder: Path, views: Iterable[str]) -> duckdb.DuckDBPyConnection:
    """Return the views as exported below `folder`, a Hive-partitioned tree for each, in a schema `cost`."""
    connection = connect()
    connection.execute("CREATE SCHEMA cost")
    for view in views:
        files = f"{folder}/{view}/*/*.parquet"
        connection.execute(
            f"CREATE VIEW cost.{view} AS SELECT * FROM read_parquet('{files}', hive_partitioning = true, hive_types = {{'day': DATE}})"  # noqa: S608
        )
    return connection


def over_raw(database: Database) -> duckdb.DuckDBPyConnection:
    """Return the journal's own tables, as they are, and nothing of what we sum up."""
    connection = connect()
    with database.engine.connect() as source:
        for name, statement in _RAW.items():
            found = source.execute(text(statement))
            names = list(found.keys())
            rows = found.all()
            columns = list(zip(*rows, strict=True)) or [()] * len(names)
            loaded = pa.table({column: list(values) for column, values in zip(names, columns, strict=True)})
            connection.register(f"{name}_loaded", loaded)
            connection.execute(f"CREATE TABLE {name} AS SELECT * FROM {name}_loaded")  # noqa: S608
    return connection


#: Keys of a report as DuckDB reads them off raw tables, `b` being the batch of an entry, `p` its pack, `t` its transaction.
RAW_KEYS: Mapping[str, str] = {
    "tenant": "b.tenant_id",
    "project": "b.project_id",
    "label": "CASE WHEN b.id IS NOT NULL THEN coalesce(b.team, '') END",
    "tier": "CASE WHEN b.id IS NOT NULL THEN coalesce(p.tier, b.tier) END",
    "day": "CAST(CAST(t.period_start AT TIME ZONE 'UTC' AS DATE) AS VARCHAR)",
    "batch": "b.id",
}


def raw_report(connection: duckdb.DuckDBPyConnection, by: str) -> dict[Any, tuple[Any, ...]]:
    """Return (list, effective, billed, charged, rows, tokens, waste) by key, from entries alone."""
    found = connection.execute(f"""
        SELECT {RAW_KEYS[by]}, sum(list_micros), sum(effective_micros), sum(billed_micros), sum(charged_micros),
               sum(row_count), sum(input_tokens + output_tokens),
               sum(CASE WHEN account LIKE 'overhead:%' THEN effective_micros ELSE 0 END)
          FROM entries e JOIN transactions t ON t.id = e.transaction_id
          LEFT JOIN batches b ON b.id = e.batch_id LEFT JOIN packs p ON p.id = t.pack_id
         WHERE account LIKE 'batch:%' OR account LIKE 'overhead:%' GROUP BY 1""")  # noqa: S608
    return {row[0]: tuple(int(value) for value in row[1:]) for row in found.fetchall()}
