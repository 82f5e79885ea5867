"""Files that users can name, as they pass between the API, the command line and the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipeline.domain.files import FilePurpose
from pipeline.domain.ids import DEFAULT_PROJECT, DEFAULT_TENANT, FileId, ProjectId, TenantId
from pipeline.ports.objects import StoredObject


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDraft:
    """A stored object that becomes a file."""

    file_id: FileId
    stored: StoredObject
    filename: str
    purpose: FilePurpose = FilePurpose.BATCH
    tenant_id: TenantId = DEFAULT_TENANT
    project_id: ProjectId = DEFAULT_PROJECT
    #: None: it stays until somebody deletes it.
    kept_seconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileView:
    """One file."""

    file_id: FileId
    tenant_id: TenantId
    project_id: ProjectId
    purpose: FilePurpose
    filename: str
    size_bytes: int
    sha256: str
    object_key: str
    created_at: datetime
    expires_at: datetime | None
