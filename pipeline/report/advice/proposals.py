"""What a rule proposes, and from when on it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final


class AdviceKind(StrEnum):
    """What to do."""

    MOVE_TIER = "move_tier"
    CHEAPER_VARIANT = "cheaper_variant"
    BIGGER_PACKS = "bigger_packs"
    PREFIX_CACHE = "prefix_cache"
    CHEAPER_PLACE = "cheaper_place"
    LESS_IDLE = "less_idle"
    RESERVED_BASE = "reserved_base"
    REPEATED_INPUT = "repeated_input"
    FEWER_TINY_BATCHES = "fewer_tiny_batches"


class Confidence(StrEnum):
    """How sure it is that the money will be saved."""

    #: Counted: the money was spent on just this.
    HIGH = "high"
    #: Compared: the same work was cheaper elsewhere in the same span.
    MEDIUM = "medium"
    #: Carried over from figures that were measured otherwise.
    LOW = "low"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From when on something is worth saying."""

    #: Suggestions under this much in a month are noise.
    saving_micros_min: int = 10_000
    batches_min: int = 5
    window_unused_percent_min: float = 50.0
    tokens_min: int = 1_000
    #: What a comparison must differ by.
    difference_percent_min: float = 5.0
    packs_min: int = 20
    fill_percent_max: float = 60.0
    hit_points_min: float = 10.0
    idle_percent_max: float = 20.0
    #: What idle time remains with the fewest workers that do.
    idle_percent_kept: float = 10.0
    hours_min: int = 168
    tiny_batches_min: int = 10


THRESHOLDS: Final = Thresholds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What a rule found: the shares of accounts that would be saved, whatever else is done."""

    kind: AdviceKind
    subject: str
    sentence: str
    #: From 0 to 1, by account.
    shares: Mapping[str, Decimal]
    #: Numbers with their units in their names.
    evidence: Mapping[str, int | float | str]
    confidence: Confidence
    command: str


def idle_account(pool: str, market: str) -> str:
    """Return the account of a pool's idle time."""
    return f"idle:{pool}/{market}"


def base_account(pool: str, market: str) -> str:
    """Return the account of a pool's time besides work and idling."""
    return f"other:{pool}/{market}"
