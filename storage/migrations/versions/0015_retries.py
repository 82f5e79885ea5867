"""Keep which batch another retries, and find a tenant's batches by state."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("retry_of", sa.String(), nullable=True), schema="nightrate")
    op.create_foreign_key(
        op.f("fk_batches_retry_of"),
        "batches",
        "batches",
        ["retry_of"],
        ["id"],
        source_schema="nightrate",
        referent_schema="nightrate",
    )
    op.create_index(
        "ix_batches_retry_of",
        "batches",
        ["retry_of"],
        schema="nightrate",
        postgresql_where=sa.text("retry_of IS NOT NULL"),
    )
    op.create_index(
        "ix_batches_of_tenant_by_state",
        "batches",
        ["tenant_id", "state", sa.text("created_at DESC"), sa.text("id DESC")],
        schema="nightrate",
    )
