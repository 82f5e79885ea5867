"""The tables of webhooks: who wants to be told, what happened, and how the telling goes.

Events are written by triggers (see the migration), so that no way of changing a batch can forget them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, Integer, String, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.domain.webhooks import SUBSCRIBABLE, DisabledReason, EventType
from storage.base import Base, one_of
from storage.tables import BatchRow
from storage.tenant_tables import ProjectRow, TenantRow

_SUBSCRIBABLE = ", ".join(f"'{kind}'" for kind in SUBSCRIBABLE)


class WebhookRow(Base):
    """Where a tenant wants to be told of what happens to its batches."""

    __tablename__ = "webhooks"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey(TenantRow.id))
    #: None: of all the tenant's projects.
    project_id: Mapped[str | None]
    url: Mapped[str]
    description: Mapped[str]
    event_types: Mapped[list[str]] = mapped_column(ARRAY(String))
    secret: Mapped[str]
    #: It signs, too, until then.
    previous_secret: Mapped[str | None]
    previous_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]
    #: The first try that failed since one last succeeded.
    failing_since: Mapped[datetime | None]
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "project_id"], [ProjectRow.tenant_id, ProjectRow.id]),
        one_of("disabled_reason", DisabledReason),
        CheckConstraint(
            f"cardinality(event_types) > 0 AND event_types <@ ARRAY[{_SUBSCRIBABLE}]::varchar[]", name="event_types"
        ),
        CheckConstraint("(disabled_at IS NULL) = (disabled_reason IS NULL)", name="disabled"),
        CheckConstraint("(previous_secret IS NULL) = (previous_until IS NULL)", name="previous"),
        Index("ix_webhooks_tenant_id", "tenant_id", text("created_at DESC"), text("id DESC")),
    )


class WebhookEventRow(Base):
    """Something that happened while a webhook wanted to be told of it."""

    __tablename__ = "webhook_events"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey(TenantRow.id))
    project_id: Mapped[str | None]
    type: Mapped[str]
    batch_id: Mapped[str | None] = mapped_column(ForeignKey(BatchRow.id))
    #: Of progress: percent of the rows. Each is told once.
    step: Mapped[int | None] = mapped_column(Integer)
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "project_id"], [ProjectRow.tenant_id, ProjectRow.id]),
        one_of("type", EventType),
        CheckConstraint("(step IS NOT NULL) = (type = 'batch.progress')", name="step"),
        CheckConstraint("(batch_id IS NOT NULL) = (type LIKE 'batch.%')", name="batch"),
        Index("uq_webhook_events_step", "batch_id", "step", unique=True, postgresql_where=text("step IS NOT NULL")),
        Index("ix_webhook_events_created_at", "created_at"),
    )


class WebhookDeliveryRow(Base):
    """One event, to be told to one webhook."""

    __tablename__ = "webhook_deliveries"
    webhook_id: Mapped[str] = mapped_column(ForeignKey(WebhookRow.id, ondelete="CASCADE"), primary_key=True)
    event_id: Mapped[str] = mapped_column(ForeignKey(WebhookEventRow.id, ondelete="CASCADE"), primary_key=True)
    tries: Mapped[int] = mapped_column(Integer, server_default="0")
    #: A claim puts it off by the claim's time.
    next_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    #: Counts the claims; only who has the last one may record what came of it.
    claim_token: Mapped[int] = mapped_column(server_default="0")
    tried_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    gave_up_at: Mapped[datetime | None]
    last_status: Mapped[int | None] = mapped_column(Integer)
    last_error: Mapped[str | None]
    __table_args__ = (
        CheckConstraint("delivered_at IS NULL OR gave_up_at IS NULL", name="ended_once"),
        CheckConstraint("tries >= 0", name="tries"),
        Index(
            "ix_webhook_deliveries_due",
            "webhook_id",
            "next_at",
            postgresql_where=text("delivered_at IS NULL AND gave_up_at IS NULL"),
        ),
        Index("ix_webhook_deliveries_event_id", "event_id"),
    )
