"""The tables of what became of the journal afterwards: settled workers, shared hours, imported invoices."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from storage.base import Base
from storage.tables import WorkerRow


class SettlementRow(Base):
    """How far a worker's life was brought to its bill."""

    __tablename__ = "settlements"
    worker_id: Mapped[str] = mapped_column(ForeignKey(WorkerRow.id), primary_key=True)
    settled_until_us: Mapped[int]
    #: Whether that was all of a life that has ended.
    is_final: Mapped[bool]
    #: Of the prices that it was settled by.
    revision: Mapped[int]
    settled_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    __table_args__ = (CheckConstraint("settled_until_us >= 0", name="settled_until_us"),)


class AllocationHourRow(Base):
    """An hour of a pool whose overhead is shared over its batches."""

    __tablename__ = "allocation_hours"
    pool: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    #: It is to be looked at: it has not been, or something of it was settled since.
    is_due: Mapped[bool] = mapped_column(server_default="true")
    __table_args__ = (
        CheckConstraint("hour = date_trunc('hour', hour, 'UTC')", name="hour"),
        Index("ix_allocation_hours_due", "hour", postgresql_where=text("is_due")),
    )


class InvoiceRow(Base):
    """A provider's invoice that was imported; append-only."""

    __tablename__ = "invoices"
    #: SHA-256 of the file.
    digest: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    provider: Mapped[str]
    format: Mapped[str]
    currency: Mapped[str]
    period_start: Mapped[datetime]
    period_stop: Mapped[datetime]
    lines: Mapped[int]
    #: By kind of line, and what came of it.
    totals: Mapped[dict[str, Any]]
    imported_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    __table_args__ = (
        CheckConstraint("digest ~ '^[0-9a-f]{64}$'", name="digest"),
        CheckConstraint("period_start < period_stop", name="period"),
        CheckConstraint("lines >= 0", name="lines"),
    )
