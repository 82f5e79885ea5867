"""Let the scheduler learn from packs that ended: what their rows took, by shard, and what it made of that."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _keep_what_rows_took()
    _create_predictions()


def _keep_what_rows_took() -> None:
    op.add_column("shards", _number("template", sa.BigInteger()), schema="nightrate")
    op.add_column("pack_slices", _number("predicted_seconds", sa.Float()), schema="nightrate")
    op.create_check_constraint(
        op.f("ck_pack_slices_predicted"), "pack_slices", "predicted_seconds >= 0", schema="nightrate"
    )
    op.add_column("part_slices", _number("input_tokens", sa.BigInteger()), schema="nightrate")
    op.add_column("part_slices", _number("output_tokens", sa.BigInteger()), schema="nightrate")
    op.add_column(
        "part_slices",
        sa.Column("output_lengths", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        schema="nightrate",
    )
    op.create_check_constraint(
        op.f("ck_part_slices_tokens"), "part_slices", "input_tokens >= 0 AND output_tokens >= 0", schema="nightrate"
    )
    op.add_column("packs", sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True), schema="nightrate")
    # What ended before has nothing to teach: its rows were not measured.
    op.execute("UPDATE nightrate.packs SET settled_at = ended_at WHERE ended_at IS NOT NULL")
    op.create_index(
        "ix_packs_unsettled",
        "packs",
        ["ended_at"],
        unique=False,
        schema="nightrate",
        postgresql_where=sa.text("ended_at IS NOT NULL AND settled_at IS NULL"),
    )
    op.create_index(
        "ix_worker_intervals_pack_id",
        "worker_intervals",
        ["pack_id"],
        unique=False,
        schema="nightrate",
        postgresql_where=sa.text("pack_id IS NOT NULL"),
    )


def _create_predictions() -> None:
    op.create_table(
        "predictions",
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("state", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("kind IN ('pace', 'tokens')", name=op.f("ck_predictions_kind")),
        sa.PrimaryKeyConstraint("kind", "subject", "detail", name=op.f("pk_predictions")),
        schema="nightrate",
    )
    op.create_index("ix_predictions_updated_at", "predictions", ["updated_at"], unique=False, schema="nightrate")


def _number(name: str, kind: sa.BigInteger | sa.Float[float]) -> sa.Column[Any]:
    return sa.Column(name, kind, server_default="0", nullable=False)
