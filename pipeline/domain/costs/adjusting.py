"""Adjusting: a worker's day as its bill says it, beside what the provider invoiced, and what makes up the difference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.costs.bills import Bill, WorkerLife
from pipeline.domain.costs.settling import BY_ACCRUAL, AccruedSpan
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
from pipeline.domain.ids import WorkerId

DAY: Final = timedelta(days=1)
_MICROSECOND: Final = timedelta(microseconds=1)
_OVERHEAD: Final = {
    CostCategory.COMPUTE: Overhead.UNEXPLAINED,
    CostCategory.STORAGE: Overhead.STORAGE,
    CostCategory.NETWORK: Overhead.NETWORK,
    CostCategory.EXTERNAL_API: Overhead.EXTERNAL_API,
}


class Agreement(StrEnum):
    """How what was invoiced is to what was expected."""

    #: To the micro-unit.
    EXACT = "exact"
    #: Within what was said to be near enough.
    CLOSE = "close"
    OFF = "off"
    #: The worker lives on in that day: it is compared once it is over.
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDay:
    """What one worker cost on a day (UTC), seen from both sides."""

    worker_id: WorkerId
    pool: str
    day: date
    category: CostCategory
    #: By the rule that its provider bills by; of compute alone.
    expected: Amounts
    invoiced: Amounts
    #: Adjusted to invoices before.
    adjusted: Amounts
    is_open: bool = False
    #: An invoice before had it, this one has not: what was adjusted is undone.
    is_gone: bool = False

    @property
    def difference(self) -> Amounts:
        """Return what was invoiced above what was expected."""
        return self.invoiced - self.expected

    @property
    def to_post(self) -> Amounts:
        """Return what is still to be adjusted."""
        return Amounts() if self.is_open else self.difference - self.adjusted

    def agreement(self, within_percent: Decimal) -> Agreement:
        """Return how the two sides are to one another, by what is billed."""
        if self.is_open:
            return Agreement.OPEN
        if max(map(abs, (self.difference.billed_micros, self.difference.effective_micros))) <= 1:
            return Agreement.EXACT
        return agreement(self.difference.billed_micros, self.invoiced.billed_micros, within_percent)


def agreement(difference_micros: int, whole_micros: int, within_percent: Decimal) -> Agreement:
    """Return whether a difference is within a share of the whole."""
    is_close = abs(difference_micros) * 100 <= abs(whole_micros) * within_percent
    return Agreement.CLOSE if is_close else Agreement.OFF


def expected_on(bill: Bill, life: WorkerLife, day: date) -> Amounts:
    """Return what a life's bill has for a day; the days of a life sum to its bill."""
    start_us, stop_us = span_on(life, day)
    expected = bill.between(start_us, stop_us)
    if life.is_over and life.stopped_at.astimezone(UTC).date() == day:
        expected += bill.rounding + bill.minimum
    return expected


def span_on(life: WorkerLife, day: date) -> tuple[int, int]:
    """Return from which to which age a life was in a day; nowhere where it was not."""
    start = (midnight(day) - life.started_at) // _MICROSECOND
    stop = start + DAY // _MICROSECOND
    until_us = life.metered_until_us
    return min(max(start, 0), until_us), min(max(stop, 0), until_us)


def midnight(day: date) -> datetime:
    """Return when a day begins, UTC."""
    return datetime.combine(day, time(), UTC)


def adjustment(
    worker_day: WorkerDay, spans: Iterable[AccruedSpan], *, key: str, provider: str, invoice_name: str, currency: str
) -> Transaction:
    """Return what brings the journal to what was invoiced for a worker's day.

    It is split over the accounts that were accrued time of that day, by what each was; what nobody was is unexplained.
    """
    difference = worker_day.to_post
    accrued: dict[Account, Amounts] = {}
    if worker_day.category is CostCategory.COMPUTE:
        for span in spans:
            for account, amounts in span.accrued.items():
                accrued[account] = accrued.get(account, Amounts()) + amounts
    accounts = sorted(accrued) or [of_overhead(_OVERHEAD[worker_day.category])]
    parts = split_amounts(difference, [accrued.get(account, Amounts()) for account in accounts])
    return Transaction(
        key=key,
        kind=TransactionKind.ADJUSTMENT,
        category=worker_day.category,
        period_start=midnight(worker_day.day),
        period_stop=midnight(worker_day.day) + DAY,
        currency=currency,
        entries=(
            *(Entry(account=account, amounts=part) for account, part in zip(accounts, parts, strict=True) if part),
            Entry(account=of_supplier(worker_day.pool), amounts=-difference),
        ),
        worker_id=worker_day.worker_id,
        method=BY_ACCRUAL if accrued else None,
        source=invoice_name,
        detail={
            "provider": provider,
            "expected_billed_micros": worker_day.expected.billed_micros,
            "invoiced_billed_micros": worker_day.invoiced.billed_micros,
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedLine:
    """What an invoice has of one name in a month and no worker explains."""

    month: date
    name: str
    invoiced: Amounts
    #: Posted for it before.
    adjusted: Amounts
    account: Account
    #: What the journal has for it by itself.
    accrued: Amounts = Amounts()  # noqa: RUF009 -- frozen

    @property
    def difference(self) -> Amounts:
        """Return by how much the bill is above the journal's own."""
        return self.invoiced - self.accrued

    @property
    def to_post(self) -> Amounts:
        """Return what is still to be posted."""
        return self.difference - self.adjusted


def unexplained(line: NamedLine, *, key: str, provider: str, invoice_name: str, currency: str) -> Transaction:
    """Return what puts a line that no worker explains into the journal."""
    month = midnight(line.month)
    return Transaction(
        key=key,
        kind=TransactionKind.ADJUSTMENT,
        category=CostCategory.STORAGE if line.account == of_overhead(Overhead.STORAGE) else CostCategory.COMPUTE,
        period_start=month,
        period_stop=midnight((line.month + timedelta(days=31)).replace(day=1)),
        currency=currency,
        entries=(
            Entry(account=line.account, amounts=line.to_post),
            Entry(account=of_supplier(provider), amounts=-line.to_post),
        ),
        source=invoice_name,
        detail={"provider": provider, "line": line.name},
    )
