"""Drop the rates that nothing reads."""

from __future__ import annotations

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # What a worker costs an hour is on its own row, and what things cost at a moment is in `prices`.
    op.drop_table("rates", schema="nightrate")
