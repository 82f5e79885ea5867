"""Webhooks as they pass between the API, the command line, the sender and the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from pipeline.domain.ids import BatchId, EventId, ProjectId, TenantId, WebhookId
from pipeline.domain.webhooks import DeliveryState, DisabledReason, EventType


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDraft:
    """A webhook to be made."""

    webhook_id: WebhookId
    tenant_id: TenantId
    #: None: for all of the tenant's.
    project_id: ProjectId | None
    url: str
    description: str
    event_types: tuple[EventType, ...]
    #: In no log and no traceback.
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookChange:
    """What is to be changed of a webhook; None: it stays."""

    url: str | None = None
    description: str | None = None
    event_types: tuple[EventType, ...] | None = None
    is_enabled: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookView:
    """One webhook, without its secrets."""

    webhook_id: WebhookId
    tenant_id: TenantId
    #: None: for all of the tenant's.
    project_id: ProjectId | None
    url: str
    description: str
    event_types: tuple[EventType, ...]
    created_at: datetime
    disabled_at: datetime | None
    disabled_reason: DisabledReason | None
    #: The first of the tries that failed since one last succeeded.
    failing_since: datetime | None
    #: Until when the secret before this one signs, too.
    previous_secret_until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryView:
    """How the telling of one event to one webhook goes."""

    event_id: EventId
    webhook_id: WebhookId
    event_type: EventType
    batch_id: BatchId | None
    #: Of the event.
    created_at: datetime
    state: DeliveryState
    #: Since it was last asked for.
    tries: int
    #: None: it ended.
    next_at: datetime | None
    tried_at: datetime | None
    delivered_at: datetime | None
    gave_up_at: datetime | None
    #: What the receiver answered last; None: nothing.
    last_status: int | None
    #: Why the last try failed.
    last_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DueDelivery:
    """One try to make, claimed."""

    event_id: EventId
    webhook_id: WebhookId
    claim_token: int
    #: Tries before this one.
    tries: int
    url: str
    #: All that sign now, the current one first.
    secrets: tuple[str, ...] = field(repr=False)
    event_type: EventType
    created_at: datetime
    data: dict[str, object]
    failing_since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TryOutcome:
    """What came of one try."""

    at: datetime
    #: None: no answer.
    status: int | None
    #: None: it arrived.
    error: str | None
    #: When to try again; None: it arrived, or never.
    next_at: datetime | None
    #: The webhook is to be sent nothing more.
    disable: DisabledReason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """What is sent."""

    url: str
    event_id: EventId
    body: bytes
    secrets: tuple[str, ...] = field(repr=False)
    sent_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """What a receiver answered, or why it did not."""

    status: int | None
    error: str | None
