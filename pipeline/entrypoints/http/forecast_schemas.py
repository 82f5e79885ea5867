"""The shapes of forecasts: quotes and explanations."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.domain.tiers import Tier


class _Answered(BaseModel):
    model_config = ConfigDict(extra="allow")


class Rows(_Answered):
    """Rows of a file."""

    total: int
    duplicate: int
    refused: int


class Tokens(_Answered):
    """Tokens of all distinct rows: what rows like these took, and the most that is allowed for."""

    input: int
    output_expected: int
    output_most: int


class CostRange(_Answered):
    """Money, from the 5th to the 95th percentile."""

    low: str
    high: str
    currency: str


class FinishRange(_Answered):
    """Seconds from now, the 5th, 50th and 95th percentile."""

    low: float
    median: float
    high: float


class TierOffer(_Answered):
    """What one tier offers; nulls where no live worker serves the model to it."""

    tier: Tier
    variant: str | None
    charge: Annotated[CostRange | None, Field(description="What the tenant would pay.")]
    cost: Annotated[CostRange | None, Field(description="The same, by its earlier name.")]
    finish_seconds: FinishRange | None
    chances: dict[str, float]
    can_promise: bool
    shortest_window_seconds: int | None
    is_measured: bool


class Quote(_Answered):
    """What would be charged for a batch and when it would be done, tier by tier, as things stand now."""

    object: Literal["batch.quote"]
    input_file_id: str
    endpoint: str
    completion_window: str
    model: str
    rows: Rows
    tokens: Tokens
    tiers: list[TierOffer]


class ChangeTold(_Answered):
    """Something that would change where the batch stands."""

    sentence: str


class PastTold(_Answered):
    """A reason that the batch had, and how long."""

    what: str
    sentence: str
    since: str
    until: str | None


class Explanation(_Answered):
    """Why a batch stands where it stands; instants in ISO 8601."""

    object: Literal["batch.explanation"]
    id: str
    now: str
    state: str
    reason: str
    sentence: str
    since: str | None
    for_seconds: float | None
    changes: list[ChangeTold]
    notes: dict[str, str]
    figures: dict[str, Any]
    history: list[PastTold]
