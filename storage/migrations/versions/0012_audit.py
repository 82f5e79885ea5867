"""Keep an audit log that the tables write themselves, check names, and keep archived projects closed."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_ACTIONS = (
    "organization.created", "organization.updated", "project.created", "project.updated", "project.archived",
    "api_key.created", "api_key.updated", "api_key.deleted", "file.created", "file.deleted",
    "batch.created", "batch.changed", "batch.paused", "batch.resumed", "batch.cancelled",
)  # fmt: skip


def upgrade() -> None:
    actions = ", ".join(f"'{action}'" for action in _ACTIONS)
    op.create_table(
        "audit_log",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=True),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("object_id", sa.String(), nullable=False),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint(f"action IN ({actions})", name=op.f("ck_audit_log_action")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
        schema="nightrate",
    )
    op.create_index(
        "ix_audit_log_listing",
        "audit_log",
        ["tenant_id", sa.text("at DESC"), sa.text("id DESC")],
        schema="nightrate",
    )
    op.create_index(
        "ix_audit_log_of_project",
        "audit_log",
        ["tenant_id", "project_id", sa.text("at DESC"), sa.text("id DESC")],
        schema="nightrate",
    )
    for table in ("tenants", "projects", "api_keys"):
        op.create_check_constraint(
            op.f(f"ck_{table}_name"), table, "char_length(name) BETWEEN 1 AND 100", schema="nightrate"
        )
    op.execute(sa.text(Path(__file__).with_name("0012_audit.sql").read_text(encoding="utf-8")))
