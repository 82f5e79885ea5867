"""The shapes of what is asked of and told about webhooks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pipeline.domain.limits import (
    WEBHOOK_DESCRIPTION_CHARS_MAX,
    WEBHOOK_OVERLAP_SECONDS_MAX,
    WEBHOOK_URL_CHARS_MAX,
)
from pipeline.domain.webhooks import URL_PATTERN, DeliveryState, DisabledReason, EventType
from pipeline.entrypoints.http.schemas import WHOLE, Instant

_PLAIN = r"^[^\x00]*$"

SubscribableType = Literal[
    EventType.BATCH_IN_PROGRESS,
    EventType.BATCH_PROGRESS,
    EventType.BATCH_COMPLETED,
    EventType.BATCH_FAILED,
    EventType.BATCH_EXPIRED,
    EventType.BATCH_CANCELLED,
    EventType.BUDGET_ALERT,
    EventType.BUDGET_REACHED,
]
Url = Annotated[
    str,
    StringConstraints(strict=True, max_length=WEBHOOK_URL_CHARS_MAX, pattern=URL_PATTERN),
    Field(
        description="Where it is sent: https, a host with a public address, port 443, unless the installation says more."
    ),
]
Description = Annotated[str, StringConstraints(strict=True, max_length=WEBHOOK_DESCRIPTION_CHARS_MAX, pattern=_PLAIN)]
EventTypes = Annotated[list[SubscribableType], Field(min_length=1, max_length=20)]
Id = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=128, pattern=_PLAIN)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CreateWebhook(_Asked):
    """A webhook to be made."""

    url: Url
    description: Description = ""
    event_types: Annotated[EventTypes, Field(description="What it is told; as it comes, how batches end.")] = [
        EventType.BATCH_COMPLETED,
        EventType.BATCH_FAILED,
        EventType.BATCH_EXPIRED,
        EventType.BATCH_CANCELLED,
    ]
    project_id: Annotated[
        Id | None,
        Field(description="Of which project's batches; as it comes, of the key's project, or of all if it has none."),
    ] = None

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "url": "https://hooks.example.com/nightrate",
                "description": "nightly pipeline",
                "event_types": ["batch.completed", "batch.failed"],
            }
        },
    )


class ChangeWebhook(_Asked):
    """What is to be changed; what is left out stays."""

    url: Url | None = None
    description: Description | None = None
    event_types: EventTypes | None = None
    enabled: Annotated[
        bool | None, Field(strict=True, description="Disabled, it is sent nothing; events are kept for redelivery.")
    ] = None

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"enabled": True}})


class RotateSecret(_Asked):
    """How the secret is to be changed."""

    overlap_seconds: Annotated[
        int,
        Field(
            strict=True,
            ge=0,
            le=WEBHOOK_OVERLAP_SECONDS_MAX,
            description="How long the secret before signs, too: in what time receivers learn of the new one.",
        ),
        WHOLE,
    ] = 86_400


class Redeliver(_Asked):
    """What to tell again: one event, whatever came of it, or all since an instant that have not arrived."""

    event_id: Id = ""
    since: Instant = 0

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"minProperties": 1, "maxProperties": 1, "example": {"since": 1_787_000_000}},
    )


class Webhook(BaseModel):
    """A webhook, without its secret."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["webhook"]
    url: str
    description: str
    event_types: list[EventType]
    project_id: str | None
    enabled: bool
    created_at: int
    disabled_at: int | None
    disabled_reason: DisabledReason | None
    failing_since: int | None
    previous_secret_until: int | None


class WebhookWithSecret(Webhook):
    """A webhook with its secret, which is told this once."""

    secret: str


class WebhookList(BaseModel):
    """A page of webhooks."""

    object: Literal["list"]
    data: list[Webhook]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedWebhook(BaseModel):
    """What was removed."""

    id: str
    object: Literal["webhook"]
    deleted: bool


class Delivery(BaseModel):
    """How the telling of one event to one webhook goes; its id is the event's."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["webhook.delivery"]
    webhook_id: str
    type: EventType
    batch_id: str | None
    created_at: int
    status: DeliveryState
    tries: int
    next_at: int | None
    tried_at: int | None
    delivered_at: int | None
    gave_up_at: int | None
    last_status: int | None
    last_error: str | None


class DeliveryList(BaseModel):
    """A page of deliveries."""

    object: Literal["list"]
    data: list[Delivery]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Redelivered(BaseModel):
    """How many events will be told again."""

    object: Literal["webhook.redelivery"]
    events: int
