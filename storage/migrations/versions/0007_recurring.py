"""Keep recurring batches and their firings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_NOW = sa.text("clock_timestamp()")
_ENDPOINTS = "'/v1/chat/completions', '/v1/completions', '/v1/embeddings', '/v1/score', '/v1/rerank', '/v1/classify'"


def upgrade() -> None:
    _create_recurring()
    _create_firings()


def _create_recurring() -> None:
    op.create_table(
        "recurring",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("cron", sa.String(), nullable=False),
        sa.Column("zone", sa.String(), nullable=False),
        sa.Column("input_template", sa.String(), nullable=False),
        sa.Column("output_template", sa.String(), nullable=True),
        sa.Column("endpoint", sa.String(), nullable=True),
        sa.Column("tier", sa.String(), nullable=False),
        sa.Column("completion_window", sa.String(), nullable=False),
        sa.Column("budget_micros", sa.BigInteger(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("overlap", sa.String(), nullable=False),
        sa.Column("catch_up", sa.String(), nullable=False),
        sa.Column("catch_up_max", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(f"endpoint IN ({_ENDPOINTS})", name=op.f("ck_recurring_endpoint")),
        sa.CheckConstraint("tier IN ('urgent', 'standard', 'bulk', 'nightly')", name=op.f("ck_recurring_tier")),
        sa.CheckConstraint("overlap IN ('skip', 'queue', 'allow')", name=op.f("ck_recurring_overlap")),
        sa.CheckConstraint("catch_up IN ('none', 'last', 'all')", name=op.f("ck_recurring_catch_up")),
        sa.CheckConstraint("budget_micros > 0", name=op.f("ck_recurring_budget")),
        sa.CheckConstraint("catch_up_max > 0", name=op.f("ck_recurring_catch_up_bound")),
        sa.ForeignKeyConstraint(["tenant_id"], ["nightrate.tenants.id"], name=op.f("fk_recurring_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recurring")),
        schema="nightrate",
    )
    op.create_index(
        "uq_recurring_live",
        "recurring",
        ["tenant_id", "name"],
        unique=True,
        schema="nightrate",
        postgresql_where=sa.text("removed_at IS NULL"),
    )
    op.create_index(
        "ix_recurring_due",
        "recurring",
        ["next_at"],
        unique=False,
        schema="nightrate",
        postgresql_where=sa.text("removed_at IS NULL AND paused_at IS NULL"),
    )


def _create_firings() -> None:
    op.create_table(
        "firings",
        sa.Column("recurring_id", sa.String(), nullable=False),
        sa.Column("scheduled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_manual", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("batch_id", sa.String(), nullable=True),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("output_path", sa.String(), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivery_tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("delivery_trouble", sa.String(), nullable=True),
        sa.Column("deliver_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.CheckConstraint(
            "outcome IN ('submitted', 'skipped_overlap', 'skipped_catch_up', 'failed')",
            name=op.f("ck_firings_outcome"),
        ),
        sa.CheckConstraint(
            "(outcome IS NOT DISTINCT FROM 'submitted') = (batch_id IS NOT NULL)", name=op.f("ck_firings_batch")
        ),
        sa.CheckConstraint(
            "outcome IS NULL OR outcome = 'submitted' OR (reason <> '') IS TRUE", name=op.f("ck_firings_explained")
        ),
        sa.CheckConstraint("tries >= 0 AND delivery_tries >= 0", name=op.f("ck_firings_tries")),
        sa.CheckConstraint("output_path IS NULL OR batch_id IS NOT NULL", name=op.f("ck_firings_output")),
        sa.ForeignKeyConstraint(["recurring_id"], ["nightrate.recurring.id"], name=op.f("fk_firings_recurring_id")),
        sa.ForeignKeyConstraint(["batch_id"], ["nightrate.batches.id"], name=op.f("fk_firings_batch_id")),
        sa.PrimaryKeyConstraint("recurring_id", "scheduled_at", name=op.f("pk_firings")),
        sa.UniqueConstraint("batch_id", name=op.f("uq_firings_batch_id")),
        schema="nightrate",
    )
    op.create_index(
        "ix_firings_open",
        "firings",
        ["recurring_id", "scheduled_at"],
        unique=False,
        schema="nightrate",
        postgresql_where=sa.text("outcome IS NULL"),
    )
    op.create_index(
        "ix_firings_undelivered",
        "firings",
        ["deliver_at"],
        unique=False,
        schema="nightrate",
        postgresql_where=sa.text("output_path IS NOT NULL AND delivered_at IS NULL"),
    )
