"""The shapes of what is asked of batches on their way and of those that have ended."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pipeline.domain.tiers import Tier
from pipeline.entrypoints.http.schemas import WINDOW, Amount, Instant, Pairs, Priority

Window = Annotated[str, StringConstraints(strict=True, pattern=WINDOW)]

_CHANGE: Final[dict[str, Any]] = {
    "not": {"required": ["completion_window", "expires_at"]},
    "example": {"tier": "urgent", "completion_window": "2h", "max_cost": "4.00"},
}


class ChangeBatch(BaseModel):
    """What is to change; what is not named stays as it is."""

    tier: Annotated[Tier, Field(description="For rows that are in no pack yet.")] = Tier.STANDARD
    priority: Annotated[Priority, Field(description="Among your batches of the tier, the highest go first.")] = 0
    completion_window: Annotated[Window, Field(description="A new deadline, counted from now.")] = "24h"
    expires_at: Annotated[Instant, Field(description="A new deadline, in Unix seconds.")] = 0
    max_cost: Annotated[Amount | None, Field(description="`null` removes it.")] = None
    hold_until: Annotated[Instant | None, Field(description="`null` removes it.")] = None
    labels: Annotated[Pairs | None, Field(description="Replace those it has.")] = None
    metadata: Annotated[Pairs | None, Field(description="Replaces what it has.")] = None

    # Defaults only say that a field may be left out: which were given is what counts.
    model_config = ConfigDict(extra="forbid", json_schema_extra=_CHANGE)


class RetryBatch(BaseModel):
    """How to run again what has no success; what is not named is as it was."""

    completion_window: Annotated[Window, Field(description="From 1m to 30d.")] | None = None
    tier: Tier | None = None
    max_cost: Annotated[
        Amount | None, Field(description="Left out or `null`: what the batch left of its own, if it had one.")
    ] = None

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"completion_window": "48h"}})
