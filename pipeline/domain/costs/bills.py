"""Bills: what a provider charges for a worker's life by its rule, as the journal is settled to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import WorkerEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLife:
    """A worker as its provider may bill it, up to what is metered of it."""

    worker_id: WorkerId
    pool: str
    market: str
    provider: str | None
    instance_type: str | None
    region: str | None
    zone: str | None
    currency: str
    #: What it was accrued at.
    rates: Amounts
    started_at: datetime
    metered_until_us: int
    #: None: it lives.
    end_cause: WorkerEnd | None

    @property
    def is_over(self) -> bool:
        """Say whether it has ended."""
        return self.end_cause is not None

    @property
    def stopped_at(self) -> datetime:
        """Return until when it is metered."""
        return self.moment(self.metered_until_us)

    def moment(self, age_us: int) -> datetime:
        """Return when it had that age."""
        return self.started_at + timedelta(microseconds=age_us)


class Bill(Protocol):
    """What a life costs. Of live workers nothing is rounded up, and no minimum has been missed yet."""

    @property
    def rule(self) -> str:
        """Return the name of the rule that it is by."""

    @property
    def source(self) -> str | None:
        """Return where the prices came from."""

    def between(self, start_us: int, stop_us: int) -> Amounts:
        """Return the cost of a span of the life; costs of adjacent spans sum to that of both."""

    @property
    def rounding(self) -> Amounts:
        """Return what is billed for the rest of the last second or hour begun."""

    @property
    def minimum(self) -> Amounts:
        """Return what is billed for what was not used of the least that is billed."""


class BillSource(Protocol):
    """Who knows prices and rules."""

    def revision(self) -> int:
        """Return a number that is another one once any price is: what was settled before is then looked at again."""

    @property
    def is_of_prices(self) -> bool:
        """Say whether that is the number of the last price in the database, which concerns the workers that it is of."""

    def bill(self, life: WorkerLife) -> Bill:
        """Return the bill of that life."""


def total_of(bill: Bill, life: WorkerLife) -> Amounts:
    """Return all that is billed so far."""
    lived = bill.between(0, life.metered_until_us)
    return lived + bill.rounding + bill.minimum if life.is_over else lived
