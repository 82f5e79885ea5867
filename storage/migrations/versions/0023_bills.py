"""Keep how far workers are settled, which hours' overhead is shared, and which bills were imported."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("provider_id", sa.String(), nullable=True), schema="nightrate")
    op.create_index(
        "ix_workers_provider_id",
        "workers",
        ["provider_id"],
        schema="nightrate",
        postgresql_where=sa.text("provider_id IS NOT NULL"),
    )
    op.create_index(
        "ix_transactions_adjustments",
        "transactions",
        ["period_start"],
        schema="nightrate",
        postgresql_where=sa.text("kind = 'adjustment'"),
    )
    op.create_table(
        "settlements",
        sa.Column("worker_id", sa.String(), nullable=False),
        sa.Column("settled_until_us", sa.BigInteger(), nullable=False),
        sa.Column("is_final", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column(
            "settled_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("settled_until_us >= 0", name=op.f("ck_settlements_settled_until_us")),
        sa.ForeignKeyConstraint(["worker_id"], ["nightrate.workers.id"], name=op.f("fk_settlements_worker_id")),
        sa.PrimaryKeyConstraint("worker_id", name=op.f("pk_settlements")),
        schema="nightrate",
    )
    op.create_table(
        "allocation_hours",
        sa.Column("pool", sa.String(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_due", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.CheckConstraint("hour = date_trunc('hour', hour, 'UTC')", name=op.f("ck_allocation_hours_hour")),
        sa.PrimaryKeyConstraint("pool", "hour", name=op.f("pk_allocation_hours")),
        schema="nightrate",
    )
    op.create_index(
        "ix_allocation_hours_due",
        "allocation_hours",
        ["hour"],
        schema="nightrate",
        postgresql_where=sa.text("is_due"),
    )
    _create_bills()


def _create_bills() -> None:
    op.create_table(
        "bills",
        *(
            sa.Column(name, sa.String(), nullable=False)
            for name in ("digest", "name", "provider", "format", "currency")
        ),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_stop", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lines", sa.BigInteger(), nullable=False),
        sa.Column("totals", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "imported_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("digest ~ '^[0-9a-f]{64}$'", name=op.f("ck_bills_digest")),
        sa.CheckConstraint("period_start < period_stop", name=op.f("ck_bills_period")),
        sa.CheckConstraint("lines >= 0", name=op.f("ck_bills_lines")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_bills")),
        schema="nightrate",
    )
    op.execute(
        "CREATE TRIGGER bills_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON nightrate.bills "
        "FOR EACH STATEMENT EXECUTE FUNCTION nightrate.refuse_change_v1()"
    )
