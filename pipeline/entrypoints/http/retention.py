"""What every way of making a file checks: its name, and how long it is kept."""

from __future__ import annotations

from typing import Final

from pipeline.config import Settings
from pipeline.domain.files import FilePurpose
from pipeline.entrypoints.http.errors import ApiError
from pipeline.entrypoints.http.schemas import ExpiresAfter

_SUFFIX: Final = ".jsonl"
_SECONDS_PER_DAY: Final = 86_400


def check_name(filename: str, purpose: FilePurpose) -> None:
    """Raise `ApiError` where a file of that name cannot be for that purpose."""
    if purpose is FilePurpose.BATCH and not filename.endswith(_SUFFIX):
        raise ApiError(400, "Invalid file format for Batch API. Must be .jsonl")


def kept_seconds(settings: Settings, purpose: FilePurpose, asked: ExpiresAfter | None) -> int | None:
    """Return how long a file is kept; None: until somebody deletes it."""
    if asked is not None:
        return asked.seconds
    days = settings.file_retention_days
    return days * _SECONDS_PER_DAY if days and purpose is FilePurpose.BATCH else None
