"""The table of what batches take of their tenants' quotas."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from storage.base import Base
from storage.tables import BatchRow
from storage.tenant_tables import TenantRow


class QuotaReservationRow(Base):
    """What one batch takes: as much as it may need until it has ended, and what really ran from then on.

    A trigger on `batches` settles it in whatever transaction ends the batch.
    """

    __tablename__ = "quota_reservations"
    batch_id: Mapped[str] = mapped_column(ForeignKey(BatchRow.id), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey(TenantRow.id))
    #: First day of the calendar month (UTC) that it was admitted in, and counts in for ever.
    month: Mapped[date]
    model: Mapped[str]
    #: What counts in the month.
    rows: Mapped[int]
    tokens: Mapped[int]
    #: What was reserved: its tokens are those that it has enqueued until it is settled.
    rows_reserved: Mapped[int]
    tokens_reserved: Mapped[int]
    reserved_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    settled_at: Mapped[datetime | None]
    __table_args__ = (
        CheckConstraint("rows >= 0 AND rows <= rows_reserved", name="rows"),
        CheckConstraint("tokens >= 0 AND tokens_reserved >= 0", name="tokens"),
        CheckConstraint(
            "settled_at IS NOT NULL OR rows = rows_reserved AND tokens = tokens_reserved", name="whole_until_settled"
        ),
        CheckConstraint("extract(day FROM month) = 1", name="month"),
        Index("ix_quota_reservations_month", "tenant_id", "month", postgresql_include=["rows", "tokens"]),
        Index(
            "ix_quota_reservations_open",
            "tenant_id",
            "model",
            postgresql_include=["tokens_reserved"],
            postgresql_where=text("settled_at IS NULL"),
        ),
    )
