"""Settling: the difference between a worker's bill and what the journal holds of it, hour by hour and account by account.

A span's price is split over the accounts that were accrued it, by what each was accrued; a span counts in the hour that
it began in, as its accrual does. Charges do not follow.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.costs.bills import Bill, WorkerLife
from pipeline.domain.costs.splitting import split_amounts
from pipeline.domain.costs.transactions import (
    Account,
    CostCategory,
    Entry,
    Overhead,
    Transaction,
    TransactionKind,
    of_overhead,
    of_supplier,
)

HOUR: Final = timedelta(hours=1)
#: How settlements and adjustments are split: by what the accounts were accrued.
BY_ACCRUAL: Final = "accrued_v1"

#: Costs by the hour that they were for, and whose they are.
Hourly = Mapping[tuple[datetime, Account], Amounts]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccruedSpan:
    """A metered span, and what each account was accrued for it."""

    start_us: int
    stop_us: int
    accrued: Mapping[Account, Amounts]


def hour_of(at: datetime) -> datetime:
    """Return the beginning of the hour, UTC."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def billed_by_account(
    bill: Bill, life: WorkerLife, spans: Iterable[AccruedSpan]
) -> dict[tuple[datetime, Account], Amounts]:
    """Return the bill of a life by hour and account; together they are all of it."""
    billed: dict[tuple[datetime, Account], Amounts] = defaultdict(Amounts)
    for span in spans:
        hour = hour_of(life.moment(span.start_us))
        accounts = sorted(span.accrued)
        shares = split_amounts(bill.between(span.start_us, span.stop_us), [span.accrued[each] for each in accounts])
        for account, share in zip(accounts, shares, strict=True):
            billed[hour, account] += share
    if life.is_over:
        last = hour_of(life.stopped_at)
        for kind, amounts in ((Overhead.ROUNDING, bill.rounding), (Overhead.MINIMUM, bill.minimum)):
            if amounts:
                billed[last, of_overhead(kind)] += amounts
    return dict(billed)


def settlements(bill: Bill, life: WorkerLife, *, billed: Hourly, posted: Hourly, number: int) -> list[Transaction]:
    """Return what brings the journal to the bill: a transaction for each hour that differs, the first with that number.

    `posted` is what accruals and settlements before hold. With these posted, settling again returns none.
    """
    differences: dict[datetime, dict[Account, Amounts]] = defaultdict(dict)
    for hour, account in {**billed, **posted}:
        difference = billed.get((hour, account), Amounts()) - posted.get((hour, account), Amounts())
        if difference:
            differences[hour][account] = difference
    detail: dict[str, Any] = {"rule": bill.rule, "metered_until_us": life.metered_until_us, "end_cause": life.end_cause}
    return [
        Transaction(
            key=f"settlement:{life.worker_id}:{number + index}",
            kind=TransactionKind.SETTLEMENT,
            category=CostCategory.COMPUTE,
            period_start=max(hour, life.started_at),
            period_stop=hour + HOUR,
            currency=life.currency,
            entries=(
                *(Entry(account=account, amounts=amounts) for account, amounts in sorted(by_account.items())),
                Entry(account=of_supplier(life.pool), amounts=-Amounts.total(by_account.values())),
            ),
            worker_id=life.worker_id,
            method=BY_ACCRUAL,
            source=bill.source,
            detail=detail,
        )
        for index, (hour, by_account) in enumerate(sorted(differences.items()))
    ]
