"""Statements: a tenant's month, gathered from the sums."""

from __future__ import annotations

from datetime import date

from pipeline.app.stack import Stack
from pipeline.domain.errors import NotFoundError
from pipeline.ports.cost_reports import SUMMED, Period, ReportKey, ReportLine
from pipeline.report.statement.contents import LISTED_MAX, Statement, bars, days
from storage.cost_reports import CostReports
from storage.tenants import TenantRepository


def statements_of(stack: Stack, tenant_id: str, period: Period, *, made_on: date) -> list[Statement]:
    """Return a statement for each currency that the tenant was charged in; one of nothing where it was charged nothing.

    Raises `NotFoundError` for an unknown tenant.
    """
    names = {str(view.tenant_id): view.name for view in TenantRepository(stack.database).tenants()}
    if tenant_id not in names:
        raise NotFoundError(f"there is no tenant {tenant_id}", hint="`nightrate tenants list` shows them")
    reports = CostReports(stack.database)
    found = {
        key: reports.report(key, period, tenant_id=tenant_id)
        for key in (
            ReportKey.TENANT,
            ReportKey.DAY,
            ReportKey.PROJECT,
            ReportKey.MODEL,
            ReportKey.TIER,
            ReportKey.BATCH,
        )
    }
    totals = found[ReportKey.TENANT] or [_nothing(tenant_id)]
    return [_statement(total, found, names, period, made_on) for total in totals]


def _statement(
    total: ReportLine,
    found: dict[ReportKey, list[ReportLine]],
    names: dict[str, str],
    period: Period,
    made_on: date,
) -> Statement:
    tenant_id = total.key or ""
    own = {key: [line for line in lines if line.currency == total.currency] for key, lines in found.items()}
    batches = bars(own[ReportKey.BATCH])
    return Statement(
        tenant_id=tenant_id,
        tenant_name=names[tenant_id],
        period=period,
        currency=total.currency,
        total=total,
        by_day=days(own[ReportKey.DAY], period, total.currency),
        by_project=bars(own[ReportKey.PROJECT]),
        by_model=bars(own[ReportKey.MODEL], nobodys="no model"),
        by_tier=bars(own[ReportKey.TIER]),
        batches=batches[:LISTED_MAX],
        batches_more=len(batches[LISTED_MAX:]),
        batches_more_micros=sum(bar.micros for bar in batches[LISTED_MAX:]),
        made_on=made_on,
    )


def _nothing(tenant_id: str) -> ReportLine:
    return ReportLine(key=tenant_id, currency="USD", **dict.fromkeys(SUMMED, 0))
