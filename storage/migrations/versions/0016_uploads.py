"""Keep uploads: files that arrive in parts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_NOW = sa.text("clock_timestamp()")
_PURPOSES = (
    "assistants", "assistants_output", "batch", "batch_output", "evals", "fine-tune", "fine-tune-results",
    "user_data", "vision",
)  # fmt: skip


def upgrade() -> None:
    _create_uploads()
    _create_parts()


def _create_uploads() -> None:
    purposes = ", ".join(f"'{purpose}'" for purpose in _PURPOSES)
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("mime_type", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("file_kept_seconds", sa.BigInteger(), nullable=True),
        sa.Column("file_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cleared_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'completed', 'cancelled', 'expired')", name=op.f("ck_uploads_status")
        ),
        sa.CheckConstraint(f"purpose IN ({purposes})", name=op.f("ck_uploads_purpose")),
        sa.CheckConstraint("size_bytes > 0", name=op.f("ck_uploads_size")),
        sa.CheckConstraint("file_kept_seconds > 0", name=op.f("ck_uploads_file_kept")),
        sa.CheckConstraint("expires_at > created_at", name=op.f("ck_uploads_expires")),
        sa.CheckConstraint("(status = 'completed') = (file_id IS NOT NULL)", name=op.f("ck_uploads_completed")),
        sa.CheckConstraint("(status = 'pending') = (ended_at IS NULL)", name=op.f("ck_uploads_ended")),
        sa.CheckConstraint("cleared_at IS NULL OR ended_at IS NOT NULL", name=op.f("ck_uploads_cleared")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "project_id"],
            ["nightrate.projects.tenant_id", "nightrate.projects.id"],
            name=op.f("fk_uploads_tenant_id_project_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "file_id"],
            ["nightrate.files.tenant_id", "nightrate.files.id"],
            name=op.f("fk_uploads_tenant_id_file_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
        schema="nightrate",
    )
    op.create_index(
        "ix_uploads_expiring",
        "uploads",
        ["expires_at"],
        schema="nightrate",
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_uploads_clearable",
        "uploads",
        ["ended_at"],
        schema="nightrate",
        postgresql_where=sa.text("ended_at IS NOT NULL AND cleared_at IS NULL"),
    )


def _create_parts() -> None:
    op.create_table(
        "upload_parts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("upload_id", sa.String(), nullable=False),
        sa.Column("object_key", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.CheckConstraint("size_bytes > 0", name=op.f("ck_upload_parts_size")),
        sa.CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name=op.f("ck_upload_parts_sha256")),
        sa.ForeignKeyConstraint(["upload_id"], ["nightrate.uploads.id"], name=op.f("fk_upload_parts_upload_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upload_parts")),
        sa.UniqueConstraint("object_key", name=op.f("uq_upload_parts_object_key")),
        schema="nightrate",
    )
    op.create_index("ix_upload_parts_upload_id", "upload_parts", ["upload_id"], schema="nightrate")
