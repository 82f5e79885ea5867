"""Projects, keys and the audit log as JSON."""

from __future__ import annotations

from pipeline.entrypoints.http.documents import Document, seconds
from pipeline.ports.access import KeyView, ProjectView
from pipeline.ports.acting import COMMAND_LINE
from pipeline.ports.audit import AuditEntry

_KEY_PREFIX = "key_"


def project_document(view: ProjectView) -> Document:
    """Return a project."""
    return {
        "id": view.project_id,
        "object": "organization.project",
        "name": view.name,
        "created_at": seconds(view.created_at),
        "archived_at": seconds(view.archived_at),
        "status": "active" if view.archived_at is None else "archived",
        "is_default": view.is_default,
    }


def key_document(view: KeyView) -> Document:
    """Return a key, without what is secret of it."""
    return {
        "id": view.key_id,
        "object": "organization.api_key",
        "name": view.name,
        "redacted_value": view.hint,
        "roles": [str(role) for role in view.roles],
        "project_id": view.project_id,
        "created_at": seconds(view.created_at),
        "expires_at": seconds(view.expires_at),
        "revoked_at": seconds(view.revoked_at),
        "last_used_at": seconds(view.last_used_at),
    }


def audit_document(entry: AuditEntry) -> Document:
    """Return one entry of the audit log."""
    return {
        "id": entry.entry_id,
        "object": "organization.audit_log",
        "type": str(entry.action),
        "effective_at": seconds(entry.at),
        "actor": _actor(entry.actor),
        "project": None if entry.project_id is None else {"id": entry.project_id},
        "request_id": entry.request_id,
        str(entry.action): {"id": entry.object_id, "data": entry.details},
    }


def _actor(name: str) -> Document:
    if name.startswith(_KEY_PREFIX):
        return {"type": "api_key", "api_key": {"id": name}}
    return {"type": "cli" if name == COMMAND_LINE else "system", "api_key": None}
