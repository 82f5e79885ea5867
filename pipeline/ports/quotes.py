"""Quotes: what each tier offers for a file, before anything is paid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.domain.tiers import Tier
from pipeline.ports.batches import Survey


@dataclass(frozen=True, slots=True, kw_only=True)
class TierQuote:
    """What one tier offers; ranges are from the 5th to the 95th percentile, times are seconds from now."""

    tier: Tier
    #: What would run it; None: no live worker serves the model to this tier, and nothing more is known.
    variant: str | None
    cost_micros: tuple[int, int] | None
    currency: str
    finish_seconds: tuple[float, float, float] | None
    #: The chance to be done within each window, by its seconds.
    chances: Mapping[float, float]
    #: Whether the asked window could be promised now, and the shortest that could.
    can_promise: bool
    promise_seconds: float | None
    #: False where nothing of the variant has run yet, and its speed is an assumption.
    is_measured: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedTokens:
    """What a file's rows are expected to take, by what rows like them took."""

    input_tokens: float
    output_tokens: float
    #: Answers seen to the same prompt template, or else of the model; older ones as the fraction they count for.
    answers_known: float
    #: Half of these were no longer, and nineteen of twenty; None while none are known.
    answer_tokens: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileQuote:
    """What a file is, and what each tier offers for it."""

    survey: Survey
    tokens: ExpectedTokens
    tiers: tuple[TierQuote, ...]
