"""Reports: what was had and what it cost, summed up by whatever one asks for."""

from __future__ import annotations

from datetime import date
from typing import Final

from sqlalchemy import Connection, TextClause, text

from pipeline.ports.access import Scope
from pipeline.ports.cost_reports import (
    CostBucket,
    CostGroup,
    Period,
    ReportKey,
    ReportLine,
    TenantGroup,
    UtilisationLine,
)
from storage.cost_tables import MEASURES
from storage.database import Database

_SUMS: Final = ", ".join(f"CAST(sum({name}) AS bigint) AS {name}" for name in MEASURES)
_TIER: Final = "CASE WHEN sums.batch_id IS NOT NULL THEN coalesce(sums.tier, batches.tier) END"
_KEYS: Final = {
    ReportKey.TENANT: "batches.tenant_id",
    ReportKey.PROJECT: "batches.project_id",
    ReportKey.LABEL: "CASE WHEN sums.batch_id IS NOT NULL THEN coalesce(batches.labels ->> CAST(:label AS text), '') END",
    ReportKey.MODEL: "sums.model",
    ReportKey.TIER: _TIER,
    ReportKey.DAY: "CAST(sums.day AS text)",
    ReportKey.BATCH: "sums.batch_id",
    ReportKey.POOL: "sums.pool",
}


def _report(key: str) -> TextClause:
    return text(f"""
        SELECT {key} AS key, sums.currency, {_SUMS},
               CAST(coalesce(sum(effective_micros) FILTER (WHERE kind NOT IN ('work', 'shared', 'reused', 'cache_credit')), 0) AS bigint)
                   AS waste_micros,
               CAST(coalesce(-sum(effective_micros) FILTER (WHERE kind = 'cache_credit'), 0) AS bigint)
                   AS cache_credit_micros
          FROM cost_day_sums AS sums LEFT JOIN batches ON batches.id = sums.batch_id
         WHERE sums.day >= :first AND sums.day < :until
           AND (CAST(:tenant_id AS text) IS NULL OR batches.tenant_id = :tenant_id)
         GROUP BY 1, 2 ORDER BY 2, sum(effective_micros) DESC, 1
    """)  # noqa: S608 -- expressions of this file


_REPORTS: Final = {by: _report(key) for by, key in _KEYS.items()}
_UTILISATION: Final = text("""
    SELECT kind, CAST(sum(worker_us) AS bigint) AS worker_us, CAST(sum(effective_micros) AS bigint) AS effective_micros,
           currency
      FROM cost_day_sums WHERE day >= :first AND day < :until AND category = 'compute'
       AND kind NOT IN ('reused', 'cache_credit')
     GROUP BY kind, currency ORDER BY 3 DESC, kind
""")
_CHARGE_KEYS: Final = {
    TenantGroup.PROJECT: "batches.project_id",
    TenantGroup.MODEL: "sums.model",
    TenantGroup.TIER: _TIER,
    TenantGroup.BATCH: "sums.batch_id",
}


class CostReports:
    """Reads sums; writes nothing."""

    def __init__(self, database: Database) -> None:
        """Read from `database`."""
        self._database = database

    def report(
        self, by: ReportKey, period: Period, *, label: str | None = None, tenant_id: str | None = None
    ) -> list[ReportLine]:
        """Return what each cost, the dearest first within a currency; with a tenant, only what is the tenant's.

        `label` is the key that `ReportKey.LABEL` sums up by.
        """
        arguments: dict[str, object] = {"first": period.first, "until": period.until, "tenant_id": tenant_id}
        if by is ReportKey.LABEL:
            arguments["label"] = label
        rows = self._database.run(
            lambda connection: connection.execute(_REPORTS[by], arguments).mappings().all(), is_look=True
        )
        return [ReportLine(**row) for row in rows]

    def utilisation(self, period: Period) -> list[UtilisationLine]:
        """Return what the time of all workers went to, the dearest first."""
        rows = self._database.run(
            lambda connection: (
                connection.execute(_UTILISATION, {"first": period.first, "until": period.until}).mappings().all()
            ),
            is_look=True,
        )
        return [UtilisationLine(**row) for row in rows]

    def charges(
        self, scope: Scope, days: Period, groups: tuple[TenantGroup, ...], *, project_ids: tuple[str, ...] = ()
    ) -> list[CostBucket]:
        """Return what the scope was charged, by day (those without charges too) and by the groups."""
        keys = ", ".join(_CHARGE_KEYS[group] for group in groups)
        names = ", ".join(f"{_CHARGE_KEYS[group]} AS {group}" for group in groups)
        statement = text(f"""
            SELECT sums.day, sums.currency, {names + "," if groups else ""}
                   CAST(sum(charged_micros) AS bigint) AS charged_micros, CAST(sum(row_count) AS bigint) AS row_count,
                   CAST(sum(input_tokens) AS bigint) AS input_tokens, CAST(sum(output_tokens) AS bigint) AS output_tokens
              FROM cost_day_sums AS sums JOIN batches ON batches.id = sums.batch_id
             WHERE sums.day >= :first AND sums.day < :until AND batches.tenant_id = :tenant_id
               AND (CAST(:project_id AS text) IS NULL OR batches.project_id = :project_id)
               AND (cardinality(CAST(:project_ids AS text[])) = 0 OR batches.project_id = ANY(CAST(:project_ids AS text[])))
             GROUP BY sums.day, sums.currency{", " + keys if groups else ""}
            HAVING sum(charged_micros) <> 0 OR sum(row_count) <> 0
             ORDER BY sums.day, charged_micros DESC{", " + keys if groups else ""}
        """)  # noqa: S608 -- expressions of this file

        def work(connection: Connection) -> list[tuple[date, CostGroup]]:
            found = connection.execute(
                statement,
                {
                    "first": days.first,
                    "until": days.until,
                    "tenant_id": scope.tenant_id,
                    "project_id": scope.project_id,
                    "project_ids": list(project_ids),
                },
            ).mappings()
            return [
                (
                    row["day"],
                    CostGroup(
                        keys={group: row[group] for group in groups},
                        charged_micros=row["charged_micros"],
                        requests=row["row_count"],
                        input_tokens=row["input_tokens"],
                        output_tokens=row["output_tokens"],
                        currency=row["currency"],
                    ),
                )
                for row in found
            ]

        by_day: dict[date, list[CostGroup]] = {day: [] for day in days.days()}
        for day, group in self._database.run(work, is_look=True):
            by_day[day].append(group)
        return [CostBucket(day=day, groups=tuple(groups_)) for day, groups_ in by_day.items()]
