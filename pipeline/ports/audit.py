"""Entries of the audit log, as they pass between the API, the command line and the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pipeline.domain.audit import AuditAction
from pipeline.domain.ids import ProjectId, TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One thing that somebody did."""

    entry_id: str
    at: datetime
    tenant_id: TenantId
    #: None: it is about all of the tenant's.
    project_id: ProjectId | None
    #: The id of a key, `cli`, or `system`.
    actor: str
    request_id: str | None
    action: AuditAction
    object_id: str
    details: Mapping[str, object]
