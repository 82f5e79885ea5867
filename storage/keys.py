"""API keys in Postgres: made, looked up, used, revoked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from pipeline.domain.access import Role
from pipeline.domain.errors import ConflictError, NotFoundError
from pipeline.domain.ids import ApiKeyId, ProjectId, TenantId
from pipeline.ports.access import KeyDraft, KeySecret, KeyView, KnownKey, Scope
from storage.database import Database
from storage.scopes import scope_arguments, scoped

_ADD: Final = text("""
    INSERT INTO api_keys (id, tenant_id, project_id, name, roles, secret_digest, hint, expires_at)
    VALUES (:key_id, :tenant_id, :project_id, :name, :roles, :secret_digest, :hint, :expires_at)
    ON CONFLICT (id) DO NOTHING
""")
#: Whoever is confined to a project sees the keys that are confined to it.
_ADDED: Final = text("SELECT * FROM api_keys WHERE id = :key_id")
_ONE: Final = scoped("SELECT * FROM api_keys WHERE id = :key_id AND IN_SCOPE")
_PAGE: Final = scoped("""
    SELECT * FROM api_keys
     WHERE IN_SCOPE AND (CAST(:after AS text) IS NULL OR (created_at, id) > (
           SELECT created_at, id FROM api_keys AS last WHERE last.id = :after AND last.tenant_id = :tenant_id))
     ORDER BY created_at, id LIMIT CAST(:limit AS bigint)
""")
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
_REVOKE: Final = scoped("""
    UPDATE api_keys SET revoked_at = clock_timestamp() WHERE id = :key_id AND IN_SCOPE AND revoked_at IS NULL
""")
_HOLD: Final = scoped("""
    SELECT *, expires_at <= now() AS is_expired FROM api_keys
     WHERE id = :key_id AND IN_SCOPE FOR NO KEY UPDATE
""")
#: It lives as long as the one that it stands in for did.
_SUCCEED: Final = text("""
    INSERT INTO api_keys (id, tenant_id, project_id, name, roles, secret_digest, hint, expires_at)
    SELECT :new_id, tenant_id, project_id, name, roles, :secret_digest, :hint, now() + (expires_at - created_at)
      FROM api_keys WHERE id = :key_id
""")
_RUN_OUT: Final = text("""
    UPDATE api_keys SET expires_at = least(expires_at, now() + CAST(:overlap AS interval)) WHERE id = :key_id
""")
_TENANT: Final = text("SELECT 1 FROM tenants WHERE id = :tenant_id")
_PROJECT: Final = text(
    "SELECT 1 FROM projects WHERE id = :project_id AND tenant_id = :tenant_id AND archived_at IS NULL"
)


_UNKNOWN: Final = "there is no key {}"


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
            return _to_view(connection.execute(_ADDED, arguments).one())

        return self._database.run(work)

    def get(self, key_id: str, scope: Scope) -> KeyView:
        """Return a key that `scope` sees, or raise `NotFoundError`."""
        return self._database.run(lambda connection: _one(connection, key_id, scope))

    def page(self, scope: Scope, *, limit: int | None = None, after: str | None = None) -> Sequence[KeyView]:
        """Return the keys after the one named, revoked ones too, the oldest first; raises `NotFoundError`."""
        arguments = {"limit": limit, "after": after, **scope_arguments(scope)}

        def work(connection: Connection) -> list[KeyView]:
            if after is not None:
                _one(connection, after, scope)
            return [_to_view(row) for row in connection.execute(_PAGE, arguments)]

        return self._database.run(work)

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

    def revoke(self, key_id: str, scope: Scope) -> KeyView:
        """Let a key in no more; doing it again changes nothing. Raises `NotFoundError`."""
        arguments = {"key_id": key_id, **scope_arguments(scope)}

        def work(connection: Connection) -> KeyView:
            connection.execute(_REVOKE, arguments)
            return _one(connection, key_id, scope)

        return self._database.run(work)

    def rotate(self, key_id: str, scope: Scope, *, successor: KeySecret, overlap: timedelta) -> tuple[KeyView, KeyView]:
        """Make a key with the same terms, and let the old one in no longer than `overlap` from now.

        Returns the new one and the old one; repeating it with the same successor changes nothing. Raises
        `NotFoundError`, and `ConflictError` where the old one lets nobody in any more.
        """
        arguments = {
            "key_id": key_id,
            "new_id": successor.key_id,
            "secret_digest": successor.secret_digest,
            "hint": successor.hint,
            "overlap": overlap,
            **scope_arguments(scope),
        }

        def work(connection: Connection) -> tuple[KeyView, KeyView]:
            old = connection.execute(_HOLD, arguments).one_or_none()
            if old is None:
                raise NotFoundError(_UNKNOWN.format(key_id))
            made = connection.execute(_ADDED, {"key_id": successor.key_id}).one_or_none()
            if made is None:
                if old.revoked_at is not None or old.is_expired:
                    standing = "is revoked" if old.revoked_at is not None else "has expired"
                    raise ConflictError(f"The key {key_id} {standing}; make a new one instead.")
                connection.execute(_SUCCEED, arguments)
                connection.execute(_RUN_OUT, arguments)
            return _one(connection, successor.key_id, scope), _one(connection, key_id, scope)

        return self._database.run(work)


def _one(connection: Connection, key_id: str, scope: Scope) -> KeyView:
    row = connection.execute(_ONE, {"key_id": key_id, **scope_arguments(scope)}).one_or_none()
    if row is None:
        raise NotFoundError(_UNKNOWN.format(key_id))
    return _to_view(row)


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
