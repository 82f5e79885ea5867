"""Let variants be watched in production: rows to be judged again, what was found, and the time it takes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_CLOCK = sa.text("clock_timestamp()")
_KINDS = "kind IN ('boot', 'load', 'work', 'idle', 'drain', 'shadow', 'late', 'lost')"


def upgrade() -> None:
    _create_samples()
    _create_watches()
    for table in ("worker_intervals", "ledger"):
        name = op.f(f"ck_{table}_kind")
        op.drop_constraint(name, table, schema="nightrate", type_="check")
        op.create_check_constraint(name, table, _KINDS, schema="nightrate")


def _create_samples() -> None:
    op.create_table(
        "shadow_samples",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("variant", sa.String(), nullable=False),
        sa.Column("gate_key", sa.String(), nullable=False),
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("shard_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("part_id", sa.String(), nullable=False),
        sa.Column("line_no", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), server_default="waiting", nullable=False),
        sa.Column("x", sa.Float(), nullable=True),
        sa.Column("tokens", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_CLOCK, nullable=False),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'judged', 'dropped', 'expired')", name=op.f("ck_shadow_samples_state")
        ),
        sa.CheckConstraint("x BETWEEN -1 AND 1", name=op.f("ck_shadow_samples_x")),
        sa.CheckConstraint(
            "(state = 'judged') = (x IS NOT NULL AND tokens IS NOT NULL)", name=op.f("ck_shadow_samples_judged")
        ),
        sa.CheckConstraint("(state = 'waiting') = (ended_at IS NULL)", name=op.f("ck_shadow_samples_ended")),
        sa.ForeignKeyConstraint(["batch_id"], ["nightrate.batches.id"], name=op.f("fk_shadow_samples_batch_id")),
        sa.ForeignKeyConstraint(["shard_id"], ["nightrate.shards.id"], name=op.f("fk_shadow_samples_shard_id")),
        sa.ForeignKeyConstraint(["part_id"], ["nightrate.parts.id"], name=op.f("fk_shadow_samples_part_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shadow_samples")),
        sa.UniqueConstraint("shard_id", "position", name=op.f("uq_shadow_samples_shard_id_position")),
        schema="nightrate",
    )
    op.create_index(
        "ix_shadow_samples_waiting",
        "shadow_samples",
        ["model", sa.literal_column("id DESC")],
        unique=False,
        schema="nightrate",
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_index(
        "ix_shadow_samples_ended",
        "shadow_samples",
        ["ended_at"],
        unique=False,
        schema="nightrate",
        postgresql_where=sa.text("state <> 'waiting'"),
    )


def _create_watches() -> None:
    op.create_table(
        "watches",
        sa.Column("variant", sa.String(), nullable=False),
        sa.Column("gate_key", sa.String(), nullable=False),
        sa.Column("tier", sa.String(), nullable=False),
        sa.Column("watch", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), server_default=_CLOCK, nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=_CLOCK, nullable=False),
        sa.CheckConstraint("tier IN ('urgent', 'standard', 'bulk', 'nightly')", name=op.f("ck_watches_tier")),
        sa.PrimaryKeyConstraint("variant", "gate_key", "tier", name=op.f("pk_watches")),
        schema="nightrate",
    )
