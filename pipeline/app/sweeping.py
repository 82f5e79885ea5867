"""Sweeping: files whose time is over, objects that nobody can reach any more, uploads that have ended."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import Final

from pipeline.app.stack import Stack
from pipeline.domain.objects.keys import upload_prefix
from storage.uploads import UploadRepository

_LOG = logging.getLogger(__name__)

EVERY_SECONDS: Final = 60.0
#: Downloads, links to objects and parts under way have this long.
_GRACE: Final = timedelta(hours=1)
#: Files, and uploads, between two looks at whether there is something else to do.
_FILES_AT_ONCE: Final = 50
_UPLOADS_AT_ONCE: Final = 10


class Sweeper:
    """Removes what is over. Each step can be repeated, by several at once, and is recorded after it was done."""

    def __init__(self, stack: Stack, *, grace: timedelta = _GRACE, every_seconds: float = 0.0) -> None:
        """Sweep `stack`, not sooner than `every_seconds` after the last time that there was nothing to do."""
        self._stack = stack
        self._uploads = UploadRepository(stack.database)
        self._grace = grace
        self._every_seconds = every_seconds
        self._sweep_at = time.monotonic()

    def run_once(self) -> bool:
        """Remove some of what is over; True when there may be more."""
        if time.monotonic() < self._sweep_at:
            return False
        expired, ended = self._stack.files.expire(), self._uploads.expire()
        removed, cleared = self._remove_files(), self._clear_uploads()
        if expired or ended or removed or cleared:
            counts = {"files_expired": expired, "uploads_expired": ended}
            _LOG.info("swept", extra={**counts, "files_removed": removed, "uploads_cleared": cleared})
        has_more = removed == _FILES_AT_ONCE or cleared == _UPLOADS_AT_ONCE
        if not has_more:
            self._sweep_at = time.monotonic() + self._every_seconds
        return has_more

    def _remove_files(self) -> int:
        files = self._stack.files.removable(grace=self._grace, limit=_FILES_AT_ONCE)
        for file_id, object_key in files:
            self._stack.objects.delete(object_key)
            self._stack.files.removed(file_id)
        return len(files)

    def _clear_uploads(self) -> int:
        uploads = self._uploads.clearable(grace=self._grace, limit=_UPLOADS_AT_ONCE)
        for tenant_id, upload_id, kept in uploads:
            # By what lies there: a part whose sender died is in no table.
            for key in list(self._stack.objects.list(upload_prefix(tenant_id, upload_id))):
                if key != kept:
                    self._stack.objects.delete(key)
            self._uploads.cleared(upload_id)
        return len(uploads)
