"""What leaves by export: the views by day, and the journal by hour, resource and account; streamed, never held."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, text

from pipeline.ports.cost_reports import Period
from storage.database import Database

#: The views that are exported, each with a column `day`.
VIEWS: Final = (
    "charges",
    "hourly",
    "daily",
    "batches",
    "unit_costs",
    "utilisation",
    "spot",
    "labels",
    "budget_burn",
)
_ROWS_AT_ONCE: Final = 2_000
#: An export reads a day or a month of the journal, and waits for no client.
_EXPORT_MS: Final = 600_000

_COLUMNS: Final = text("""
    SELECT attname AS name, format_type(atttypid, atttypmod) AS type, col_description(attrelid, attnum) AS comment
      FROM pg_attribute WHERE attrelid = CAST(:view AS regclass) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
""")
_COMMENT: Final = text("SELECT obj_description(CAST(:view AS regclass), 'pg_class')")
_DUE: Final = text("""
    SELECT day, version FROM cost_day_versions
     WHERE day < :before AND exported_version IS DISTINCT FROM version
       AND (exported_at IS NULL OR exported_at <= coalesce(CAST(:again_before AS timestamptz), exported_at))
     ORDER BY day LIMIT :limit
""")
_VERSION: Final = text("SELECT version FROM cost_day_versions WHERE day = :day")
_EXPORTED: Final = text("""
    UPDATE cost_day_versions SET exported_version = :version, exported_at = clock_timestamp()
     WHERE day = :day AND version >= :version AND coalesce(exported_version, 0) < :version
""")
#: Held by a connection, not by a transaction: what is done meanwhile is no transaction's.
_ALONE: Final = text("SELECT pg_try_advisory_lock(hashtextextended('nightrate.cost_days', 0))")
_TOGETHER: Final = text("SELECT pg_advisory_unlock(hashtextextended('nightrate.cost_days', 0))")
_FOCUS: Final = text("""
    -- An hour's lines of one resource and one account are one row. What a price was worked out from sums up with it.
    SELECT lines.hour, lines.hour + interval '1 hour' AS hour_stop, lines.currency, lines.category, lines.kind,
           lines.transaction_kind, lines.method, lines.pool, lines.provider, lines.market, lines.instance_type,
           lines.region, lines.zone, lines.worker_id, lines.model, lines.variant,
           batches.tenant_id, tenants.name AS tenant_name, batches.project_id,
           CASE WHEN lines.batch_id IS NOT NULL THEN coalesce(lines.tier, batches.tier) END AS tier,
           CAST(sum(list_micros) AS bigint) AS list_micros, CAST(sum(contracted_micros) AS bigint) AS contracted_micros,
           CAST(sum(effective_micros) AS bigint) AS effective_micros, CAST(sum(billed_micros) AS bigint) AS billed_micros,
           CAST(sum(on_demand_micros) AS bigint) AS on_demand_micros, CAST(sum(charged_micros) AS bigint) AS charged_micros,
           CAST(sum(row_count) AS bigint) AS row_count, CAST(sum(input_tokens) AS bigint) AS input_tokens,
           CAST(sum(output_tokens) AS bigint) AS output_tokens, CAST(sum(worker_us) AS bigint) AS worker_us
      FROM cost_lines AS lines
      LEFT JOIN batches ON batches.id = lines.batch_id LEFT JOIN tenants ON tenants.id = batches.tenant_id
     WHERE lines.period_start >= :first AND lines.period_start < :until
       -- What was reused is no charge, nor is its credit.
       AND lines.kind NOT IN ('reused', 'cache_credit')
     GROUP BY lines.hour, lines.currency, lines.category, lines.kind, lines.transaction_kind, lines.method, lines.pool,
              lines.provider, lines.market, lines.instance_type, lines.region, lines.zone, lines.worker_id, lines.model,
              lines.variant, batches.tenant_id, tenants.name, batches.project_id, 20
     ORDER BY lines.hour, lines.worker_id, batches.tenant_id, batches.project_id, lines.kind, lines.transaction_kind,
              lines.model, lines.variant, lines.pool, lines.method, lines.category, lines.currency, 20
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a view."""

    name: str
    #: As Postgres writes it.
    type: str
    comment: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DayVersion:
    """A day of use, as its sums stand."""

    day: date
    version: int


class Moment:
    """The journal and its views as they are at one moment."""

    def __init__(self, connection: Connection) -> None:
        """Read by a connection whose transaction sees one moment."""
        self._connection = connection

    def columns(self, view: str) -> tuple[Column, ...]:
        """Return the columns of a view of the schema `cost`."""
        assert view in VIEWS, view
        found = self._connection.execute(_COLUMNS, {"view": f"cost.{view}"})
        return tuple(Column(name=row.name, type=row.type, comment=row.comment) for row in found)

    def comment(self, view: str) -> str:
        """Return what a view is for."""
        assert view in VIEWS, view
        return str(self._connection.execute(_COMMENT, {"view": f"cost.{view}"}).scalar_one())

    def version(self, day: date) -> int | None:
        """Return how often the day's sums have changed; None: nothing was had."""
        version: int | None = self._connection.execute(_VERSION, {"day": day}).scalar_one_or_none()
        return version

    def rows(self, view: str, period: Period) -> Iterator[Sequence[tuple[Any, ...]]]:
        """Yield a view's rows of those days, day by day."""
        assert view in VIEWS, view
        for day in period.days():
            # Day by day: what a view sorts or sums up is no more than that. The journal has its index by instants.
            start = datetime.fromisoformat(f"{day}T00:00:00+00:00")
            within = " AND period_start >= :first AND period_start < :until" if view == "charges" else ""
            statement = text(f"SELECT * FROM cost.{view} WHERE day = :day{within}")  # noqa: S608 -- one of ours
            arguments = {"day": day, "first": start, "until": start + timedelta(days=1)}
            found = self._connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(statement, arguments)
            for part in found.partitions():
                yield [tuple(row) for row in part]

    def hours(self, period: Period) -> Iterator[Mapping[str, Any]]:
        """Yield what was had in each hour of those days, by resource and account."""
        for day in period.days():
            start = datetime.fromisoformat(f"{day}T00:00:00+00:00")
            arguments = {"first": start, "until": start + timedelta(days=1)}
            found = self._connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(_FOCUS, arguments)
            for row in found.mappings():
                yield dict(row)


class CostExports:
    """Reads what is exported, and keeps which days were."""

    def __init__(self, database: Database) -> None:
        """Read from `database`."""
        self._database = database

    @contextmanager
    def moment(self) -> Iterator[Moment]:
        """Lend everything as it is now, until the block ends."""
        with self._database.engine.connect() as connection, connection.begin():
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            connection.execute(text(f"SET LOCAL statement_timeout = {_EXPORT_MS}"))
            yield Moment(connection)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Keep others from exporting days until the block ends; lends False where another keeps us from it."""
        with self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            is_alone: bool = connection.execute(_ALONE).scalar_one()
            try:
                yield is_alone
            finally:
                if is_alone:
                    connection.execute(_TOGETHER)

    def due(self, *, before: date, again_before: datetime | None, limit: int) -> list[DayVersion]:
        """Return days before `before` that are not exported as they stand, nor since `again_before` (None: however lately), the oldest first."""
        arguments = {"before": before, "again_before": again_before, "limit": limit}
        rows = self._database.run(lambda connection: connection.execute(_DUE, arguments).all())
        return [DayVersion(day=row.day, version=row.version) for row in rows]

    def exported(self, day: DayVersion) -> bool:
        """Note that a day's files are there; False where a newer version's are."""
        changed = self._database.run(
            lambda connection: connection.execute(_EXPORTED, {"day": day.day, "version": day.version}).rowcount
        )
        return changed == 1
