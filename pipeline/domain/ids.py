"""Prefixed, time-ordered ids: `batch_0192…`, `pack_0192…`.

UUIDv7 (RFC 9562 §5.7) sorts by creation time, so primary-key indexes grow at one end and a listing
by id is a listing by age.
"""

from __future__ import annotations

import os
import time
import uuid
from typing import Final, NewType

TenantId = NewType("TenantId", str)
FileId = NewType("FileId", str)
BatchId = NewType("BatchId", str)
PackId = NewType("PackId", str)
ProjectId = NewType("ProjectId", str)
ApiKeyId = NewType("ApiKeyId", str)
PartId = NewType("PartId", str)
WorkerId = NewType("WorkerId", str)
RecurringId = NewType("RecurringId", str)
UploadId = NewType("UploadId", str)
UploadPartId = NewType("UploadPartId", str)
WebhookId = NewType("WebhookId", str)
EventId = NewType("EventId", str)
BudgetId = NewType("BudgetId", str)

DEFAULT_TENANT: Final = TenantId("tnt_default")
DEFAULT_PROJECT: Final = ProjectId("proj_default")

_VERSION_7: Final = 0x7
_VARIANT_RFC: Final = 0b10


def uuid7() -> uuid.UUID:
    """Return a UUIDv7: 48 bits of Unix milliseconds, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80
    value |= _VERSION_7 << 76
    value |= ((random >> 62) & 0xFFF) << 64
    value |= _VARIANT_RFC << 62
    value |= random & 0x3FFF_FFFF_FFFF_FFFF
    return uuid.UUID(int=value)


def _new(prefix: str) -> str:
    return f"{prefix}_{uuid7().hex}"


def new_file_id() -> FileId:
    """Return an id for an uploaded or written file."""
    return FileId(_new("file"))


def new_batch_id() -> BatchId:
    """Return an id for a submitted batch."""
    return BatchId(_new("batch"))


def new_tenant_id() -> TenantId:
    """Return an id for a tenant."""
    return TenantId(_new("tnt"))


def new_project_id() -> ProjectId:
    """Return an id for a project of a tenant's."""
    return ProjectId(_new("proj"))


def new_key_id() -> ApiKeyId:
    """Return an id for an API key."""
    return ApiKeyId(_new("key"))


def new_pack_id() -> PackId:
    """Return an id for a pack."""
    return PackId(_new("pack"))


def new_part_id() -> PartId:
    """Return an id for a part."""
    return PartId(_new("part"))


def new_worker_id() -> WorkerId:
    """Return an id for a worker process."""
    return WorkerId(_new("wrk"))


def new_upload_id() -> UploadId:
    """Return an id for an upload in parts."""
    return UploadId(_new("upload"))


def new_upload_part_id() -> UploadPartId:
    """Return an id for a part of an upload."""
    return UploadPartId(_new("upart"))


def new_recurring_id() -> RecurringId:
    """Return an id for a recurring batch."""
    return RecurringId(_new("rec"))


def new_webhook_id() -> WebhookId:
    """Return an id for a webhook."""
    return WebhookId(_new("whk"))


def new_event_id() -> EventId:
    """Return an id for an event that webhooks tell."""
    return EventId(_new("evt"))


def new_budget_id() -> BudgetId:
    """Return an id for a budget."""
    return BudgetId(_new("budget"))


def new_download_id() -> str:
    """Return a new id for a download."""
    return _new("dl")


def new_top_up_id() -> str:
    """Return an id for what is added to a budget."""
    return _new("topup")
