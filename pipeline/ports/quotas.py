"""What a tenant has taken of its plan, as it passes between the API, the command line and the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipeline.domain.ids import TenantId
from pipeline.domain.plans import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaView:
    """One tenant's plan, and what is taken of it now."""

    tenant_id: TenantId
    plan: Plan
    #: The database's clock.
    now: datetime
    #: In the calendar month (UTC): of batches that have ended what ran, of the others what they may need.
    requests: int
    tokens: int
    batches_live: int
    #: By model, for those that have any.
    enqueued_tokens: tuple[tuple[str, int], ...]
