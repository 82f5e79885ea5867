"""Tenants in Postgres, and the projects that their work is divided into."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from pipeline.domain.errors import ConflictError, NotFoundError
from pipeline.domain.ids import ProjectId, TenantId
from pipeline.domain.names import checked_name
from pipeline.ports.access import ProjectView, Scope, TenantView
from storage.database import Database
from storage.scopes import scope_arguments, scoped

#: What everybody's first project is called.
DEFAULT_NAME: Final = "default"

_ADD_TENANT: Final = text("INSERT INTO tenants (id, name) VALUES (:tenant_id, :name) ON CONFLICT (id) DO NOTHING")
_TENANT: Final = text("SELECT * FROM tenants WHERE id = :tenant_id")
_TENANTS: Final = text("SELECT * FROM tenants ORDER BY created_at, id")
_RENAME_TENANT: Final = text("UPDATE tenants SET name = :name WHERE id = :tenant_id AND name <> :name")
_ADD_PROJECT: Final = text("""
    INSERT INTO projects (id, tenant_id, name, is_default) VALUES (:project_id, :tenant_id, :name, :is_default)
    ON CONFLICT DO NOTHING
""")
_PROJECT: Final = scoped("SELECT * FROM projects WHERE id = :id AND IN_SCOPE", project_column="id")
_PROJECTS: Final = scoped(
    """
    SELECT * FROM projects
     WHERE IN_SCOPE AND (archived_at IS NULL OR :with_archived)
       AND (CAST(:after AS text) IS NULL OR (created_at, id) > (
           SELECT created_at, id FROM projects AS last WHERE last.id = :after AND last.tenant_id = :tenant_id))
     ORDER BY created_at, id LIMIT CAST(:limit AS bigint)
""",
    project_column="id",
)
#: The lock that whatever is made in the project meanwhile waits for.
_HOLD: Final = scoped("SELECT * FROM projects WHERE id = :id AND IN_SCOPE FOR UPDATE", project_column="id")
_NAMESAKE: Final = text("""
    SELECT id FROM projects WHERE tenant_id = :tenant_id AND name = :name AND archived_at IS NULL AND id <> :id
""")
_RENAME: Final = text("UPDATE projects SET name = :name WHERE id = :id AND name <> :name")
_ARCHIVE: Final = text("UPDATE projects SET archived_at = clock_timestamp() WHERE id = :id AND archived_at IS NULL")
_LIVE: Final = text("SELECT id, tenant_id FROM projects WHERE id = ANY(:project_ids) AND archived_at IS NULL")
#: Names are given one after the other.
_TAKE_TURNS: Final = text("SELECT 1 FROM tenants WHERE id = :tenant_id FOR NO KEY UPDATE")


class TenantRepository:
    """The tenants of an installation, and their projects."""

    def __init__(self, database: Database) -> None:
        """Keep them in `database`."""
        self._database = database

    def create(self, tenant_id: TenantId, name: str, *, default_project_id: ProjectId) -> TenantView:
        """Record a tenant with its default project; repeating it changes nothing. Raises `UsageError`."""
        arguments = {"tenant_id": tenant_id, "name": checked_name(name, whose="tenant")}
        project = {
            "project_id": default_project_id,
            "tenant_id": tenant_id,
            "name": DEFAULT_NAME,
            "is_default": True,
        }

        def work(connection: Connection) -> TenantView:
            connection.execute(_ADD_TENANT, arguments)
            connection.execute(_ADD_PROJECT, project)
            return _tenant(connection, tenant_id)

        return self._database.run(work)

    def tenant(self, tenant_id: TenantId) -> TenantView:
        """Return a tenant, or raise `NotFoundError`."""
        return self._database.run(lambda connection: _tenant(connection, tenant_id))

    def tenants(self) -> Sequence[TenantView]:
        """Return all tenants, the oldest first."""
        return self._database.run(lambda connection: [_to_tenant(row) for row in connection.execute(_TENANTS)])

    def rename(self, tenant_id: TenantId, name: str) -> TenantView:
        """Give a tenant another name; raises `NotFoundError` and `UsageError`."""
        arguments = {"tenant_id": tenant_id, "name": checked_name(name, whose="tenant")}

        def work(connection: Connection) -> TenantView:
            connection.execute(_RENAME_TENANT, arguments)
            return _tenant(connection, tenant_id)

        return self._database.run(work)

    def create_project(self, project_id: ProjectId, tenant_id: TenantId, name: str) -> ProjectView:
        """Record a project; repeating it changes nothing.

        Raises `NotFoundError` for an unknown tenant, `UsageError`, and `ConflictError` where a live project of the
        tenant's has the name.
        """
        arguments = {
            "id": project_id,
            "project_id": project_id,
            "tenant_id": tenant_id,
            "name": checked_name(name, whose="project"),
            "is_default": False,
        }

        def work(connection: Connection) -> ProjectView:
            _tenant(connection, tenant_id)
            _check_free(connection, arguments)
            connection.execute(_ADD_PROJECT, arguments)
            return _project(connection, project_id, Scope(tenant_id=tenant_id))

        return self._database.run(work)

    def project(self, project_id: str, scope: Scope) -> ProjectView:
        """Return a project that `scope` sees, or raise `NotFoundError`."""
        return self._database.run(lambda connection: _project(connection, project_id, scope))

    def projects(
        self, scope: Scope, *, limit: int | None = None, after: str | None = None, with_archived: bool = False
    ) -> Sequence[ProjectView]:
        """Return the projects after the one named, the oldest first; raises `NotFoundError` for an unknown one."""
        arguments = {"limit": limit, "after": after, "with_archived": with_archived, **scope_arguments(scope)}

        def work(connection: Connection) -> list[ProjectView]:
            if after is not None:
                _project(connection, after, scope)
            return [_to_project(row) for row in connection.execute(_PROJECTS, arguments)]

        return self._database.run(work)

    def rename_project(self, project_id: str, scope: Scope, name: str) -> ProjectView:
        """Give a project another name.

        Raises `NotFoundError`, `UsageError`, and `ConflictError` where another has the name or it is archived.
        """
        arguments = {"id": project_id, "tenant_id": scope.tenant_id, "name": checked_name(name, whose="project")}

        def work(connection: Connection, project: ProjectView) -> None:
            if project.archived_at is not None:
                raise ConflictError(f"The project {project_id} is archived.")
            _check_free(connection, arguments)
            connection.execute(_RENAME, arguments)

        return self._change(project_id, scope, work)

    def archive_project(self, project_id: str, scope: Scope) -> ProjectView:
        """Close a project: its keys let nobody in, nothing new is made in it; doing it again changes nothing.

        Raises `NotFoundError`, and `ConflictError` for the default project.
        """

        def work(connection: Connection, project: ProjectView) -> None:
            if project.is_default:
                raise ConflictError("The default project cannot be archived: it is where work without a project goes.")
            connection.execute(_ARCHIVE, {"id": project_id})

        return self._change(project_id, scope, work)

    def live(self, project_ids: Iterable[ProjectId]) -> dict[ProjectId, TenantId]:
        """Return whose those of the projects are that exist and are not archived."""
        arguments = {"project_ids": list(project_ids)}
        rows = self._database.run(lambda connection: connection.execute(_LIVE, arguments).all())
        return {ProjectId(row.id): TenantId(row.tenant_id) for row in rows}

    def _change(self, project_id: str, scope: Scope, change: Callable[[Connection, ProjectView], None]) -> ProjectView:
        arguments = {"id": project_id, **scope_arguments(scope)}

        def work(connection: Connection) -> ProjectView:
            row = connection.execute(_HOLD, arguments).one_or_none()
            if row is None:
                raise NotFoundError(_UNKNOWN.format(project_id))
            change(connection, _to_project(row))
            return _project(connection, project_id, scope)

        return self._database.run(work)


_UNKNOWN: Final = "there is no project {}"


def _tenant(connection: Connection, tenant_id: TenantId) -> TenantView:
    row = connection.execute(_TENANT, {"tenant_id": tenant_id}).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no tenant {tenant_id}")
    return _to_tenant(row)


def _project(connection: Connection, project_id: str, scope: Scope) -> ProjectView:
    row = connection.execute(_PROJECT, {"id": project_id, **scope_arguments(scope)}).one_or_none()
    if row is None:
        raise NotFoundError(_UNKNOWN.format(project_id))
    return _to_project(row)


def _check_free(connection: Connection, arguments: dict[str, Any]) -> None:
    connection.execute(_TAKE_TURNS, arguments)
    namesake = connection.execute(_NAMESAKE, arguments).scalar_one_or_none()
    if namesake is not None:
        raise ConflictError(f"The project {namesake} has the name '{arguments['name']}' already.")


def _to_tenant(row: Row[Any]) -> TenantView:
    return TenantView(tenant_id=TenantId(row.id), name=row.name, created_at=row.created_at)


def _to_project(row: Row[Any]) -> ProjectView:
    return ProjectView(
        project_id=ProjectId(row.id),
        tenant_id=TenantId(row.tenant_id),
        name=row.name,
        is_default=row.is_default,
        created_at=row.created_at,
        archived_at=row.archived_at,
    )
