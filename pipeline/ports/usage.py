"""What was used in a span of time, as advice is worked out from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from pipeline.domain.tiers import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkUsage:
    """What workers did for one tier, model and variant in one place; places are empty where they are not to be told."""

    tier: Tier
    model: str
    variant: str
    pool: str = ""
    market: str = ""
    packs: int
    rows: int
    input_tokens: int
    output_tokens: int
    busy_us: int
    cost_micros: int
    #: Rows of decode steps that were used, and that there were; None where no engine counted them.
    slot_steps_busy: int | None = None
    slot_steps: int | None = None
    tokens_prefilled: int | None = None
    tokens_cached: int | None = None
    #: Speed that one pack in ten had or surpassed; None with too few packs to say.
    reachable_tokens_per_second: float | None = None

    @property
    def tokens(self) -> int:
        """Return input and output together."""
        return self.input_tokens + self.output_tokens

    @property
    def account(self) -> str:
        """Return the name under which its cost is saved from, once."""
        return f"{self.tier}/{self.model}/{self.variant}/{self.pool}/{self.market}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchesUsage:
    """The batches of one tier and model that completed."""

    tier: Tier
    model: str
    batches: int
    tokens: int
    cost_micros: int
    #: Of its window, that nine batches in ten had at least left when they completed.
    window_unused_percent: float | None = None
    #: Of so few rows that packs of theirs stay small.
    tiny_batches: int = 0
    tiny_tokens: int = 0
    tiny_cost_micros: int = 0
    #: Whose input had been submitted before in the same span, byte by byte, to the same endpoint.
    repeated_batches: int = 0
    repeated_cost_micros: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantWord:
    """A variant that a tier's rows may run on, as the gate or a person last said."""

    tier: Tier
    model: str
    variant: str
    #: Device time of a token, relative to the model's reference, which has 1.
    relative_cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixUsage:
    """How much of the prompts of a tier and model was a beginning that others had, too."""

    tier: Tier
    model: str
    input_tokens: int
    shared_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUsage:
    """The workers of one pool and market."""

    pool: str
    market: str
    life_us: int
    idle_us: int
    cost_micros: int
    idle_cost_micros: int
    #: Of the span, from the first worker on.
    hours: int
    #: Workers that were there in nine hours of ten at least.
    workers_always_on: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Everything of a span; what is empty was not measured, or is not to be told."""

    since: datetime
    until: datetime
    currency: str
    works: tuple[WorkUsage, ...] = ()
    batches: tuple[BatchesUsage, ...] = ()
    variants: tuple[VariantWord, ...] = ()
    pools: tuple[PoolUsage, ...] = ()
    prefixes: tuple[PrefixUsage, ...] = ()
    #: What a commitment takes off the on-demand price; None: nobody said.
    reserved_discount_percent: float | None = field(default=None)

    @property
    def days(self) -> float:
        """Return how long the span is."""
        return (self.until - self.since).total_seconds() / 86_400
