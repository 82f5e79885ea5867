"""Recurring batches: what users ask for, and what became of each firing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipeline.domain.cron import Schedule, parse_cron, parse_zone
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import BatchId, RecurringId, TenantId
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.recurring import CatchUp, FiringOutcome, Overlap
from pipeline.domain.tiers import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurringTerms:
    """What a user asks for: submit the file of that path, this way, whenever the schedule comes."""

    tenant_id: TenantId
    #: One of its tenant's recurring batches that were not removed.
    name: str
    cron: str
    zone: str
    #: Paths with fields (`pipeline.domain.path_fields`) on the machine of the scheduler.
    input_template: str
    #: None: the results stay where `nightrate results` finds them.
    output_template: str | None
    #: None: that of the file's first line.
    endpoint: Endpoint | None
    tier: Tier
    completion_window: str
    budget_micros: int | None
    metadata: dict[str, str] | None
    overlap: Overlap
    catch_up: CatchUp
    #: Late firings that `CatchUp.ALL` makes up for at a time.
    catch_up_max: int

    @property
    def schedule(self) -> Schedule:
        """Return when it fires; raises `UsageError` where this machine does not know the zone."""
        return Schedule(cron=parse_cron(self.cron), zone=parse_zone(self.zone))


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurringView:
    """A recurring batch, as it stands."""

    recurring_id: RecurringId
    terms: RecurringTerms
    #: The first firing that was not planned yet.
    next_at: datetime
    paused_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FiringView:
    """One firing and what became of it."""

    recurring_id: RecurringId
    #: When it was to fire: with the recurring batch its name.
    scheduled_at: datetime
    is_manual: bool
    #: None: it waits for its turn, or for its input.
    outcome: FiringOutcome | None
    #: Why it has this outcome, or what the last try failed of.
    reason: str | None
    batch_id: BatchId | None
    batch_state: BatchState | None
    tries: int
    #: Not tried again before this.
    retry_at: datetime | None
    output_path: str | None
    delivered_at: datetime | None
    delivery_tries: int
    #: What the last try at writing its results failed of.
    delivery_trouble: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFiring:
    """A firing whose turn it is."""

    firing: FiringView
    terms: RecurringTerms
    #: A batch of an earlier firing that has not ended.
    running_batch_id: BatchId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A batch that has ended and whose results are wanted at a path."""

    recurring_id: RecurringId
    scheduled_at: datetime
    output_path: str
    batch_id: BatchId
    tries: int
