"""Drop rates that nothing reads, call what providers send invoices, tell what was reused, and note downloads."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_VIEWS = Path(__file__).resolve().parents[2] / "views"


def upgrade() -> None:
    # What a worker costs an hour is on its own row, and what things cost at a moment is in `prices`.
    op.drop_table("rates", schema="nightrate")
    _rename_bills()
    _create_egress()
    for name in ("lines_v2", "utilisation_v2", "kinds_v2", "batches_v2"):
        op.execute(sa.text((_VIEWS / f"{name}.sql").read_text(encoding="utf-8").replace(":", r"\:")))


def _create_egress() -> None:
    op.create_table(
        "egress",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("file_id", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.CheckConstraint("size_bytes > 0", name=op.f("ck_egress_size_bytes")),
        sa.ForeignKeyConstraint(["file_id"], ["nightrate.files.id"], name=op.f("fk_egress_file_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_egress")),
        schema="nightrate",
    )
    op.create_index("ix_egress_sent_at", "egress", ["sent_at"], schema="nightrate")


def _rename_bills() -> None:
    op.rename_table("bills", "invoices", schema="nightrate")
    for name in ("pk_{}", "ck_{}_digest", "ck_{}_period", "ck_{}_lines"):
        renamed = f"{name.format('bills')} TO {name.format('invoices')}"
        op.execute(f"ALTER TABLE nightrate.invoices RENAME CONSTRAINT {renamed}")
    op.execute("ALTER TRIGGER bills_append_only ON nightrate.invoices RENAME TO invoices_append_only")
