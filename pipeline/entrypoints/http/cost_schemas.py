"""The shapes of costs: OpenAI's, and beside its amounts what they were charged for."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict


class CostGroupBy(StrEnum):
    """What charges can be told apart by."""

    PROJECT = "project_id"
    LINE_ITEM = "line_item"
    MODEL = "model"
    TIER = "tier"
    BATCH = "batch_id"


class _Answered(BaseModel):
    model_config = ConfigDict(extra="allow")


class CostAmount(_Answered):
    """Money: a decimal amount, as text, with nothing rounded."""

    value: str
    currency: str


class CostResult(_Answered):
    """What was charged for one group; what was not grouped by is null."""

    object: Literal["organization.costs.result"]
    amount: CostAmount
    line_item: str | None
    project_id: str | None
    model: str | None
    tier: str | None
    batch_id: str | None
    requests: int
    input_tokens: int
    output_tokens: int


class CostBucket(_Answered):
    """A day, UTC."""

    object: Literal["bucket"]
    start_time: int
    end_time: int
    results: list[CostResult]


class CostPage(_Answered):
    """A page of days."""

    object: Literal["page"]
    data: list[CostBucket]
    has_more: bool
    next_page: str | None
