"""What volumes cost: disks that are paid for while their machine is stopped, too.

A GB-month is a gigabyte kept for the calendar month (UTC) it is kept in, so a gigabyte-second costs more in February than in
March. A volume is charged from its making to its deletion, whether its machine runs or is stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Final

from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.costs.prices import PICOS_PER_MICRO, Item, PriceUnit
from pipeline.domain.costs.transactions import (
    CostCategory,
    Entry,
    Overhead,
    Transaction,
    TransactionKind,
    of_overhead,
    of_supplier,
)

_MICROSECOND: Final = timedelta(microseconds=1)
_DAYS_TO_NEXT_MONTH: Final = timedelta(days=31)
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A disk that is paid for whether a machine runs on it or not."""

    name: str
    provider: str
    #: Its class, as the provider prices it, such as `gp3`.
    kind: str
    region: str | None
    size_bytes: int
    #: The first day of it, and the first without it (UTC); None: it is kept.
    since: date
    until: date | None

    @property
    def item(self) -> Item:
        """Return what is to be priced."""
        return Item(provider=self.provider, name=self.kind, unit=PriceUnit.GB_MONTH, region=self.region)

    def has(self, day: date) -> bool:
        """Say whether it was kept that day."""
        return self.since <= day and (self.until is None or day < self.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoragePrice:
    """What a GB-month costs from an instant on."""

    effective_at: datetime
    unit_price_picos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageBill:
    """What `size_bytes` kept from `start` on cost; prices are in order, and the first holds at `start`."""

    size_bytes: int
    #: Bytes of the gigabyte that is priced: 2^30 with AWS.
    bytes_per_gb: int = 1024**3
    start: datetime
    prices: Sequence[StoragePrice]

    def until(self, at: datetime) -> int:
        """Return the micro-units charged from the start to that moment, rounded down."""
        assert at >= self.start, "it was not kept before it was made"
        picos = sum((self._picos(begin, end) for begin, end in self._spans(at)), start=Fraction())
        return int(picos / PICOS_PER_MICRO)

    def between(self, begin: datetime, end: datetime) -> int:
        """Return the cost of a span, such as while a machine was stopped; costs of adjacent spans sum to that of both."""
        return self.until(end) - self.until(begin)

    def _spans(self, at: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yield the spans in which neither month nor price changes."""
        cuts = {self.start, at} | {price.effective_at for price in self.prices if self.start < price.effective_at < at}
        month = _next_month(self.start)
        while month < at:
            cuts.add(month)
            month = _next_month(month)
        yield from pairwise(sorted(cuts))

    def _picos(self, begin: datetime, end: datetime) -> Fraction:
        price = [price for price in self.prices if price.effective_at <= begin or price is self.prices[0]][-1]
        month_start = _month_start(begin)
        month_us = (_next_month(begin) - month_start) // _MICROSECOND
        kept_us = (end - begin) // _MICROSECOND
        return Fraction(price.unit_price_picos * self.size_bytes * kept_us, self.bytes_per_gb * month_us)


def volume_key(name: str, day: date) -> str:
    """Return what a volume's day is posted for."""
    return f"volume:{name}:{day}"


def volume_accrual(
    volume: Volume, day: date, prices: Sequence[StoragePrice], *, currency: str, source: str | None
) -> Transaction | None:
    """Return what a volume's day cost; None where that is nothing. `prices` are those from its first day on, in order."""
    begin = datetime.combine(day, time(), UTC)
    bill = StorageBill(size_bytes=volume.size_bytes, start=datetime.combine(volume.since, time(), UTC), prices=prices)
    micros = bill.between(begin, begin + _DAY)
    if not micros:
        return None
    return Transaction(
        key=volume_key(volume.name, day),
        kind=TransactionKind.ACCRUAL,
        category=CostCategory.STORAGE,
        period_start=begin,
        period_stop=begin + _DAY,
        currency=currency,
        entries=(
            Entry(account=of_overhead(Overhead.STORAGE), amounts=Amounts.cost(micros)),
            Entry(account=of_supplier(volume.provider), amounts=Amounts.cost(-micros)),
        ),
        source=source,
        detail={"volume": volume.name, "kind": volume.kind, "size_bytes": volume.size_bytes, "region": volume.region},
    )


def _month_start(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _next_month(at: datetime) -> datetime:
    return _month_start(_month_start(at) + _DAYS_TO_NEXT_MONTH)
