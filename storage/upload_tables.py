"""The tables of uploads: files on their way in, part by part."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.domain.files import FilePurpose
from pipeline.domain.uploads import UploadStatus
from storage.base import Base, one_of
from storage.tenant_tables import FileRow, ProjectRow


class UploadRow(Base):
    """A file that was announced, and what became of it."""

    __tablename__ = "uploads"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    project_id: Mapped[str]
    status: Mapped[str]
    purpose: Mapped[str]
    filename: Mapped[str]
    mime_type: Mapped[str]
    #: As announced.
    size_bytes: Mapped[int]
    #: None: the file stays until somebody deletes it.
    file_kept_seconds: Mapped[int | None]
    #: None until it is completed.
    file_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    #: When the objects of its parts went.
    cleared_at: Mapped[datetime | None]
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "project_id"], [ProjectRow.tenant_id, ProjectRow.id]),
        ForeignKeyConstraint(["tenant_id", "file_id"], [FileRow.tenant_id, FileRow.id]),
        one_of("status", UploadStatus),
        one_of("purpose", FilePurpose),
        CheckConstraint("size_bytes > 0", name="size"),
        CheckConstraint("file_kept_seconds > 0", name="file_kept"),
        CheckConstraint("expires_at > created_at", name="expires"),
        CheckConstraint("(status = 'completed') = (file_id IS NOT NULL)", name="completed"),
        CheckConstraint("(status = 'pending') = (ended_at IS NULL)", name="ended"),
        CheckConstraint("cleared_at IS NULL OR ended_at IS NOT NULL", name="cleared"),
        Index("ix_uploads_expiring", "expires_at", postgresql_where=text("status = 'pending'")),
        Index("ix_uploads_clearable", "ended_at", postgresql_where=text("ended_at IS NOT NULL AND cleared_at IS NULL")),
    )


class UploadPartRow(Base):
    """A part of an upload that has arrived; which parts make the file, and in which order, its completion says."""

    __tablename__ = "upload_parts"
    id: Mapped[str] = mapped_column(primary_key=True)
    upload_id: Mapped[str] = mapped_column(ForeignKey(UploadRow.id))
    object_key: Mapped[str] = mapped_column(unique=True)
    size_bytes: Mapped[int]
    sha256: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    __table_args__ = (
        CheckConstraint("size_bytes > 0", name="size"),
        CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),
        Index("ix_upload_parts_upload_id", "upload_id"),
    )
