"""Keep projects, API keys, and what the wire needs of files and batches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_NOW = sa.text("clock_timestamp()")
_PURPOSES = (
    "assistants", "assistants_output", "batch", "batch_output", "evals", "fine-tune", "fine-tune-results",
    "user_data", "vision",
)  # fmt: skip


def upgrade() -> None:
    _create_projects()
    _create_keys()
    _change_files()
    _change_batches()


def _create_projects() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("is_default", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("NOT is_default OR archived_at IS NULL", name=op.f("ck_projects_default_stays")),
        sa.ForeignKeyConstraint(["tenant_id"], ["nightrate.tenants.id"], name=op.f("fk_projects_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("tenant_id", "id", name=op.f("uq_projects_tenant_id_id")),
        schema="nightrate",
    )
    op.create_index(
        "uq_projects_name",
        "projects",
        ["tenant_id", "name"],
        unique=True,
        schema="nightrate",
        postgresql_where=sa.text("archived_at IS NULL"),
    )
    op.create_index(
        "uq_projects_default",
        "projects",
        ["tenant_id"],
        unique=True,
        schema="nightrate",
        postgresql_where=sa.text("is_default"),
    )
    op.execute("""
        INSERT INTO nightrate.projects (id, tenant_id, name, is_default)
        SELECT CASE id WHEN 'tnt_default' THEN 'proj_default' ELSE 'proj_' || id END, id, 'default', true
          FROM nightrate.tenants
    """)


def _create_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("roles", postgresql.ARRAY(sa.String()), nullable=False),
        sa.Column("secret_digest", sa.String(), nullable=False),
        sa.Column("hint", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "cardinality(roles) > 0 AND roles <@ ARRAY['submit', 'read', 'operate', 'analyst', 'admin']::varchar[]",
            name=op.f("ck_api_keys_roles"),
        ),
        sa.CheckConstraint("secret_digest ~ '^[0-9a-f]{64}$'", name=op.f("ck_api_keys_secret")),
        sa.ForeignKeyConstraint(["tenant_id"], ["nightrate.tenants.id"], name=op.f("fk_api_keys_tenant_id")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "project_id"],
            ["nightrate.projects.tenant_id", "nightrate.projects.id"],
            name=op.f("fk_api_keys_tenant_id_project_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        schema="nightrate",
    )
    op.create_index("ix_api_keys_tenant_id", "api_keys", ["tenant_id"], schema="nightrate")


def _change_files() -> None:
    for column in (
        # What was there belongs to the tenant's default project.
        sa.Column("project_id", sa.String(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
    ):
        op.add_column("files", column, schema="nightrate")
    op.execute("""
        UPDATE nightrate.files SET project_id = projects.id FROM nightrate.projects
         WHERE projects.tenant_id = files.tenant_id AND projects.is_default
    """)
    op.alter_column("files", "project_id", nullable=False, schema="nightrate")
    op.create_foreign_key(
        op.f("fk_files_tenant_id_project_id"),
        "files",
        "projects",
        ["tenant_id", "project_id"],
        ["tenant_id", "id"],
        source_schema="nightrate",
        referent_schema="nightrate",
    )
    purposes = ", ".join(f"'{purpose}'" for purpose in _PURPOSES)
    op.drop_constraint(op.f("ck_files_purpose"), "files", schema="nightrate")
    op.create_check_constraint(op.f("ck_files_purpose"), "files", f"purpose IN ({purposes})", schema="nightrate")
    op.create_check_constraint(
        op.f("ck_files_removed"), "files", "removed_at IS NULL OR deleted_at IS NOT NULL", schema="nightrate"
    )
    op.create_index(
        "ix_files_listing",
        "files",
        ["tenant_id", sa.text("created_at DESC"), sa.text("id DESC")],
        schema="nightrate",
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_files_expiring",
        "files",
        ["expires_at"],
        schema="nightrate",
        postgresql_where=sa.text("expires_at IS NOT NULL AND deleted_at IS NULL"),
    )
    op.create_index(
        "ix_files_removable",
        "files",
        ["deleted_at"],
        schema="nightrate",
        postgresql_where=sa.text("deleted_at IS NOT NULL AND removed_at IS NULL"),
    )


def _change_batches() -> None:
    for column in (
        sa.Column("project_id", sa.String(), nullable=True),
        sa.Column("created_by", sa.String(), nullable=True),
        sa.Column("labels", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("priority", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("output_kept_seconds", sa.BigInteger(), nullable=True),
        # The file that `input_file_id` names, where there is one: batches are made for ids that name none, and fail.
        sa.Column("source_file_id", sa.String(), nullable=True),
    ):
        op.add_column("batches", column, schema="nightrate")
    op.execute("""
        UPDATE nightrate.batches SET project_id = projects.id, source_file_id = input_file_id FROM nightrate.projects
         WHERE projects.tenant_id = batches.tenant_id AND projects.is_default
    """)
    op.alter_column("batches", "project_id", nullable=False, schema="nightrate")
    op.drop_constraint(op.f("fk_batches_tenant_id_input_file_id"), "batches", schema="nightrate", type_="foreignkey")
    for columns, referent, name in (
        (["tenant_id", "project_id"], "projects", "fk_batches_tenant_id_project_id"),
        (["tenant_id", "source_file_id"], "files", "fk_batches_tenant_id_source_file_id"),
        (["created_by"], "api_keys", "fk_batches_created_by"),
    ):
        op.create_foreign_key(
            op.f(name),
            "batches",
            referent,
            columns,
            ["id"] if len(columns) == 1 else ["tenant_id", "id"],
            source_schema="nightrate",
            referent_schema="nightrate",
        )
    op.create_check_constraint(
        op.f("ck_batches_priority"), "batches", "priority BETWEEN -100 AND 100", schema="nightrate"
    )
    op.create_check_constraint(op.f("ck_batches_output_kept"), "batches", "output_kept_seconds > 0", schema="nightrate")
    op.create_index(
        "ix_batches_of_tenant",
        "batches",
        ["tenant_id", sa.text("created_at DESC"), sa.text("id DESC")],
        schema="nightrate",
    )
    op.create_index("ix_batches_source_file_id", "batches", ["source_file_id"], schema="nightrate")
