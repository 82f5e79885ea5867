"""The shapes of what is said of limits."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.domain.tiers import Tier


class Limit(BaseModel):
    """One limit of a plan, and where it stands."""

    model_config = ConfigDict(extra="allow")

    name: Literal[
        "requests_per_month",
        "tokens_per_month",
        "enqueued_tokens",
        "live_batches",
        "requests_per_batch",
        "reads_per_minute",
        "writes_per_minute",
        "uploads_per_minute",
    ]
    model: str | None = Field(
        description="The model that it is for; null: all together, or, of enqueued tokens, each that is not named."
    )
    limit: int | None = Field(description="Null: there is none.")
    burst: int | None = Field(description="Of a rate: how many may come at once after a rest.")
    used: int | None = Field(description="Null where it is not counted, or what counts it cannot be asked now.")
    remaining: int | None = Field(
        description="How much may come now; null where there is no limit, or it is not known."
    )
    resets_at: int | None = Field(
        description="When `used` is 0 again by itself, in Unix seconds; null: as batches end."
    )


class Limits(BaseModel):
    """A plan, and what is left of it."""

    model_config = ConfigDict(extra="allow")

    object: Literal["organization.limits"]
    organization_id: str
    plan: str
    tiers: list[Tier] = Field(description="Tiers that batches may have, the best first.")
    data: list[Limit]
