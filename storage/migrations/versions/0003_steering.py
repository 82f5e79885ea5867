"""Let users steer a batch on its way, and the scheduler say whether it promises the deadline."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_REASONS = (
    "queued",
    "running",
    "no_worker",
    "user_paused",
    "held",
    "budget_reached",
    "all_packed",
    "bad_input",
    "deadline_passed",
    "user_cancelled",
    "all_committed",
    "results_lost",
)


def upgrade() -> None:
    for column in ("hold_until", "paused_at", "steered_at"):
        op.add_column("batches", sa.Column(column, sa.DateTime(timezone=True), nullable=True), schema="nightrate")
    op.add_column(
        "batches", sa.Column("promise", sa.String(), server_default="pending", nullable=False), schema="nightrate"
    )
    op.create_check_constraint(
        op.f("ck_batches_promise"), "batches", "promise IN ('pending', 'made', 'declined')", schema="nightrate"
    )
    reasons = ", ".join(f"'{reason}'" for reason in _REASONS)
    for table in ("batches", "decisions"):
        op.drop_constraint(op.f(f"ck_{table}_reason"), table, schema="nightrate", type_="check")
        op.create_check_constraint(op.f(f"ck_{table}_reason"), table, f"reason IN ({reasons})", schema="nightrate")
    op.create_index(
        "ix_batches_paused",
        "batches",
        ["id"],
        unique=False,
        schema="nightrate",
        postgresql_where=sa.text("paused_at IS NOT NULL AND state = 'in_progress'"),
    )
    op.execute("""
        CREATE VIEW nightrate.paused_packs AS
        SELECT packs.id
          FROM nightrate.batches AS paused
          JOIN nightrate.pack_slices AS slices ON slices.batch_id = paused.id
          JOIN nightrate.packs ON packs.id = slices.pack_id AND packs.state IN ('ready', 'retryable')
         WHERE paused.paused_at IS NOT NULL AND paused.state = 'in_progress'
           AND NOT EXISTS (
            SELECT FROM nightrate.pack_slices AS beside JOIN nightrate.batches ON batches.id = beside.batch_id
             WHERE beside.pack_id = packs.id AND batches.paused_at IS NULL)
    """)
    op.execute("""
        COMMENT ON VIEW nightrate.paused_packs IS
        'Waiting packs of paused batches alone. Where batches share a pack, one that is paused goes along.'
    """)
