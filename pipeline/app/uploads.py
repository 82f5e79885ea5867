"""Uploads: parts stored as they come in, and joined to a file when the user says in which order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from pipeline.app.joining import Joined
from pipeline.app.stack import Stack
from pipeline.domain.errors import RefusedError
from pipeline.domain.ids import new_upload_part_id
from pipeline.domain.objects.keys import joined_key, upload_part_key
from pipeline.domain.uploads import UploadStatus, completed_file_id
from pipeline.ports.access import Scope
from pipeline.ports.files import FileDraft
from pipeline.ports.objects import StoredObject
from pipeline.ports.uploads import UploadPart, UploadView
from storage.uploads import UploadRepository, check_pending


def store_part(stack: Stack, uploads: UploadRepository, upload: UploadView, content: Path) -> UploadPart:
    """Store a part of an upload; raises `RefusedError` where the upload takes none any more."""
    # Looked at before anything is stored, so that what arrives too late is not there for the sweeper to miss.
    scope = Scope(tenant_id=upload.tenant_id)
    uploads.check_open(upload.upload_id, scope, size_bytes=content.stat().st_size)
    part_id = new_upload_part_id()
    stored = stack.objects.put(upload_part_key(upload.tenant_id, upload.upload_id, part_id), content)
    return uploads.add_part(part_id, upload, (stored.key, stored.size_bytes, stored.sha256))


def complete_upload(
    stack: Stack, uploads: UploadRepository, upload: UploadView, part_ids: Sequence[str], *, md5: str | None
) -> UploadView:
    """Join an upload's parts to its file; a repeated completion returns the same file.

    Nothing of it is in memory or on this disk as a whole. What died halfway is done again: the same parts in the same
    order are the same object.

    Raises:
        RefusedError: The upload has ended otherwise, the parts are not its own or have not the size that was
            announced, or their MD5 is another.
    """
    if upload.status is UploadStatus.COMPLETED:
        return upload
    check_pending(upload.status)
    parts = uploads.parts(upload, part_ids)
    file_id = completed_file_id(upload.upload_id, part_ids, md5)
    stored = _join(stack, joined_key(upload.tenant_id, upload.upload_id, file_id), parts, md5)
    draft = FileDraft(
        file_id=file_id,
        stored=stored,
        filename=upload.filename,
        purpose=upload.purpose,
        tenant_id=upload.tenant_id,
        project_id=upload.project_id,
        kept_seconds=upload.file_kept_seconds,
    )
    return uploads.complete(upload, draft)


def _join(stack: Stack, key: str, parts: Sequence[UploadPart], md5: str | None) -> StoredObject:
    joined = Joined(parts, stack.objects)
    with closing(joined.buffered()) as source:
        stored = stack.objects.put(key, source)
        found = joined.md5
        if md5 is not None and found != md5.lower():
            # Nobody knows of it yet, and under this key nothing else ever stands.
            stack.objects.delete(key)
            raise RefusedError(f"The parts have the MD5 {found}, not {md5.lower()}.")
    return stored
