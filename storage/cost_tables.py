"""The tables behind the views of the schema `cost`: the journal's sums, what is not in them yet, which days left."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.domain.costs.amounts import NAMES
from storage.base import Base
from storage.journal_tables import TransactionRow
from storage.tables import BatchRow

#: What sums are kept apart by, as `nightrate.cost_lines` names it.
DIMENSIONS = (
    "hour",
    "day",
    "batch_id",
    "kind",
    "pool",
    "market",
    "provider",
    "instance_type",
    "region",
    "zone",
    "model",
    "variant",
    "tier",
    "category",
    "transaction_kind",
    "method",
    "currency",
)
#: Of these, what the sums by day are kept apart by.
DAY_DIMENSIONS = tuple(name for name in DIMENSIONS if name not in {"hour", "zone", "transaction_kind", "method"})
#: What is summed up.
MEASURES = (*NAMES, "row_count", "input_tokens", "output_tokens", "worker_us")


class _Sums:
    """What sums by the hour and by the day have in common."""

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    day: Mapped[date]
    batch_id: Mapped[str | None] = mapped_column(ForeignKey(BatchRow.id))
    kind: Mapped[str]
    pool: Mapped[str | None]
    market: Mapped[str | None]
    provider: Mapped[str | None]
    instance_type: Mapped[str | None]
    region: Mapped[str | None]
    model: Mapped[str | None]
    variant: Mapped[str | None]
    #: That of the packs; None: there were none.
    tier: Mapped[str | None]
    category: Mapped[str]
    currency: Mapped[str]
    list_micros: Mapped[int]
    contracted_micros: Mapped[int]
    effective_micros: Mapped[int]
    billed_micros: Mapped[int]
    on_demand_micros: Mapped[int]
    charged_micros: Mapped[int]
    row_count: Mapped[int]
    input_tokens: Mapped[int]
    output_tokens: Mapped[int]
    worker_us: Mapped[int]


class CostHourRow(_Sums, Base):
    """Lines of the journal that have all but their figures in common, of one hour."""

    __tablename__ = "cost_hours"
    hour: Mapped[datetime]
    zone: Mapped[str | None]
    transaction_kind: Mapped[str]
    method: Mapped[str | None]
    __table_args__ = (
        UniqueConstraint(*DIMENSIONS, name="uq_cost_hours", postgresql_nulls_not_distinct=True),
        Index("ix_cost_hours_day", "day"),
        Index("ix_cost_hours_batch_id", "batch_id"),
    )


class CostDayRow(_Sums, Base):
    """Lines of the journal that have all but their figures and hours in common, of one day: what most is asked of."""

    __tablename__ = "cost_days"
    __table_args__ = (
        UniqueConstraint(*DAY_DIMENSIONS, name="uq_cost_days", postgresql_nulls_not_distinct=True),
        Index("ix_cost_days_batch_id", "batch_id"),
    )


class CostPendingRow(Base):
    """A transaction that is not in `cost_hours` yet: written with it, by a trigger, and taken away as it is summed up."""

    __tablename__ = "cost_pending"
    transaction_id: Mapped[int] = mapped_column(ForeignKey(TransactionRow.id), primary_key=True, autoincrement=False)


class CostDayVersionRow(Base):
    """A day of use, how often its sums have changed, and how far it was exported."""

    __tablename__ = "cost_day_versions"
    day: Mapped[date] = mapped_column(primary_key=True)
    version: Mapped[int]
    changed_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    #: The version whose files are in the object store; None: there are none.
    exported_version: Mapped[int | None]
    exported_at: Mapped[datetime | None]
    __table_args__ = (
        CheckConstraint("version > 0", name="version"),
        CheckConstraint("exported_version BETWEEN 1 AND version", name="exported"),
        CheckConstraint("(exported_version IS NULL) = (exported_at IS NULL)", name="exported_when"),
    )
