"""Files in Postgres: recorded once, seen by their tenant, deleted when no live batch needs them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, TextClause, text

from pipeline.domain.errors import ConflictError, NotFoundError
from pipeline.domain.files import FilePurpose
from pipeline.domain.ids import FileId, ProjectId, TenantId
from pipeline.ports.access import Scope
from pipeline.ports.files import FileDraft, FileView
from storage.database import Database
from storage.scopes import scope_arguments, scoped

#: Nobody sees a file from the moment it expires, whenever the sweeper comes by.
IS_VISIBLE: Final = "deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now())"


#: The error file of a batch whose rows are to run again, until they are taken in.
_BEING_RETRIED: Final = """
    SELECT FROM batches AS retry JOIN batches AS retried ON retried.id = retry.retry_of
     WHERE retried.error_file_id = files.id AND retry.state = 'validating'
"""


def _scoped(statement: str) -> TextClause:
    seen = statement.replace("IN_SCOPE", f"IN_SCOPE AND {IS_VISIBLE}").replace("BEING_RETRIED", _BEING_RETRIED)
    return scoped(seen)


_ADD: Final = text("""
    INSERT INTO files (id, tenant_id, project_id, purpose, filename, size_bytes, sha256, object_key, expires_at)
    VALUES (:file_id, :tenant_id, :project_id, :purpose, :filename, :size_bytes, :sha256, :object_key,
            now() + CAST(:kept AS interval))
    ON CONFLICT DO NOTHING
""")
_SAME: Final = text("SELECT 1 FROM files WHERE id = :file_id AND object_key = :object_key AND sha256 = :sha256")
_ANY: Final = text("SELECT * FROM files WHERE id = :file_id")
_ONE: Final = _scoped("SELECT * FROM files WHERE id = :file_id AND IN_SCOPE")
_PAGES: Final = {
    order: _scoped(
        """
        SELECT * FROM files
         WHERE IN_SCOPE AND (CAST(:purpose AS text) IS NULL OR purpose = :purpose)
           AND (CAST(:after AS text) IS NULL OR (created_at, id) COMPARED (
                SELECT created_at, id FROM files AS last WHERE last.id = :after AND last.tenant_id = :tenant_id))
         ORDER BY created_at ORDERED, id ORDERED LIMIT :limit
    """.replace("COMPARED", comparison).replace("ORDERED", order)
    )
    for order, comparison in (("desc", "<"), ("asc", ">"))
}
_HOLD: Final = _scoped("SELECT 1 FROM files WHERE id = :file_id AND IN_SCOPE FOR UPDATE")
_CURSOR: Final = text("""
    SELECT 1 FROM files WHERE id = :after AND tenant_id = :tenant_id
       AND (CAST(:project_id AS text) IS NULL OR project_id = :project_id)
""")
_DELETE: Final = _scoped("""
    UPDATE files SET deleted_at = clock_timestamp() WHERE id = :file_id AND IN_SCOPE
       AND NOT EXISTS (SELECT FROM batches WHERE source_file_id = files.id
                        AND state IN ('validating', 'in_progress', 'finalizing', 'cancelling'))
       AND NOT EXISTS (BEING_RETRIED)
""")
EXPIRE: Final = text(
    """
    -- A file that a live batch is still to read stays, and goes once the batch has ended.
    UPDATE files SET deleted_at = clock_timestamp()
     WHERE expires_at <= now() AND deleted_at IS NULL
       AND NOT EXISTS (SELECT FROM batches WHERE source_file_id = files.id
                        AND state IN ('validating', 'in_progress', 'finalizing', 'cancelling'))
       AND NOT EXISTS (BEING_RETRIED)
""".replace("BEING_RETRIED", _BEING_RETRIED)
)
REMOVABLE: Final = text(
    """
    -- A batch that was made in the moment that its file expired is to find its input.
    SELECT id, object_key FROM files
     WHERE deleted_at < now() - CAST(:grace AS interval) AND removed_at IS NULL
       AND NOT EXISTS (SELECT FROM batches WHERE source_file_id = files.id
                        AND state IN ('validating', 'in_progress', 'finalizing', 'cancelling'))
       AND NOT EXISTS (BEING_RETRIED)
     ORDER BY deleted_at LIMIT :limit
""".replace("BEING_RETRIED", _BEING_RETRIED)
)
_REMOVED: Final = text("UPDATE files SET removed_at = clock_timestamp() WHERE id = :file_id AND deleted_at IS NOT NULL")


class FileRepository:
    """The files that users can name."""

    def __init__(self, database: Database) -> None:
        """Keep them in `database`."""
        self._database = database

    def add(self, draft: FileDraft) -> FileView:
        """Record an object as a file; repeating it changes nothing.

        Raises `ConflictError` where the id or the object is recorded as another file.
        """

        def work(connection: Connection) -> FileView:
            add_file(connection, draft)
            return _to_view(connection.execute(_ANY, {"file_id": draft.file_id}).one())

        return self._database.run(work)

    def get(self, file_id: str, scope: Scope | None = None) -> FileView:
        """Return a file that `scope` sees; without one, whatever is recorded. Raises `NotFoundError`."""
        statement, arguments = (_ANY, {}) if scope is None else (_ONE, scope_arguments(scope))
        row = self._database.run(
            lambda connection: connection.execute(statement, {"file_id": file_id, **arguments}).one_or_none()
        )
        if row is None:
            raise NotFoundError(f"there is no file {file_id}")
        return _to_view(row)

    def page(
        self,
        scope: Scope,
        *,
        limit: int,
        after: str | None = None,
        order: Literal["asc", "desc"] = "desc",
        purpose: FilePurpose | None = None,
    ) -> Sequence[FileView]:
        """Return up to `limit` files after the one named, by age; raises `NotFoundError` for an unknown one."""
        arguments = {"limit": limit, "after": after, "purpose": purpose, **scope_arguments(scope)}

        def work(connection: Connection) -> list[FileView]:
            # One that was deleted on the way from page to page still has its place.
            if after is not None and connection.execute(_CURSOR, arguments).one_or_none() is None:
                raise NotFoundError(f"there is no file {after}")
            return [_to_view(row) for row in connection.execute(_PAGES[order], arguments)]

        return self._database.run(work)

    def delete(self, file_id: str, scope: Scope) -> None:
        """Delete a file for good. Raises `NotFoundError`, and `ConflictError` while a batch is to read it."""
        arguments = {"file_id": file_id, **scope_arguments(scope)}

        def work(connection: Connection) -> None:
            # The lock that a batch made of the file meanwhile would wait for.
            if connection.execute(_HOLD, arguments).one_or_none() is None:
                raise NotFoundError(f"there is no file {file_id}")
            if not connection.execute(_DELETE, arguments).rowcount:
                raise ConflictError(f"File {file_id} is read by a batch that has not ended.")

        self._database.run(work)

    def expire(self) -> int:
        """Delete the files whose time is over; returns how many."""
        return self._database.run(lambda connection: connection.execute(EXPIRE).rowcount)

    def removable(self, *, grace: timedelta, limit: int) -> list[tuple[FileId, str]]:
        """Return deleted files whose objects may go (id, object key); downloads under way have had `grace`."""
        arguments = {"grace": grace, "limit": limit}
        rows = self._database.run(lambda connection: connection.execute(REMOVABLE, arguments).all())
        return [(FileId(row.id), row.object_key) for row in rows]

    def removed(self, file_id: FileId) -> None:
        """Record that a deleted file's object is gone."""
        self._database.run(lambda connection: connection.execute(_REMOVED, {"file_id": file_id}))


def add_file(connection: Connection, draft: FileDraft) -> None:
    """Record a file, in whatever transaction it belongs to; see `FileRepository.add`."""
    row = {
        "file_id": draft.file_id,
        "tenant_id": draft.tenant_id,
        "project_id": draft.project_id,
        "purpose": draft.purpose,
        "filename": draft.filename,
        "size_bytes": draft.stored.size_bytes,
        "sha256": draft.stored.sha256,
        "object_key": draft.stored.key,
        "kept": None if draft.kept_seconds is None else timedelta(seconds=draft.kept_seconds),
    }
    if not connection.execute(_ADD, row).rowcount and connection.execute(_SAME, row).one_or_none() is None:
        raise ConflictError(f"file {draft.file_id} or object {draft.stored.key} is recorded as another file")


def file_of(connection: Connection, file_id: str) -> FileView:
    """Return a recorded file, deleted or not."""
    return _to_view(connection.execute(_ANY, {"file_id": file_id}).one())


def _to_view(row: Row[Any]) -> FileView:
    return FileView(
        file_id=FileId(row.id),
        tenant_id=TenantId(row.tenant_id),
        project_id=ProjectId(row.project_id),
        purpose=FilePurpose(row.purpose),
        filename=row.filename,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        object_key=row.object_key,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
