"""What a world is made of, and what is written down of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pipeline.domain.promises import Promise
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Serving

#: More than any run gets through.
ENDLESS_ROWS: Final = 10_000_000

#: Tier, tenant, batch: an account below a pool.
Path = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Workers of one kind; its variants run at the speed that the world says, times `pace`."""

    name: str
    workers: int
    servings: tuple[Serving, ...]
    #: What a pack takes here, over what its variant's speed says.
    pace: float = 1.0
    rate_micros_per_hour: int = 3_600_000


@dataclass(slots=True, kw_only=True, eq=False)
class Batch:
    """A batch, and how far it has come. Scenarios steer it by setting its fields."""

    name: str
    tenant: str
    tier: Tier
    model: str
    rows: int = ENDLESS_ROWS
    row_tokens: int = 100
    at: float = 0.0
    window: float = 1e6
    #: Among the batches of its tenant in its tier, the highest go first.
    priority: int = 0
    #: Whether it asks to be promised its deadline.
    asks: bool = False
    budget_micros: int | None = None
    hold_until: float | None = None
    #: What its rows really take, over what their tokens say.
    cost_ratio: float = 1.0
    is_paused: bool = False
    #: Its rows are taken back, as if the user had nothing to ask just now.
    is_away: bool = False
    promise: Promise = Promise.DECLINED
    rows_packed: int = field(default=0, init=False)
    rows_done: int = field(default=0, init=False)
    spent_micros: int = field(default=0, init=False)
    ended_at: float | None = field(default=None, init=False)
    shard_id: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Ask, if it is to."""
        self.promise = Promise.PENDING if self.asks else Promise.DECLINED

    @property
    def path(self) -> Path:
        """Return its account's path."""
        return self.tier.value, self.tenant, self.name

    @property
    def deadline(self) -> float:
        """Return when it is due, in seconds since the world began."""
        return self.at + self.window

    def can_be_packed(self, now: float) -> bool:
        """Say whether it has rows in no pack and nothing forbids to pack them now."""
        is_in_budget = self.budget_micros is None or self.spent_micros < self.budget_micros
        is_held = self.hold_until is not None and now < self.hold_until
        is_here = self.at <= now < self.deadline and not self.is_away and not self.is_paused
        return is_here and is_in_budget and not is_held and self.rows_packed < self.rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """A pack, as it was decided on."""

    pool: str
    #: What each batch was charged for its part, by the path of its account.
    charges: Mapping[Path, float]
    #: It went before others because a promised deadline came near.
    is_pressing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One cycle, and the leases after it."""

    at: float
    #: By pool: accounts of batches that the pool could pack just before and just after.
    before: Mapping[str, frozenset[Path]]
    after: Mapping[str, frozenset[Path]]
    dispatches: tuple[Dispatch, ...]
    #: By pool: what batches were found to have taken over what they were charged, as settled in this cycle.
    corrections: tuple[tuple[str, Path, float], ...]
    #: By pool: workers without a pack once all were leased.
    idle: Mapping[str, int]
