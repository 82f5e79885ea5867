"""Uploads in Postgres: announced, filled part by part, completed once or given up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from pipeline.domain.errors import NotFoundError, RefusedError
from pipeline.domain.files import FilePurpose
from pipeline.domain.ids import ProjectId, TenantId, UploadId, UploadPartId
from pipeline.domain.limits import (
    UPLOAD_PART_BYTES_MAX,
    UPLOAD_PARTS_MAX,
    UPLOAD_SECONDS,
    UPLOAD_SURPLUS_FACTOR,
)
from pipeline.domain.uploads import UploadStatus
from pipeline.ports.access import Scope
from pipeline.ports.files import FileDraft
from pipeline.ports.uploads import UploadDraft, UploadPart, UploadView
from storage.database import Database
from storage.files import add_file, file_of
from storage.scopes import scope_arguments

_ADD: Final = text("""
    INSERT INTO uploads (id, tenant_id, project_id, status, purpose, filename, mime_type, size_bytes,
                         file_kept_seconds, expires_at)
    VALUES (:upload_id, :tenant_id, :project_id, 'pending', :purpose, :filename, :mime_type, :size_bytes,
            :file_kept_seconds, clock_timestamp() + :open_for)
    ON CONFLICT DO NOTHING
""")
# One whose time is over has expired from that moment on, whenever the sweeper comes by.
_ONE: Final = """
    SELECT *, CASE WHEN status = 'pending' AND expires_at <= now() THEN 'expired' ELSE status END AS stands
      FROM uploads WHERE id = :upload_id AND tenant_id = :tenant_id
       AND (CAST(:project_id AS text) IS NULL OR project_id = :project_id)
"""
_GET: Final = text(_ONE)
_HOLD: Final = text(f"{_ONE} FOR UPDATE")
SUMS: Final = text("""
    SELECT count(*) AS parts, coalesce(sum(size_bytes), 0) AS bytes FROM upload_parts WHERE upload_id = :upload_id
""")
_ADD_PART: Final = text("""
    INSERT INTO upload_parts (id, upload_id, object_key, size_bytes, sha256)
    VALUES (:part_id, :upload_id, :object_key, :size_bytes, :sha256) ON CONFLICT DO NOTHING
""")
_PART: Final = text("SELECT * FROM upload_parts WHERE id = :part_id AND upload_id = :upload_id")
_PARTS: Final = text("SELECT * FROM upload_parts WHERE upload_id = :upload_id AND id = ANY(:part_ids)")
_COMPLETE: Final = text("""
    UPDATE uploads SET status = 'completed', file_id = :file_id, ended_at = clock_timestamp()
     WHERE id = :upload_id AND status = 'pending'
""")
_CANCEL: Final = text("""
    UPDATE uploads SET status = 'cancelled', ended_at = clock_timestamp() WHERE id = :upload_id AND status = 'pending'
""")
EXPIRE: Final = text("""
    UPDATE uploads SET status = 'expired', ended_at = clock_timestamp() WHERE status = 'pending' AND expires_at <= now()
""")
CLEARABLE: Final = text("""
    SELECT uploads.*, files.object_key FROM uploads LEFT JOIN files ON files.id = uploads.file_id
     WHERE ended_at IS NOT NULL AND cleared_at IS NULL AND ended_at < now() - CAST(:grace AS interval)
     ORDER BY ended_at LIMIT :limit
""")
_FORGET_PARTS: Final = text("""
    DELETE FROM upload_parts USING uploads
     WHERE upload_id = :upload_id AND uploads.id = upload_id AND uploads.ended_at IS NOT NULL
""")
_CLEARED: Final = text("""
    UPDATE uploads SET cleared_at = clock_timestamp() WHERE id = :upload_id AND ended_at IS NOT NULL
""")
_OPEN_FOR: Final = timedelta(seconds=UPLOAD_SECONDS)


class UploadRepository:
    """Files on their way in."""

    def __init__(self, database: Database) -> None:
        """Keep them in `database`."""
        self._database = database

    def add(self, draft: UploadDraft) -> UploadView:
        """Record that a file is announced; repeating it changes nothing."""
        arguments = {
            "upload_id": draft.upload_id,
            "tenant_id": draft.tenant_id,
            "project_id": draft.project_id,
            "purpose": draft.purpose,
            "filename": draft.filename,
            "mime_type": draft.mime_type,
            "size_bytes": draft.size_bytes,
            "file_kept_seconds": draft.file_kept_seconds,
            "open_for": _OPEN_FOR,
        }

        def work(connection: Connection) -> UploadView:
            connection.execute(_ADD, arguments)
            return _to_view(connection, connection.execute(_GET, arguments).one())

        return self._database.run(work)

    def get(self, upload_id: str, scope: Scope) -> UploadView:
        """Return an upload, or raise `NotFoundError`."""
        return self._database.run(lambda connection: _to_view(connection, _row(connection, upload_id, scope)))

    def check_open(self, upload_id: str, scope: Scope, *, size_bytes: int = 0) -> UploadView:
        """Return an upload that takes a part of that size; raises `NotFoundError` and `RefusedError`."""

        def work(connection: Connection) -> UploadView:
            row = _row(connection, upload_id, scope)
            _check_room(connection, row, size_bytes)
            return _to_view(connection, row)

        return self._database.run(work)

    def add_part(self, part_id: UploadPartId, upload: UploadView, stored: tuple[str, int, str]) -> UploadPart:
        """Record a part (object key, bytes, SHA-256) that is stored; repeating it changes nothing.

        Raises:
            RefusedError: The upload takes no parts any more, or not so many.
        """
        scope = Scope(tenant_id=upload.tenant_id)
        key, size_bytes, sha256 = stored
        arguments: dict[str, object] = {"part_id": part_id, "upload_id": upload.upload_id, "object_key": key}
        arguments |= {"size_bytes": size_bytes, "sha256": sha256}

        def work(connection: Connection) -> UploadPart:
            row = _row(connection, upload.upload_id, scope, hold=True)
            part = connection.execute(_PART, arguments).one_or_none()
            if part is None:
                _check_room(connection, row, size_bytes)
                connection.execute(_ADD_PART, arguments)
                part = connection.execute(_PART, arguments).one()
            return _to_part(part)

        return self._database.run(work)

    def parts(self, upload: UploadView, part_ids: Sequence[str]) -> list[UploadPart]:
        """Return the parts in this order.

        Raises:
            RefusedError: One is not the upload's own, or is named twice, or they do not sum up to what was announced.
        """
        arguments: dict[str, object] = {"upload_id": upload.upload_id, "part_ids": list(part_ids)}
        rows = self._database.run(lambda connection: connection.execute(_PARTS, arguments).all())
        known = {row.id: _to_part(row) for row in rows}
        unknown = next((part_id for part_id in part_ids if part_id not in known), None)
        if unknown is not None:
            raise RefusedError(f"The upload has no part '{unknown}'.")
        if len(set(part_ids)) != len(part_ids):
            raise RefusedError("A part is named twice.")
        parts = [known[part_id] for part_id in part_ids]
        total = sum(part.size_bytes for part in parts)
        if total != upload.size_bytes:
            raise RefusedError(f"The parts have {total} bytes in all, but {upload.size_bytes} were announced.")
        return parts

    def complete(self, upload: UploadView, draft: FileDraft) -> UploadView:
        """Record the file that the parts make; an upload that is completed already keeps the file it has.

        Raises:
            RefusedError: It was cancelled or has expired.
        """
        scope = Scope(tenant_id=upload.tenant_id)

        def work(connection: Connection) -> UploadView:
            row = _row(connection, upload.upload_id, scope, hold=True)
            if row.stands != UploadStatus.COMPLETED:
                check_pending(UploadStatus(row.stands))
                add_file(connection, draft)
                connection.execute(_COMPLETE, {"upload_id": upload.upload_id, "file_id": draft.file_id})
            return _to_view(connection, _row(connection, upload.upload_id, scope))

        return self._database.run(work)

    def cancel(self, upload_id: str, scope: Scope) -> UploadView:
        """Give an upload up; doing it again changes nothing.

        Raises:
            NotFoundError: There is no such upload.
            RefusedError: It is completed or has expired.
        """

        def work(connection: Connection) -> UploadView:
            row = _row(connection, upload_id, scope, hold=True)
            if row.stands != UploadStatus.CANCELLED:
                check_pending(UploadStatus(row.stands))
                connection.execute(_CANCEL, {"upload_id": upload_id})
            return _to_view(connection, _row(connection, upload_id, scope))

        return self._database.run(work)

    def expire(self) -> int:
        """End the uploads whose time is over; returns how many."""
        return self._database.run(lambda connection: connection.execute(EXPIRE).rowcount)

    def clearable(self, *, grace: timedelta, limit: int) -> list[tuple[TenantId, UploadId, str | None]]:
        """Return ended uploads whose parts may go: tenant, upload, and the key of its file's object, which stays.

        What came in or was joined while the upload ended has had `grace` to be stored.
        """
        arguments = {"grace": grace, "limit": limit}
        rows = self._database.run(lambda connection: connection.execute(CLEARABLE, arguments).all())
        return [(TenantId(row.tenant_id), UploadId(row.id), row.object_key) for row in rows]

    def cleared(self, upload_id: UploadId) -> None:
        """Record that an ended upload's parts are gone."""

        def work(connection: Connection) -> None:
            connection.execute(_FORGET_PARTS, {"upload_id": upload_id})
            connection.execute(_CLEARED, {"upload_id": upload_id})

        self._database.run(work)


def check_pending(status: UploadStatus) -> None:
    """Raise `RefusedError` where an upload has ended."""
    if status is not UploadStatus.PENDING:
        raise RefusedError(f"The upload has the status '{status}', not 'pending'.")


def _row(connection: Connection, upload_id: str, scope: Scope, *, hold: bool = False) -> Row[Any]:
    arguments = {"upload_id": upload_id, **scope_arguments(scope)}
    row = connection.execute(_HOLD if hold else _GET, arguments).one_or_none()
    if row is None:
        raise NotFoundError(f"No upload found with id '{upload_id}'.")
    return row


def _check_room(connection: Connection, row: Row[Any], size_bytes: int) -> None:
    check_pending(UploadStatus(row.stands))
    sums = connection.execute(SUMS, {"upload_id": row.id}).one()
    bytes_max = UPLOAD_SURPLUS_FACTOR * row.size_bytes + UPLOAD_PART_BYTES_MAX
    if sums.parts >= UPLOAD_PARTS_MAX:
        raise RefusedError(f"The upload has {UPLOAD_PARTS_MAX} parts already.")
    if sums.bytes + size_bytes > bytes_max:
        raise RefusedError(f"The parts of this upload may have {bytes_max} bytes in all, sent again or not.")


def _to_view(connection: Connection, row: Row[Any]) -> UploadView:
    return UploadView(
        upload_id=UploadId(row.id),
        tenant_id=TenantId(row.tenant_id),
        project_id=ProjectId(row.project_id),
        filename=row.filename,
        purpose=FilePurpose(row.purpose),
        size_bytes=row.size_bytes,
        file_kept_seconds=row.file_kept_seconds,
        status=UploadStatus(row.stands),
        created_at=row.created_at,
        expires_at=row.expires_at,
        file=None if row.file_id is None else file_of(connection, row.file_id),
    )


def _to_part(row: Row[Any]) -> UploadPart:
    return UploadPart(
        part_id=UploadPartId(row.id),
        upload_id=UploadId(row.upload_id),
        object_key=row.object_key,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        created_at=row.created_at,
    )
