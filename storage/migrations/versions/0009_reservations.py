"""Keep what rows of a pack may cost their batch beside them, and that a batch is to run with a promise or not at all."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


_REASONS = (
    "queued", "running", "no_worker", "user_paused", "held", "budget_reached", "all_packed", "bad_input",
    "deadline_passed", "user_cancelled", "all_committed", "results_lost", "promise_declined",
)  # fmt: skip


def upgrade() -> None:
    # Packs that are in flight now reserve nothing: they were dispatched when a budget was looked at once it was spent.
    op.add_column(
        "pack_slices",
        sa.Column("reserved_micros", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        schema="nightrate",
    )
    op.create_check_constraint(
        op.f("ck_pack_slices_reserved"), "pack_slices", "reserved_micros >= 0", schema="nightrate"
    )
    op.add_column(
        "batches",
        sa.Column("must_promise", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        schema="nightrate",
    )
    reasons = ", ".join(f"'{reason}'" for reason in _REASONS)
    for table in ("batches", "decisions"):
        name = op.f(f"ck_{table}_reason")
        op.drop_constraint(name, table, schema="nightrate")
        op.create_check_constraint(name, table, f"reason IN ({reasons})", schema="nightrate")
