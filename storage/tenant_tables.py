"""The tables of who pays and who may come in, and of the files that users name."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, String, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.domain.files import FilePurpose
from pipeline.domain.names import NAME_CHARS_MAX
from storage.base import Base, one_of


def _has_name() -> CheckConstraint:
    return CheckConstraint(f"char_length(name) BETWEEN 1 AND {NAME_CHARS_MAX}", name="name")


class TenantRow(Base):
    """Who pays."""

    __tablename__ = "tenants"
    id: Mapped[str] = mapped_column(String, primary_key=True)
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: By name, of the price list in the settings.
    plan: Mapped[str] = mapped_column(server_default="free")
    __table_args__ = (CheckConstraint("plan ~ '^[a-z0-9][a-z0-9_-]{0,62}$'", name="plan"), _has_name())


class ProjectRow(Base):
    """A part of a tenant's work that keys can be confined to."""

    __tablename__ = "projects"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey(TenantRow.id))
    name: Mapped[str]
    #: Where the work of keys that are confined to none goes.
    is_default: Mapped[bool] = mapped_column(server_default="false")
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    archived_at: Mapped[datetime | None]
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        _has_name(),
        CheckConstraint("NOT is_default OR archived_at IS NULL", name="default_stays"),
        Index("uq_projects_name", "tenant_id", "name", unique=True, postgresql_where=text("archived_at IS NULL")),
        Index("uq_projects_default", "tenant_id", unique=True, postgresql_where=text("is_default")),
    )


class ApiKeyRow(Base):
    """What lets somebody in, for a tenant; of its secret only a digest is kept."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey(TenantRow.id))
    #: None: all of the tenant's.
    project_id: Mapped[str | None]
    name: Mapped[str]
    roles: Mapped[list[str]] = mapped_column(ARRAY(String))
    secret_digest: Mapped[str]
    #: What people tell keys apart by.
    hint: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    #: To the minute or so.
    last_used_at: Mapped[datetime | None]
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "project_id"], [ProjectRow.tenant_id, ProjectRow.id]),
        CheckConstraint(
            "cardinality(roles) > 0 AND roles <@ ARRAY['submit', 'read', 'operate', 'analyst', 'admin']::varchar[]",
            name="roles",
        ),
        _has_name(),
        CheckConstraint("secret_digest ~ '^[0-9a-f]{64}$'", name="secret"),
        Index("ix_api_keys_tenant_id", "tenant_id"),
    )


class FileRow(Base):
    """An immutable input or output object that a user can name."""

    __tablename__ = "files"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey(TenantRow.id))
    project_id: Mapped[str]
    purpose: Mapped[str]
    filename: Mapped[str]
    size_bytes: Mapped[int]
    sha256: Mapped[str]
    object_key: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: None: it stays until somebody deletes it.
    expires_at: Mapped[datetime | None]
    #: When it was deleted or ran out: nobody sees it from then on.
    deleted_at: Mapped[datetime | None]
    #: When its object went, too.
    removed_at: Mapped[datetime | None]
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        ForeignKeyConstraint(["tenant_id", "project_id"], [ProjectRow.tenant_id, ProjectRow.id]),
        one_of("purpose", FilePurpose),
        CheckConstraint("removed_at IS NULL OR deleted_at IS NOT NULL", name="removed"),
        Index(
            "ix_files_listing",
            "tenant_id",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index(
            "ix_files_expiring",
            "expires_at",
            postgresql_where=text("expires_at IS NOT NULL AND deleted_at IS NULL"),
        ),
        Index(
            "ix_files_removable", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL AND removed_at IS NULL")
        ),
        CheckConstraint("size_bytes >= 0", name="size"),
        CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),
    )
