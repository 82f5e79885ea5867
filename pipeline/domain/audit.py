"""What the audit log tells of, in OpenAI's words where it has them."""

from __future__ import annotations

from enum import StrEnum


class AuditAction(StrEnum):
    """Something that somebody did to what a tenant has."""

    ORGANIZATION_CREATED = "organization.created"
    ORGANIZATION_UPDATED = "organization.updated"
    PROJECT_CREATED = "project.created"
    PROJECT_UPDATED = "project.updated"
    PROJECT_ARCHIVED = "project.archived"
    API_KEY_CREATED = "api_key.created"
    API_KEY_UPDATED = "api_key.updated"
    #: Revoked; what is known of the key stays.
    API_KEY_DELETED = "api_key.deleted"
    FILE_CREATED = "file.created"
    FILE_DELETED = "file.deleted"
    BATCH_CREATED = "batch.created"
    BATCH_CHANGED = "batch.changed"
    BATCH_PAUSED = "batch.paused"
    BATCH_RESUMED = "batch.resumed"
    BATCH_CANCELLED = "batch.cancelled"
    WEBHOOK_CREATED = "webhook.created"
    WEBHOOK_UPDATED = "webhook.updated"
    WEBHOOK_DELETED = "webhook.deleted"
    BUDGET_CREATED = "budget.created"
    BUDGET_UPDATED = "budget.updated"
    BUDGET_DELETED = "budget.deleted"
    #: Something was added to it, for one period.
    BUDGET_TOPPED_UP = "budget.topped_up"
