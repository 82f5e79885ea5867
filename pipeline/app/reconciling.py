"""Reconciling: every worker's entries beside the price of its time and its bill, pool by pool."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.costs.bills import BillSource, WorkerLife, total_of
from pipeline.domain.ids import WorkerId
from storage.costs import CostRepository
from storage.database import Database
from storage.settlements import SettlementRepository, Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A worker whose entries do not sum to what they should."""

    worker_id: WorkerId
    pool: str
    expected: Amounts
    posted: Amounts


@dataclass(slots=True, kw_only=True)
class PoolBooks:
    """A pool's workers, summed up."""

    pool: str
    currency: str
    workers: int = 0
    live: int = 0
    #: Whose settlement is still to come, and what it will add to what is posted.
    waiting: int = 0
    to_settle: Amounts = field(default_factory=Amounts)
    #: By the providers' rules.
    billed: Amounts = field(default_factory=Amounts)
    #: Accrued and settled.
    posted: Amounts = field(default_factory=Amounts)
    #: To invoices.
    adjusted: Amounts = field(default_factory=Amounts)
    gaps: list[Gap] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Say whether it adds up."""
        return not self.gaps

    def count(self, standing: Standing, bill: Amounts, *, revision: int) -> None:
        """Add a worker."""
        life = standing.life
        self.workers += 1
        self.live += not life.is_over
        self.billed += bill
        self.posted += standing.posted
        self.adjusted += standing.adjusted
        if standing.settled_by == revision:
            if standing.posted != bill:
                self.gaps.append(_gap(life, bill, standing.posted))
        elif standing.settled_by is None or standing.posted != bill:
            self.waiting += 1
            self.to_settle += bill - standing.posted


def reconcile(database: Database, bills: BillSource) -> list[PoolBooks]:
    """Return the books of every pool: accruals against metered lives, and what is settled against bills."""
    books: dict[tuple[str, str], PoolBooks] = {}
    revision = bills.revision()
    standings = SettlementRepository(database).standings()
    for standing in standings:
        life = standing.life
        pool = books.setdefault((life.pool, life.currency), PoolBooks(pool=life.pool, currency=life.currency))
        pool.count(standing, total_of(bills.bill(life), life), revision=revision)
    _add_mismatches(database, standings, books)
    return [books[key] for key in sorted(books)]


def _add_mismatches(database: Database, standings: Sequence[Standing], books: dict[tuple[str, str], PoolBooks]) -> None:
    """Add workers whose metered time was not accrued in full."""
    found: dict[WorkerId, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for mismatch in CostRepository(database).reconcile():
        found[mismatch.worker_id] = mismatch.expected_micros, mismatch.charged_micros
    for standing in standings:
        life = standing.life
        if life.worker_id in found:
            expected, charged = found[life.worker_id]
            gap = Gap(
                worker_id=life.worker_id,
                pool=life.pool,
                expected=Amounts(effective_micros=expected),
                posted=Amounts(effective_micros=charged),
            )
            books[life.pool, life.currency].gaps.append(gap)


def _gap(life: WorkerLife, expected: Amounts, posted: Amounts) -> Gap:
    return Gap(worker_id=life.worker_id, pool=life.pool, expected=expected, posted=posted)
