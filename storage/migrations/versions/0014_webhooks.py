"""Tell webhooks what happens to batches."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_NOW = sa.text("clock_timestamp()")
_TYPES = "'batch.in_progress', 'batch.progress', 'batch.completed', 'batch.failed', 'batch.expired', 'batch.cancelled'"


def upgrade() -> None:
    _create_webhooks()
    _create_events()
    _create_deliveries()
    op.execute(sa.text(Path(__file__).with_name("0014_webhooks.sql").read_text(encoding="utf-8").replace(":", r"\:")))


def _create_webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=True),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("event_types", postgresql.ARRAY(sa.String()), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("previous_secret", sa.String(), nullable=True),
        sa.Column("previous_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disabled_reason", sa.String(), nullable=True),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("disabled_reason IN ('asked', 'gone', 'failing')", name=op.f("ck_webhooks_disabled_reason")),
        sa.CheckConstraint(
            f"cardinality(event_types) > 0 AND event_types <@ ARRAY[{_TYPES}]::varchar[]",
            name=op.f("ck_webhooks_event_types"),
        ),
        sa.CheckConstraint("(disabled_at IS NULL) = (disabled_reason IS NULL)", name=op.f("ck_webhooks_disabled")),
        sa.CheckConstraint("(previous_secret IS NULL) = (previous_until IS NULL)", name=op.f("ck_webhooks_previous")),
        sa.ForeignKeyConstraint(["tenant_id"], ["nightrate.tenants.id"], name=op.f("fk_webhooks_tenant_id")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "project_id"],
            ["nightrate.projects.tenant_id", "nightrate.projects.id"],
            name=op.f("fk_webhooks_tenant_id_project_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
        schema="nightrate",
    )
    op.create_index(
        "ix_webhooks_tenant_id",
        "webhooks",
        ["tenant_id", sa.text("created_at DESC"), sa.text("id DESC")],
        schema="nightrate",
    )


def _create_events() -> None:
    op.create_table(
        "webhook_events",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=True),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("batch_id", sa.String(), nullable=True),
        sa.Column("step", sa.Integer(), nullable=True),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.CheckConstraint(f"type IN ({_TYPES}, 'webhook.test')", name=op.f("ck_webhook_events_type")),
        sa.CheckConstraint("(step IS NOT NULL) = (type = 'batch.progress')", name=op.f("ck_webhook_events_step")),
        sa.CheckConstraint("(batch_id IS NULL) = (type = 'webhook.test')", name=op.f("ck_webhook_events_batch")),
        sa.ForeignKeyConstraint(["tenant_id"], ["nightrate.tenants.id"], name=op.f("fk_webhook_events_tenant_id")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "project_id"],
            ["nightrate.projects.tenant_id", "nightrate.projects.id"],
            name=op.f("fk_webhook_events_tenant_id_project_id"),
        ),
        sa.ForeignKeyConstraint(["batch_id"], ["nightrate.batches.id"], name=op.f("fk_webhook_events_batch_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_events")),
        schema="nightrate",
    )
    op.create_index(
        "uq_webhook_events_step",
        "webhook_events",
        ["batch_id", "step"],
        unique=True,
        schema="nightrate",
        postgresql_where=sa.text("step IS NOT NULL"),
    )
    op.create_index("ix_webhook_events_created_at", "webhook_events", ["created_at"], schema="nightrate")


def _create_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("webhook_id", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("claim_token", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("tried_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("gave_up_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.CheckConstraint("delivered_at IS NULL OR gave_up_at IS NULL", name=op.f("ck_webhook_deliveries_ended_once")),
        sa.CheckConstraint("tries >= 0", name=op.f("ck_webhook_deliveries_tries")),
        sa.ForeignKeyConstraint(
            ["webhook_id"],
            ["nightrate.webhooks.id"],
            name=op.f("fk_webhook_deliveries_webhook_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["event_id"],
            ["nightrate.webhook_events.id"],
            name=op.f("fk_webhook_deliveries_event_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("webhook_id", "event_id", name=op.f("pk_webhook_deliveries")),
        schema="nightrate",
    )
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["webhook_id", "next_at"],
        schema="nightrate",
        postgresql_where=sa.text("delivered_at IS NULL AND gave_up_at IS NULL"),
    )
    op.create_index("ix_webhook_deliveries_event_id", "webhook_deliveries", ["event_id"], schema="nightrate")
