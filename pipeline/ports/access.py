"""Tenants, projects and API keys, as they pass between the API, the command line and the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipeline.domain.access import Role
from pipeline.domain.ids import ApiKeyId, ProjectId, TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose things somebody sees: what lies outside does not exist for them."""

    tenant_id: TenantId
    #: None: all of the tenant's projects.
    project_id: ProjectId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantView:
    """Who pays."""

    tenant_id: TenantId
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyView:
    """One API key, without its secret."""

    key_id: ApiKeyId
    tenant_id: TenantId
    #: None: all of the tenant's.
    project_id: ProjectId | None
    name: str
    roles: tuple[Role, ...]
    hint: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    #: To the minute or so.
    last_used_at: datetime | None

    @property
    def scope(self) -> Scope:
        """Return what the key lets its owner see."""
        return Scope(tenant_id=self.tenant_id, project_id=self.project_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySecret:
    """What is stored of a key's text."""

    key_id: ApiKeyId
    secret_digest: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDraft:
    """A key to be made."""

    key_id: ApiKeyId
    tenant_id: TenantId
    project_id: ProjectId | None
    name: str
    roles: tuple[Role, ...]
    secret_digest: str
    hint: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """What is looked up of a key that somebody shows."""

    key: KeyView
    secret_digest: str
    #: Where what they make goes: the key's project, or the tenant's default.
    home_project_id: ProjectId
    is_valid: bool
    #: Of the tenant, as it is stored.
    plan: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectView:
    """One project of a tenant's."""

    project_id: ProjectId
    tenant_id: TenantId
    name: str
    is_default: bool
    created_at: datetime
    archived_at: datetime | None
