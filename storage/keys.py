"""API keys in Postgres: made, looked up, used, revoked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from pipeline.domain.access import Role
from pipeline.domain.errors import NotFoundError
from pipeline.domain.ids import ApiKeyId, ProjectId, TenantId
from pipeline.ports.access import KeyDraft, KeyView, KnownKey
from storage.database import Database

_ADD: Final = text("""
    INSERT INTO api_keys (id, tenant_id, project_id, name, roles, secret_digest, hint, expires_at)
    VALUES (:key_id, :tenant_id, :project_id, :name, :roles, :secret_digest, :hint, :expires_at)
    ON CONFLICT (id) DO NOTHING
""")
_ONE: Final = text("SELECT * FROM api_keys WHERE id = :key_id AND tenant_id = :tenant_id")
_OF_TENANT: Final = text("SELECT * FROM api_keys WHERE tenant_id = :tenant_id ORDER BY created_at, id")
_KNOWN: Final = text("""
    SELECT api_keys.*, coalesce(api_keys.project_id, home.id) AS home_project_id,
           revoked_at IS NULL AND (api_keys.expires_at IS NULL OR api_keys.expires_at > now())
           AND confined.archived_at IS NULL AS is_valid,
           tenants.plan
      FROM api_keys
      JOIN tenants ON tenants.id = api_keys.tenant_id
      JOIN projects AS home ON home.tenant_id = api_keys.tenant_id AND home.is_default
      LEFT JOIN projects AS confined ON confined.id = api_keys.project_id
     WHERE api_keys.id = ANY(:key_ids)
""")
_USED: Final = text("""
    UPDATE api_keys SET last_used_at = now()
     WHERE id = ANY(:key_ids) AND (last_used_at IS NULL OR last_used_at < now() - interval '30 seconds')
""")
_REVOKE: Final = text("""
    UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE id = :key_id AND tenant_id = :tenant_id
""")
_TENANT: Final = text("SELECT 1 FROM tenants WHERE id = :tenant_id")
_PROJECT: Final = text(
    "SELECT 1 FROM projects WHERE id = :project_id AND tenant_id = :tenant_id AND archived_at IS NULL"
)


class KeyRepository:
    """The API keys of all tenants."""

    def __init__(self, database: Database) -> None:
        """Keep them in `database`."""
        self._database = database

    def add(self, draft: KeyDraft) -> KeyView:
        """Record a key; repeating it changes nothing. Raises `NotFoundError` for an unknown tenant or project."""
        arguments = {
            "key_id": draft.key_id,
            "tenant_id": draft.tenant_id,
            "project_id": draft.project_id,
            "name": draft.name,
            "roles": [str(role) for role in draft.roles],
            "secret_digest": draft.secret_digest,
            "hint": draft.hint,
            "expires_at": draft.expires_at,
        }

        def work(connection: Connection) -> KeyView:
            if connection.execute(_TENANT, arguments).one_or_none() is None:
                raise NotFoundError(f"there is no tenant {draft.tenant_id}")
            if draft.project_id is not None and connection.execute(_PROJECT, arguments).one_or_none() is None:
                raise NotFoundError(f"there is no project {draft.project_id}")
            connection.execute(_ADD, arguments)
            return _to_view(connection.execute(_ONE, arguments).one())

        return self._database.run(work)

    def of_tenant(self, tenant_id: TenantId) -> Sequence[KeyView]:
        """Return all keys of a tenant, revoked ones too, the oldest first."""
        arguments = {"tenant_id": tenant_id}
        return self._database.run(
            lambda connection: [_to_view(row) for row in connection.execute(_OF_TENANT, arguments)]
        )

    def known(self, key_ids: Iterable[ApiKeyId]) -> dict[ApiKeyId, KnownKey]:
        """Return what is known of the keys that exist."""
        arguments = {"key_ids": list(key_ids)}
        rows = self._database.run(lambda connection: connection.execute(_KNOWN, arguments).all())
        return {
            ApiKeyId(row.id): KnownKey(
                key=_to_view(row),
                secret_digest=row.secret_digest,
                home_project_id=ProjectId(row.home_project_id),
                is_valid=row.is_valid,
                plan=row.plan,
            )
            for row in rows
        }

    def used(self, key_ids: Iterable[ApiKeyId]) -> None:
        """Record that these keys were used just now."""
        arguments = {"key_ids": sorted(key_ids)}
        self._database.run(lambda connection: connection.execute(_USED, arguments))

    def revoke(self, key_id: str, tenant_id: TenantId) -> KeyView:
        """Let a key in no more; doing it again changes nothing. Raises `NotFoundError`."""
        arguments = {"key_id": key_id, "tenant_id": tenant_id}

        def work(connection: Connection) -> KeyView:
            connection.execute(_REVOKE, arguments)
            row = connection.execute(_ONE, arguments).one_or_none()
            if row is None:
                raise NotFoundError(f"there is no key {key_id}")
            return _to_view(row)

        return self._database.run(work)


def _to_view(row: Row[Any]) -> KeyView:
    return KeyView(
        key_id=ApiKeyId(row.id),
        tenant_id=TenantId(row.tenant_id),
        project_id=None if row.project_id is None else ProjectId(row.project_id),
        name=row.name,
        roles=tuple(Role(role) for role in row.roles),
        hint=row.hint,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )
