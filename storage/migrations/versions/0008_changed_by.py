"""Mark each batch with the transaction that changed it last, so that a cycle reads only what has changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "batches",
        # The 64-bit identifier, which never wraps around, as a number: what existed before is older than anything.
        sa.Column("changed_by", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        schema="nightrate",
    )
    op.create_index("ix_batches_changed_by", "batches", ["changed_by"], schema="nightrate")
    op.execute("""
        CREATE FUNCTION nightrate.mark_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.changed_by := CAST(CAST(pg_current_xact_id() AS text) AS bigint);
            RETURN NEW;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER batches_mark_change BEFORE INSERT OR UPDATE ON nightrate.batches
        FOR EACH ROW EXECUTE FUNCTION nightrate.mark_change()
    """)
