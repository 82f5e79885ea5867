"""Demand and cost by hour, as far back as forecasts look."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from sqlalchemy import TextClause, text

from pipeline.domain.tiers import Tier
from pipeline.ports.access import Scope
from pipeline.ports.demand import Breakdown, Composition, HourlyAmount, Pace, TokenError
from storage.database import Database
from storage.scopes import scope_arguments

_COLUMNS: Final[Mapping[Breakdown | None, str]] = MappingProxyType(
    {
        None: "CAST(NULL AS text)",
        Breakdown.TIER: "batches.tier",
        Breakdown.MODEL: "model",
        Breakdown.TENANT: "batches.tenant_id",
    }
)

_IN_SCOPE: Final = """
    (CAST(:tenant_id AS text) IS NULL OR batches.tenant_id = :tenant_id)
       AND (CAST(:project_id AS text) IS NULL OR batches.project_id = :project_id)"""

#: Asked for: what intake estimated of the distinct rows of batches that were admitted.
_ARRIVALS: Final = """
    SELECT GROUP_COLUMN AS group_name, date_trunc('hour', batches.created_at, 'UTC') AS hour,
           sum(input_tokens_estimated + output_tokens_estimated) AS amount
      FROM batches JOIN shards ON shards.batch_id = batches.id
     WHERE batches.created_at >= :since AND batches.created_at < :until AND batches.in_progress_at IS NOT NULL
       AND IN_SCOPE
     GROUP BY 1, 2
"""

#: Of the sums that analysts read, too: by the hour in which a use began.
_COSTS: Final = """
    SELECT CAST(NULL AS text) AS group_name, hour, sum(effective_micros) AS amount
      FROM cost_sums WHERE DAYS AND currency = :currency
     GROUP BY hour
"""

_COSTS_OF_BATCHES: Final = """
    SELECT GROUP_COLUMN AS group_name, hour, sum(AMOUNT) AS amount
      FROM cost_sums JOIN batches ON batches.id = batch_id
     WHERE DAYS AND currency = :currency AND IN_SCOPE
     GROUP BY 1, 2
"""

#: The day is what the sums are found by.
_DAYS: Final = """
    day >= CAST(CAST(:since AS timestamptz) AT TIME ZONE 'UTC' AS date)
       AND day <= CAST(CAST(:until AS timestamptz) AT TIME ZONE 'UTC' AS date) AND hour >= :since AND hour < :until"""

_COMPOSITIONS: Final = text("""
    SELECT model, batches.tier, sum(shards.rows_total) AS rows, sum(input_tokens_estimated) AS input_tokens,
           sum(output_tokens_estimated) AS output_tokens
      FROM batches JOIN shards ON shards.batch_id = batches.id
     WHERE batches.created_at >= :since AND batches.created_at < :until AND batches.in_progress_at IS NOT NULL
     GROUP BY model, batches.tier ORDER BY model, batches.tier
""")

_PACES: Final = text("""
    SELECT workers.pool, variant, model, sum(tokens) AS tokens, sum(stop_us - start_us) / 1e6 AS work_seconds
      FROM worker_intervals JOIN workers ON workers.id = worker_id
     WHERE kind = 'work' AND tokens > 0 AND variant IS NOT NULL AND worker_intervals.created_at >= :since
     GROUP BY workers.pool, variant, model ORDER BY workers.pool, variant
""")

_TOKEN_ERRORS: Final = text("""
    WITH done AS (SELECT id FROM batches WHERE created_at >= :since AND state = 'completed'),
    estimated AS (
        SELECT batch_id, min(model) AS model, sum(input_tokens_estimated + output_tokens_estimated) AS tokens
          FROM shards JOIN done ON done.id = batch_id GROUP BY batch_id HAVING count(DISTINCT model) = 1),
    actual AS (
        SELECT batch_id, sum(input_tokens + output_tokens) AS tokens FROM parts JOIN done ON done.id = batch_id
         GROUP BY batch_id)
    SELECT model, sum(estimated.tokens) AS estimated, sum(actual.tokens) AS actual
      FROM estimated JOIN actual USING (batch_id) GROUP BY model ORDER BY model
""")


class DemandRepository:
    """Reads what was asked for and what it cost; writes nothing."""

    def __init__(self, database: Database) -> None:
        """Read from `database`."""
        self._database = database

    def arrivals(
        self, since: datetime, until: datetime, *, by: Breakdown | None = None, scope: Scope | None = None
    ) -> list[HourlyAmount]:
        """Return the tokens, input and output as estimated at intake, that were asked for; hours without are left out.

        Both moments are full hours. `scope` None is the whole system.
        """
        return self._hourly(_ARRIVALS, {"since": since, "until": until, **_of(scope)}, by)

    def costs(
        self,
        since: datetime,
        until: datetime,
        *,
        currency: str,
        by: Breakdown | None = None,
        scope: Scope | None = None,
    ) -> list[HourlyAmount]:
        """Return costs in micro-units, by the hour in which they arose.

        The whole without `by` or `scope`, overhead and all; by groups, what the work on batches cost; in a scope, what
        is charged for it.
        """
        amount = "effective_micros" if scope is None else "charged_micros"
        statement = _COSTS if by is None and scope is None else _COSTS_OF_BATCHES.replace("AMOUNT", amount)
        return self._hourly(statement, {"since": since, "until": until, "currency": currency, **_of(scope)}, by)

    def compositions(self, since: datetime, until: datetime) -> list[Composition]:
        """Return what was asked for in that time, by model and tier."""
        rows = self._database.run(
            lambda connection: connection.execute(_COMPOSITIONS, {"since": since, "until": until}).all()
        )
        return [
            Composition(
                model=row.model,
                tier=Tier(row.tier),
                rows=int(row.rows),
                input_tokens=int(row.input_tokens),
                output_tokens=int(row.output_tokens),
            )
            for row in rows
        ]

    def paces(self, since: datetime) -> list[Pace]:
        """Return what pools did with each variant since then."""
        rows = self._database.run(lambda connection: connection.execute(_PACES, {"since": since}).all())
        return [
            Pace(
                pool=row.pool,
                variant=row.variant,
                model=row.model,
                tokens=int(row.tokens),
                work_seconds=float(row.work_seconds),
            )
            for row in rows
        ]

    def token_errors(self, since: datetime) -> list[TokenError]:
        """Return how estimates of batches submitted since then came out, those that are completed, by model."""
        rows = self._database.run(lambda connection: connection.execute(_TOKEN_ERRORS, {"since": since}).all())
        return [
            TokenError(model=row.model, estimated_tokens=int(row.estimated), actual_tokens=int(row.actual))
            for row in rows
        ]

    def _hourly(self, statement: str, arguments: Mapping[str, object], by: Breakdown | None) -> list[HourlyAmount]:
        found = _grouped(statement, by)
        given = {name: value for name, value in arguments.items() if f":{name}" in found.text}
        rows = self._database.run(lambda connection: connection.execute(found, given).all())
        return [HourlyAmount(group=row.group_name, at=row.hour, amount=float(row.amount)) for row in rows]


def _grouped(statement: str, by: Breakdown | None) -> TextClause:
    # One of three column names of ours; nothing that anybody wrote.
    parts = {"GROUP_COLUMN": _COLUMNS[by], "IN_SCOPE": _IN_SCOPE, "DAYS": _DAYS}
    for name, part in parts.items():
        statement = statement.replace(name, part)
    return text(statement)


def _of(scope: Scope | None) -> dict[str, str | None]:
    return {"tenant_id": None, "project_id": None} if scope is None else scope_arguments(scope)
