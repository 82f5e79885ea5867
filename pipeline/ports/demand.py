"""What was asked for and what it cost, hour by hour: what forecasts are made from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pipeline.domain.tiers import Tier


class Breakdown(StrEnum):
    """What demand and cost are told apart by."""

    TIER = "tier"
    MODEL = "model"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True, kw_only=True)
class HourlyAmount:
    """An amount of one group in one hour, which begins at `at`: tokens, or micro-units."""

    #: None: of no group, such as the time of workers that no batch pays for.
    group: str | None
    at: datetime
    amount: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """What of a model was asked for in one tier, as intake estimated it."""

    model: str
    tier: Tier
    rows: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What the workers of a pool did with a variant."""

    pool: str
    variant: str
    model: str
    #: Input and output, that were computed.
    tokens: int
    work_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenError:
    """Of batches of a model that are completed: what intake estimated, and what they took."""

    model: str
    estimated_tokens: int
    actual_tokens: int
