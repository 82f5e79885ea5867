"""What the scheduler's cycle sees and what it decides: plain values on both sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any, Final

from pipeline.domain.costs.budgets import BudgetNotice, BudgetStanding
from pipeline.domain.costs.charging import AT_COST, ChargeTerms
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import DEFAULT_PROJECT, BatchId, PackId, ProjectId, TenantId
from pipeline.domain.promises import Promise
from pipeline.domain.reasons import Reason
from pipeline.domain.shares import TOKENS_ALIKE, UnitCosts
from pipeline.domain.tiers import Tier

#: Packs that go before all others, because a promised deadline is near, have ordinals below this.
PRESSING_ORDINAL_MAX: Final = -1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkSize:
    """How much work rows are, estimated, predicted or as it was."""

    rows: float
    input_tokens: float
    output_tokens: float

    def times(self, factor: float) -> WorkSize:
        """Return so many times as much."""
        return WorkSize(
            rows=self.rows * factor, input_tokens=self.input_tokens * factor, output_tokens=self.output_tokens * factor
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenShard:
    """A shard with rows that are in no pack yet: those from `rows_packed` on."""

    shard_id: int
    shard_no: int
    rows_total: int
    rows_packed: int
    #: Estimated sums over all of the shard's rows.
    input_tokens: int
    output_tokens: int
    #: Which prompt prefix its rows begin with; 0 where they have none in common.
    template: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """The rows of one batch and one model that are in no pack yet."""

    tenant_id: TenantId
    batch_id: BatchId
    tier: Tier
    model: str
    endpoint: Endpoint
    created_at_us: int
    deadline_at_us: int
    promise: Promise
    #: Nothing of it is packed before this, unless waiting would risk the deadline; None: it may be at once.
    hold_until_us: int | None
    is_paused: bool
    #: Of all rows without a result, those in packs included, as intake estimated them.
    left: WorkSize
    #: Money already charged to the batch, and its own cap (None: no cap).
    spent_micros: int
    budget_micros: int | None
    #: The next shards to slice, in order; the snapshot bounds how many it carries.
    shards: tuple[OpenShard, ...]
    #: Rows of the batch that are in a pack and have no result yet.
    rows_in_flight: int = 0
    #: What packs of the batch that have not ended may still be charged to it, at most; told where there is a budget.
    reserved_micros: int = 0
    #: It is to fail, and nothing of it to start, unless its deadline is promised.
    must_promise: bool = False
    #: Among the batches of its tenant in its tier, the highest go first.
    priority: int = 0
    #: Why the batch stood where it stood after the last cycle.
    reason: Reason | None = None
    project_id: ProjectId = DEFAULT_PROJECT
    #: What it is charged for what its rows cost.
    terms: ChargeTerms = AT_COST


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A variant that a pool's workers serve, and whose rows may run on it."""

    variant: str
    model: str
    #: Tiers whose margin the gate accepted it at, or a person allowed it for; a reference serves all.
    tiers: frozenset[Tier]
    #: Device time a token takes, relative to the model's reference.
    relative_cost: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How many workers a pool can be brought to, on what nobody takes away, and how soon."""

    workers: int
    after_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """One pool, as the cycle sees it."""

    pool: str
    workers: int
    #: What its workers serve.
    servings: tuple[Serving, ...]
    #: Packs published and not leased yet, and their predicted seconds.
    packs_waiting: int
    #: What an hour of its dearest worker costs.
    rate_micros_per_hour: int = 0
    currency: str = "USD"
    #: Packs that have not ended and that press.
    packs_pressing: int = 0
    #: Packs that have not ended, by tenant, of a pack of several the part that each has in it; told of tenants with a
    #: limit.
    packs_of_tenants: Mapping[TenantId, float] = field(default_factory=dict)
    #: None: nobody starts workers of it.
    reach: Reach | None = None

    @property
    def workers_promised_on(self) -> int:
        """Return how many workers deadlines may be promised on: those there are, or those it can be brought to."""
        return self.workers if self.reach is None else max(self.workers, self.reach.workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class FairTag:
    """How far one account of a pool's fair queue has been served, in virtual seconds.

    The scheduler's memory between cycles. Storage keeps it as it is and looks into none of it.
    """

    pool: str
    #: From the pool down: () is the pool itself, then (tier,), (tier, tenant), (tier, tenant, batch).
    path: tuple[str, ...]
    #: Where the account's next pack starts, in its parent's virtual time.
    start_seconds: float
    #: The virtual time among the account's children.
    virtual_seconds: float
    #: When this was so, in microseconds since the Unix epoch; 0 where nobody knows.
    at_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedShare:
    """What one batch had in a pack that ended, for rows of one template."""

    tenant_id: TenantId
    batch_id: BatchId
    template: int
    #: What was charged at dispatch.
    predicted_seconds: float
    #: Of the rows that have a result: as intake estimated them, and as they were.
    estimated: WorkSize
    actual: WorkSize
    #: Answers by length, as `pipeline.domain.sketches` tells them.
    lengths: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedPack:
    """A pack that ended, and what it took."""

    pack_id: PackId
    pool: str
    model: str
    variant: str
    tier: Tier
    #: Worker-seconds that batches were charged for.
    seconds: float
    #: Its first attempt ran all of its rows: what it took says how fast such packs are.
    is_clean: bool
    shares: tuple[EndedShare, ...]
    #: What its seconds are split by.
    unit_costs: UnitCosts = TOKENS_ALIKE


class LearnedKind(StrEnum):
    """What a prediction is of."""

    #: Seconds of a variant (the subject) in a pool (the detail).
    PACE = "pace"
    #: Tokens of a model (the subject) for a template (the detail).
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """The state of one prediction; storage keeps it as it is and looks into none of it."""

    kind: LearnedKind
    subject: str
    detail: str
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything one cycle decides on; immutable."""

    now_us: int
    #: All with rows in no pack, those that cannot run now included: a batch that is missing is forgotten.
    backlogs: tuple[Backlog, ...]
    pools: tuple[PoolView, ...]
    #: Tokens (input + output) a worker computes per second, by variant, as measured; variants without
    #: a measurement are absent.
    tokens_per_second: dict[str, float]
    #: Highest ordinal handed out so far: where the virtual time of a pool without fair tags begins.
    virtual_seconds: float
    #: What the last cycle's plan returned; empty before the first one.
    fair_tags: tuple[FairTag, ...] = ()
    #: Packs that ended and that no cycle has settled yet.
    ended: tuple[EndedPack, ...] = ()
    #: Of tenants and projects, each in its current period.
    budgets: tuple[BudgetStanding, ...] = ()
    #: The first day of the month (UTC) that they were read in; None: of now.
    month: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceDraft:
    """Rows [row_start, row_stop) of one shard."""

    batch_id: BatchId
    shard_id: int
    row_start: int
    row_stop: int
    #: What the batch was charged for them.
    predicted_seconds: float = 0.0
    #: What it may be charged for them, at most: kept of budgets until the pack has ended.
    reserved_micros: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PackDraft:
    """A pack to create."""

    pack_id: PackId
    pool: str
    model: str
    #: What is to run it: a variant of the model.
    variant: str
    endpoint: Endpoint
    tier: Tier
    #: Workers lease the lowest ordinal first.
    ordinal: float
    predicted_seconds: float
    slices: tuple[SliceDraft, ...]
    #: What its worker's time will be split by among its batches.
    unit_costs: UnitCosts = TOKENS_ALIKE


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Why a batch stands where it stands after this cycle, and did not before."""

    batch_id: BatchId
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class CyclePlan:
    """What the cycle decided."""

    packs: tuple[PackDraft, ...]
    standings: tuple[Standing, ...]
    #: Batches that must go first, with the ordinal of their packs: those that wait already get it too.
    pressing: tuple[tuple[BatchId, float], ...] = ()
    #: Answers to batches whose deadline was asked about.
    promises: tuple[tuple[BatchId, Promise], ...] = ()
    #: Batches that were to run with a promise or not at all, and had none; each with the first deadline that could be
    #: promised, in microseconds since the Unix epoch (None: no worker serves it).
    refused: tuple[tuple[BatchId, int | None], ...] = ()
    #: Replaces all fair tags kept so far, in the transaction that creates the packs.
    fair_tags: tuple[FairTag, ...] = ()
    #: Ended packs whose charges the fair tags now have as they were, and what was learned from them.
    settled: tuple[PackId, ...] = ()
    learned: tuple[Learned, ...] = ()
    #: Whose budgets the packs were planned on: what they are charged counts in it, whenever that is.
    month: date | None = None
    #: What budgets have come to, and was not told yet.
    notices: tuple[BudgetNotice, ...] = ()
