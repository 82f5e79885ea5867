"""Keep beside each slice of a pack what its rows may cost its batch, so that budgets hold while packs are in flight."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


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
