"""The tables of recurring batches.

Whoever imports this module has all tables in `Base.metadata`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, false, func, text
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.recurring import CatchUp, FiringOutcome, Overlap
from pipeline.domain.tiers import Tier
from storage import variant_tables
from storage.base import Base, one_of
from storage.tables import BatchRow
from storage.tenant_tables import TenantRow

assert variant_tables.TuningRow.metadata is Base.metadata


class RecurringRow(Base):
    """A batch to submit again and again. A removed one stays, because its firings name it."""

    __tablename__ = "recurring"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey(TenantRow.id))
    name: Mapped[str]
    cron: Mapped[str]
    zone: Mapped[str]
    input_template: Mapped[str]
    output_template: Mapped[str | None]
    #: NULL: that of the file's first line.
    endpoint: Mapped[str | None]
    tier: Mapped[str]
    completion_window: Mapped[str]
    budget_micros: Mapped[int | None]
    user_metadata: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    overlap: Mapped[str]
    catch_up: Mapped[str]
    catch_up_max: Mapped[int] = mapped_column(Integer)
    #: The first firing that was not planned yet; only ever moved on by who knows where it stood.
    next_at: Mapped[datetime]
    paused_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    removed_at: Mapped[datetime | None]
    __table_args__ = (
        one_of("endpoint", Endpoint),
        one_of("tier", Tier),
        one_of("overlap", Overlap),
        one_of("catch_up", CatchUp),
        CheckConstraint("budget_micros > 0", name="budget"),
        CheckConstraint("catch_up_max > 0", name="catch_up_bound"),
        Index("uq_recurring_live", "tenant_id", "name", unique=True, postgresql_where=text("removed_at IS NULL")),
        Index("ix_recurring_due", "next_at", postgresql_where=text("removed_at IS NULL AND paused_at IS NULL")),
    )


class FiringRow(Base):
    """One firing: its key is what makes it fire once. Without an outcome it is still to be submitted."""

    __tablename__ = "firings"
    recurring_id: Mapped[str] = mapped_column(ForeignKey(RecurringRow.id), primary_key=True)
    scheduled_at: Mapped[datetime] = mapped_column(primary_key=True)
    is_manual: Mapped[bool] = mapped_column(server_default=false())
    outcome: Mapped[str | None]
    reason: Mapped[str | None]
    batch_id: Mapped[str | None] = mapped_column(ForeignKey(BatchRow.id), unique=True)
    tries: Mapped[int] = mapped_column(Integer, server_default="0")
    retry_at: Mapped[datetime | None]
    output_path: Mapped[str | None]
    delivered_at: Mapped[datetime | None]
    delivery_tries: Mapped[int] = mapped_column(Integer, server_default="0")
    delivery_trouble: Mapped[str | None]
    deliver_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    __table_args__ = (
        one_of("outcome", FiringOutcome),
        CheckConstraint("(outcome IS NOT DISTINCT FROM 'submitted') = (batch_id IS NOT NULL)", name="batch"),
        CheckConstraint(
            "outcome IS NULL OR outcome = 'submitted' OR (reason <> '') IS TRUE",
            name="explained",
        ),
        CheckConstraint("tries >= 0 AND delivery_tries >= 0", name="tries"),
        CheckConstraint("output_path IS NULL OR batch_id IS NOT NULL", name="output"),
        Index("ix_firings_open", "recurring_id", "scheduled_at", postgresql_where=text("outcome IS NULL")),
        Index(
            "ix_firings_undelivered",
            "deliver_at",
            postgresql_where=text("output_path IS NOT NULL AND delivered_at IS NULL"),
        ),
    )
