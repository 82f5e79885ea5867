"""The audit log, read; the tables write it themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from pipeline.domain.audit import AuditAction
from pipeline.domain.errors import NotFoundError
from pipeline.domain.ids import ProjectId, TenantId
from pipeline.ports.access import Scope
from pipeline.ports.audit import AuditEntry
from storage.database import Database
from storage.scopes import scope_arguments, scoped

_CURSOR: Final = scoped("SELECT at FROM audit_log WHERE id = :after AND IN_SCOPE")
_PAGE: Final = """
    SELECT * FROM audit_log
     WHERE tenant_id = :tenant_id AND OF_PROJECT
       AND (CAST(:after AS text) IS NULL OR (at, id) < (CAST(:after_at AS timestamptz), :after))
     ORDER BY at DESC, id DESC LIMIT :limit
"""
#: Two statements, so that each has its index: a project may have few entries among many of its tenant's.
PAGE: Final = text(_PAGE.replace("OF_PROJECT", "true"))
PAGE_OF_PROJECT: Final = text(_PAGE.replace("OF_PROJECT", "project_id = :project_id"))


class AuditRepository:
    """Who did what."""

    def __init__(self, database: Database) -> None:
        """Read it in `database`."""
        self._database = database

    def page(self, scope: Scope, *, limit: int, after: str | None = None) -> Sequence[AuditEntry]:
        """Return up to `limit` entries after the one named, the newest first; raises `NotFoundError`."""
        arguments = {"limit": limit, "after": after, "after_at": None, **scope_arguments(scope)}

        page = PAGE if scope.project_id is None else PAGE_OF_PROJECT

        def work(connection: Connection) -> list[AuditEntry]:
            if after is not None:
                arguments["after_at"] = connection.execute(_CURSOR, arguments).scalar_one_or_none()
                if arguments["after_at"] is None:
                    raise NotFoundError(f"there is no entry {after}")
            return [_to_entry(row) for row in connection.execute(page, arguments)]

        return self._database.run(work)


def _to_entry(row: Row[Any]) -> AuditEntry:
    return AuditEntry(
        entry_id=row.id,
        at=row.at,
        tenant_id=TenantId(row.tenant_id),
        project_id=None if row.project_id is None else ProjectId(row.project_id),
        actor=row.actor,
        request_id=row.request_id,
        action=AuditAction(row.action),
        object_id=row.object_id,
        details=row.details,
    )
