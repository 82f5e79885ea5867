"""Budgets of tenants and projects in Postgres: what they are, and where they stand.

What is spent is counted by a trigger in the transaction that posts a charge (0021_budgets.sql), so nobody has to look for it to be
true.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from pipeline.domain.costs.budgets import (
    ALWAYS,
    BudgetMark,
    BudgetNotice,
    BudgetPeriod,
    BudgetScope,
    BudgetStanding,
    BudgetTerms,
)
from pipeline.domain.errors import ConflictError, NotFoundError
from pipeline.domain.ids import BudgetId, ProjectId, TenantId
from pipeline.domain.tiers import Tier
from pipeline.ports.access import Scope
from pipeline.ports.budgets import BudgetDraft
from storage.database import Database
from storage.reservations import Reserved, read_reserved

STANDINGS: Final = text("""
    SELECT budgets.*, now.period_start, spent.micros AS spent_micros, added.micros AS added_micros, told.marks
      FROM budgets
     CROSS JOIN LATERAL (
        SELECT CASE period WHEN 'month' THEN CAST(:month AS date) ELSE DATE '1970-01-01' END AS period_start,
               CASE period WHEN 'month' THEN CAST(:month AS date) ELSE DATE 'infinity' END AS last_month OFFSET 0) AS now
     CROSS JOIN LATERAL (
        SELECT coalesce(sum(charged_micros), 0) AS micros FROM charges_by_month AS charges
         WHERE charges.tenant_id = budgets.tenant_id
           AND (budgets.project_id IS NULL OR charges.project_id = budgets.project_id)
           -- Bounds, which the index knows: months of years ago are not read again in each cycle.
           AND charges.month BETWEEN now.period_start AND now.last_month) AS spent
     CROSS JOIN LATERAL (
        SELECT coalesce(sum(amount_micros), 0) AS micros FROM budget_top_ups AS top_ups
         WHERE top_ups.budget_id = budgets.id AND top_ups.period_start = now.period_start) AS added
     CROSS JOIN LATERAL (
        SELECT coalesce(jsonb_agg(jsonb_build_array(mark, share_ppm)), '[]') AS marks FROM budget_notices AS notices
         WHERE notices.budget_id = budgets.id AND notices.period_start = now.period_start
           AND notices.limit_micros = budgets.amount_micros + added.micros) AS told
     WHERE (CAST(:tenant_id AS text) IS NULL OR tenant_id = :tenant_id)
       AND (CAST(:project_id AS text) IS NULL OR project_id = :project_id)
       AND (CAST(:budget_id AS text) IS NULL OR id = :budget_id)
     ORDER BY created_at, id
""")
_MONTH: Final = text("SELECT CAST(date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC') AS date)")
_SET: Final = text("""
    INSERT INTO budgets (id, tenant_id, project_id, period, amount_micros, alert_shares_ppm, core_tiers, core_share_ppm)
    VALUES (:budget_id, :tenant_id, :project_id, :period, :amount_micros, :alert_shares_ppm, :core_tiers, :core_share_ppm)
""")
_CHANGE: Final = text("""
    UPDATE budgets SET amount_micros = :amount_micros, alert_shares_ppm = :alert_shares_ppm, core_tiers = :core_tiers,
           core_share_ppm = :core_share_ppm
     WHERE id = :id
""")
_SAME: Final = text("""
    SELECT id FROM budgets WHERE tenant_id = :tenant_id AND period = :period AND project_id IS NOT DISTINCT FROM :project_id
""")
#: Budgets of a tenant are made one after the other.
_TAKE_TURNS: Final = text("SELECT id FROM tenants WHERE id = :tenant_id FOR NO KEY UPDATE")
_PROJECT: Final = text("SELECT FROM projects WHERE id = :project_id AND tenant_id = :tenant_id AND archived_at IS NULL")
_REMOVE: Final = text("DELETE FROM budgets WHERE id = :id")
_TOP_UP: Final = text("""
    INSERT INTO budget_top_ups (id, budget_id, period_start, amount_micros)
    VALUES (:top_up_id, :budget_id, :period_start, :amount_micros) ON CONFLICT (id) DO NOTHING
""")
_TELL: Final = text("""
    INSERT INTO budget_notices (budget_id, period_start, limit_micros, mark, share_ppm, spent_micros)
    -- One that was removed meanwhile is nobody's.
    SELECT id, :period_start, :limit_micros, :mark, :share_ppm, :spent_micros
      FROM budgets WHERE id = :budget_id FOR KEY SHARE
    ON CONFLICT DO NOTHING
""")


class BudgetRepository:
    """What tenants and their projects may be charged. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        """Keep them in `database`."""
        self._database = database

    def set(self, draft: BudgetDraft) -> BudgetStanding:
        """Make a budget, or give the one that its scope has for the period these terms.

        Raises `NotFoundError` for a tenant or project that is not there.
        """
        terms = _terms_arguments(draft.terms)
        scope = {"tenant_id": draft.scope.tenant_id, "project_id": draft.scope.project_id, "period": str(draft.period)}

        def work(connection: Connection) -> BudgetStanding:
            if connection.execute(_TAKE_TURNS, scope).one_or_none() is None:
                raise NotFoundError(f"there is no tenant {draft.scope.tenant_id}")
            if draft.scope.project_id is not None and connection.execute(_PROJECT, scope).one_or_none() is None:
                raise NotFoundError(f"there is no live project {draft.scope.project_id}")
            known = connection.execute(_SAME, scope).scalar_one_or_none()
            if known is None:
                connection.execute(_SET, scope | terms | {"budget_id": draft.budget_id})
            else:
                connection.execute(_CHANGE, terms | {"id": known})
            return _one(connection, known or draft.budget_id, Scope(tenant_id=draft.scope.tenant_id))

        return self._database.run(work)

    def get(self, budget_id: str, scope: Scope) -> BudgetStanding:
        """Return a budget that `scope` sees, with what is reserved, or raise `NotFoundError`."""
        return self._database.run(lambda connection: _one(connection, budget_id, scope))

    def list(self, scope: Scope | None = None) -> Sequence[BudgetStanding]:
        """Return budgets with what is reserved, the oldest first: those that `scope` sees, or all."""
        tenant_id = None if scope is None else scope.tenant_id
        project_id = None if scope is None else scope.project_id

        def work(connection: Connection) -> Sequence[BudgetStanding]:
            reserved = read_reserved(connection, tenant_id)
            return read_standings(
                connection, reserved, month_now(connection), tenant_id=tenant_id, project_id=project_id
            )

        return self._database.run(work)

    def change(self, budget_id: str, scope: Scope, terms: BudgetTerms) -> BudgetStanding:
        """Give a budget other terms; raises `NotFoundError`."""

        def work(connection: Connection) -> BudgetStanding:
            known = _one(connection, budget_id, scope)
            connection.execute(_CHANGE, _terms_arguments(terms) | {"id": known.budget_id})
            return _one(connection, budget_id, scope)

        return self._database.run(work)

    def remove(self, budget_id: str, scope: Scope) -> None:
        """Let a scope be charged without this limit; raises `NotFoundError`."""

        def work(connection: Connection) -> None:
            _one(connection, budget_id, scope)
            connection.execute(_REMOVE, {"id": budget_id})

        self._database.run(work)

    def top_up(self, budget_id: str, scope: Scope, *, top_up_id: str, micros: int) -> BudgetStanding:
        """Add so much to a budget for its current period; the same id again adds nothing.

        Raises `NotFoundError`, and `ConflictError` where the id has added something else.
        """

        def work(connection: Connection) -> BudgetStanding:
            known = _one(connection, budget_id, scope)
            wanted = {"top_up_id": top_up_id, "budget_id": budget_id, "amount_micros": micros}
            if not connection.execute(_TOP_UP, wanted | {"period_start": known.period_start}).rowcount:
                _check_same_top_up(connection, wanted)
            return _one(connection, budget_id, scope)

        return self._database.run(work)


def read_standings(
    connection: Connection,
    reserved: Iterable[Reserved],
    month: date,
    *,
    tenant_id: str | None = None,
    project_id: str | None = None,
    budget_id: str | None = None,
) -> tuple[BudgetStanding, ...]:
    """Return budgets in the periods that begin or go on with `month`; `reserved` was read before."""
    # What a pack may be charged counts in its own month, whichever it is now, as what it was charged does.
    held: Counter[tuple[str, date]] = Counter()
    for each in reserved:
        for scope in (each.tenant_id, each.project_id):
            held[scope, each.month] += each.micros
            held[scope, ALWAYS] += each.micros
    asked = {"month": month, "tenant_id": tenant_id, "project_id": project_id, "budget_id": budget_id}
    return tuple(
        _standing(row, held[row.project_id or row.tenant_id, row.period_start])
        for row in connection.execute(STANDINGS, asked)
    )


def month_now(connection: Connection) -> date:
    """Return the first day of the month (UTC) on the database's clock."""
    found: date = connection.execute(_MONTH).scalar_one()
    return found


def tell(connection: Connection, notices: Sequence[BudgetNotice]) -> None:
    """Record what is told of budgets, each once; a trigger tells webhooks in the same transaction."""
    for notice in notices:
        standing = notice.standing
        connection.execute(
            _TELL,
            {
                "budget_id": standing.budget_id,
                "period_start": standing.period_start,
                "limit_micros": standing.limit_micros,
                "mark": str(notice.mark),
                "share_ppm": notice.share_ppm,
                "spent_micros": standing.spent_micros,
            },
        )


def _one(connection: Connection, budget_id: str, scope: Scope) -> BudgetStanding:
    reserved = read_reserved(connection, scope.tenant_id)
    found = read_standings(
        connection,
        reserved,
        month_now(connection),
        tenant_id=scope.tenant_id,
        project_id=scope.project_id,
        budget_id=budget_id,
    )
    if not found:
        raise NotFoundError(f"there is no budget {budget_id}", hint="`nightrate budgets list` shows them")
    return found[0]


def _check_same_top_up(connection: Connection, wanted: dict[str, object]) -> None:
    made = text("SELECT budget_id, amount_micros FROM budget_top_ups WHERE id = :top_up_id")
    row = connection.execute(made, wanted).one()
    if (row.budget_id, row.amount_micros) != (wanted["budget_id"], wanted["amount_micros"]):
        raise ConflictError(f"{wanted['top_up_id']} was another top-up")


def _terms_arguments(terms: BudgetTerms) -> dict[str, object]:
    return {
        "amount_micros": terms.amount_micros,
        "alert_shares_ppm": list(terms.alert_shares_ppm),
        "core_tiers": [str(tier) for tier in terms.core],
        "core_share_ppm": terms.core_share_ppm,
    }


def _standing(row: Row[Any], reserved_micros: int) -> BudgetStanding:
    return BudgetStanding(
        budget_id=BudgetId(row.id),
        scope=BudgetScope(
            tenant_id=TenantId(row.tenant_id), project_id=None if row.project_id is None else ProjectId(row.project_id)
        ),
        period=BudgetPeriod(row.period),
        period_start=row.period_start,
        terms=BudgetTerms(
            amount_micros=row.amount_micros,
            alert_shares_ppm=tuple(row.alert_shares_ppm),
            core_tiers=frozenset(Tier(tier) for tier in row.core_tiers),
            core_share_ppm=row.core_share_ppm,
        ),
        added_micros=int(row.added_micros),
        spent_micros=int(row.spent_micros),
        reserved_micros=reserved_micros,
        told=frozenset((BudgetMark(mark), share) for mark, share in row.marks),
    )
