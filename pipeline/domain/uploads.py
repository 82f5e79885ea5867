"""Uploads: files that arrive in parts, in OpenAI's words."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum

from pipeline.domain.ids import FileId, UploadId


class UploadStatus(StrEnum):
    """Where an upload stands; all but the first are ends."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


def completed_file_id(upload_id: UploadId, part_ids: Sequence[str], md5: str | None) -> FileId:
    """Return the id of the file that these parts make in this order.

    The same completion again makes the same file, and another never stands in its way.
    """
    said = "\n".join([upload_id, *part_ids, md5 or ""])
    return FileId(f"file_{hashlib.sha256(said.encode()).hexdigest()[:32]}")
