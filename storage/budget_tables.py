"""The tables of budgets: what they are, what was added to them, what was told of them, and what counts against them."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, Integer, String, func, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.domain.costs.budgets import BudgetMark, BudgetPeriod
from storage.base import Base, one_of
from storage.tenant_tables import ProjectRow, TenantRow


class BudgetRow(Base):
    """What a tenant or one of its projects may be charged in a period. Triggers audit it and wake the scheduler."""

    __tablename__ = "budgets"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey(TenantRow.id))
    #: None: of all the tenant's projects.
    project_id: Mapped[str | None]
    period: Mapped[str]
    amount_micros: Mapped[int]
    alert_shares_ppm: Mapped[list[int]] = mapped_column(ARRAY(BIGINT))
    #: From this share on only these tiers go on.
    core_tiers: Mapped[list[str]] = mapped_column(ARRAY(String))
    core_share_ppm: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "project_id"], [ProjectRow.tenant_id, ProjectRow.id]),
        one_of("period", BudgetPeriod),
        CheckConstraint("amount_micros >= 0", name="amount"),
        CheckConstraint("0 < ALL(alert_shares_ppm) AND 1000000 >= ALL(alert_shares_ppm)", name="alert_shares"),
        CheckConstraint("core_tiers <@ ARRAY['urgent', 'standard', 'bulk', 'nightly']::varchar[]", name="core_tiers"),
        CheckConstraint("core_share_ppm BETWEEN 1 AND 1000000", name="core_share"),
        Index("uq_budgets_of_tenant", "tenant_id", "period", unique=True, postgresql_where=text("project_id IS NULL")),
        Index(
            "uq_budgets_of_project",
            "project_id",
            "period",
            unique=True,
            postgresql_where=text("project_id IS NOT NULL"),
        ),
        Index("ix_budgets_tenant_id", "tenant_id"),
    )


class TopUpRow(Base):
    """What was added to a budget for one period."""

    __tablename__ = "budget_top_ups"
    id: Mapped[str] = mapped_column(primary_key=True)
    budget_id: Mapped[str] = mapped_column(ForeignKey(BudgetRow.id, ondelete="CASCADE"))
    #: First day of the period that it counts in; of a budget without an end 1970-01-01.
    period_start: Mapped[date]
    amount_micros: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    __table_args__ = (
        CheckConstraint("amount_micros > 0", name="amount"),
        CheckConstraint("extract(day FROM period_start) = 1", name="period_start"),
        Index("ix_budget_top_ups_period", "budget_id", "period_start"),
    )


class BudgetNoticeRow(Base):
    """Something that was told of a budget, once for each period and limit. A trigger tells webhooks."""

    __tablename__ = "budget_notices"
    budget_id: Mapped[str] = mapped_column(ForeignKey(BudgetRow.id, ondelete="CASCADE"), primary_key=True)
    period_start: Mapped[date] = mapped_column(primary_key=True)
    limit_micros: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    mark: Mapped[str] = mapped_column(primary_key=True)
    share_ppm: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    spent_micros: Mapped[int]
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    __table_args__ = (one_of("mark", BudgetMark),)


class ChargesRow(Base):
    """What a project was charged in a month, in a few parts so that workers seldom wait for one another.

    A trigger on the journal's entries keeps it, in the transaction that posts them.
    """

    __tablename__ = "charges_by_month"
    tenant_id: Mapped[str] = mapped_column(ForeignKey(TenantRow.id), primary_key=True)
    #: First day of the month (UTC) in which the pack was begun that is charged, or else the charge was posted.
    month: Mapped[date] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(primary_key=True)
    slot: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    charged_micros: Mapped[int]
    __table_args__ = (
        CheckConstraint("extract(day FROM month) = 1", name="month"),
        ForeignKeyConstraint(["tenant_id", "project_id"], [ProjectRow.tenant_id, ProjectRow.id]),
    )
