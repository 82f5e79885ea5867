"""The shapes of what is foreseen of an organization's demand and cost."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipeline.ports.demand import Breakdown


class _Answered(BaseModel):
    model_config = ConfigDict(extra="allow")


class TokensTold(_Answered):
    """Tokens, input and output as estimated at intake."""

    p10: int
    p50: int
    p90: int


class TokensHour(TokensTold):
    """Tokens of the hour that begins then."""

    start: str
    mean: int


class MoneyTold(_Answered):
    """Money, as decimal amounts."""

    p10: str
    p50: str
    p90: str


class MoneyHour(MoneyTold):
    """Money of the hour that begins then."""

    start: str
    mean: str


class TokensAhead(_Answered):
    """Tokens of one group, or of all; no hours, and why, where there is too little history."""

    group: str | None
    method: str | None
    trouble: str | None
    total: TokensTold | None
    hours: list[TokensHour]


class CostAhead(_Answered):
    """Cost of one group, or of all; no hours, and why, where there is too little history."""

    group: str | None
    method: str | None
    trouble: str | None
    total: MoneyTold | None
    hours: list[MoneyHour]


class MonthEndTold(_Answered):
    """What the calendar month, in UTC, will have cost; nulls where there is too little history."""

    stop: str
    spent: str
    p10: str | None
    p50: str | None
    p90: str | None


class AnomalyTold(_Answered):
    """Something of the last day that was outside the 99 % interval of its forecast."""

    what: Literal["tokens", "cost"]
    start: str
    hours: int
    actual: int | str
    expected: int | str
    low: int | str
    high: int | str
    group: str | None
    sentence: str


class OrganizationForecast(_Answered):
    """Demand and cost of the hours to come."""

    object: Literal["organization.forecast"]
    start: str
    hours: int
    by: Breakdown | None
    currency: str
    tokens: list[TokensAhead]
    cost: list[CostAhead]
    month_end: MonthEndTold
    anomalies: list[AnomalyTold]
