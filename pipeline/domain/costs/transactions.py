"""Transactions: what the journal holds, each a set of entries that sum to nothing.

What something cost is a debit of whoever had the use of it, a batch or an overhead, and a credit of its supplier;
what a tenant pays is a debit of the batch and a credit of revenue. Nothing is ever changed: what was wrong is reversed,
line by line, or trued up by a further transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NewType

from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.ids import BatchId, PackId, WorkerId
from pipeline.domain.tiers import Tier

#: Whom an entry is of; see the functions below.
Account = NewType("Account", str)

_BATCH: Final = "batch:"


class CostCategory(StrEnum):
    """What kind of thing was used."""

    COMPUTE = "compute"
    STORAGE = "storage"
    NETWORK = "network"
    EXTERNAL_API = "external_api"


class TransactionKind(StrEnum):
    """Why a transaction was posted."""

    #: As metered, at the prices known then.
    ACCRUAL = "accrual"
    #: Billing rules, and prices known later, applied to what a worker was accrued.
    SETTLEMENT = "settlement"
    #: Overhead shared over batches by a named rule.
    ALLOCATION = "allocation"
    #: To an imported bill.
    ADJUSTMENT = "adjustment"
    #: Of another transaction, line by line.
    REVERSAL = "reversal"


class Overhead(StrEnum):
    """What no batch had the use of."""

    BOOT = "boot"
    LOAD = "load"
    IDLE = "idle"
    DRAIN = "drain"
    SHADOW = "shadow"
    LATE = "late"
    LOST = "lost"
    PREEMPTED = "preempted"
    RETRIED = "retried"
    PROBE = "probe"
    #: Seconds that are billed and were not lived: the least that an instance is billed for, hours rounded up.
    MINIMUM = "minimum"
    ROUNDING = "rounding"
    #: What an imported bill has and no batch or overhead explains, or has not.
    UNEXPLAINED = "unexplained"
    STORAGE = "storage"
    NETWORK = "network"
    EXTERNAL_API = "external_api"


class SharingRule(StrEnum):
    """How overhead is shared over the batches of its pool and hour; the rule is told with each share."""

    NONE = "none"
    #: By what each was accrued.
    PROPORTIONAL = "proportional"
    EVEN = "even"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a transaction."""

    account: Account
    amounts: Amounts
    #: What its share was worked out from.
    row_count: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def batch_id(self) -> BatchId | None:
        """Return the batch whose account it is."""
        return BatchId(self.account.removeprefix(_BATCH)) if is_of_batch(self.account) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """Entries that sum to nothing in each of the six amounts."""

    #: What it is for: a second posting of the same changes nothing.
    key: str
    kind: TransactionKind
    category: CostCategory
    #: When the thing was used: half-open, UTC.
    period_start: datetime
    period_stop: datetime
    currency: str
    entries: tuple[Entry, ...]
    worker_id: WorkerId | None = None
    #: The start of the worker's interval, for its accrual.
    start_us: int | None = None
    pack_id: PackId | None = None
    lease_token: int | None = None
    reverses_id: int | None = None
    #: How it was split over accounts: a `SplitRule` or a `SharingRule`.
    method: str | None = None
    #: Where its prices came from.
    source: str | None = None
    #: What it was worked out from.
    detail: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Hold what the database holds, too."""
        assert self.entries, f"{self.key} has no entries"
        assert not Amounts.total(entry.amounts for entry in self.entries), f"{self.key} does not balance"
        assert self.period_start <= self.period_stop


def is_of_batch(account: Account) -> bool:
    """Say whether it is a batch's."""
    return account.startswith(_BATCH)


def of_batch(batch_id: BatchId) -> Account:
    """Return the account of a batch: what it cost, and what is charged for it."""
    return Account(f"{_BATCH}{batch_id}")


def of_overhead(kind: Overhead) -> Account:
    """Return the account of what no batch had the use of."""
    return Account(f"overhead:{kind}")


def of_supplier(pool: str) -> Account:
    """Return the account of whom a cost is owed to."""
    return Account(f"supplier:{pool}")


def of_revenue(tier: Tier) -> Account:
    """Return the account that what is charged is credited to."""
    return Account(f"revenue:{tier}")
