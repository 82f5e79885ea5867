"""Uploads as they pass between the API and the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipeline.domain.files import FilePurpose
from pipeline.domain.ids import ProjectId, TenantId, UploadId, UploadPartId
from pipeline.domain.uploads import UploadStatus
from pipeline.ports.files import FileView


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadDraft:
    """A file that is announced."""

    upload_id: UploadId
    tenant_id: TenantId
    project_id: ProjectId
    filename: str
    purpose: FilePurpose
    size_bytes: int
    mime_type: str
    #: From the file's creation; None: it stays until somebody deletes it.
    file_kept_seconds: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadView:
    """One upload."""

    upload_id: UploadId
    tenant_id: TenantId
    project_id: ProjectId
    filename: str
    purpose: FilePurpose
    #: Announced: what its parts must sum up to.
    size_bytes: int
    file_kept_seconds: int | None
    status: UploadStatus
    created_at: datetime
    #: Until when it takes parts.
    expires_at: datetime
    #: None until it is completed.
    file: FileView | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPart:
    """One part that has arrived."""

    part_id: UploadPartId
    upload_id: UploadId
    object_key: str
    size_bytes: int
    sha256: str
    created_at: datetime
