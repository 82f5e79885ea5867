"""What stored bytes cost: volumes that outlive their machine's run, and objects.

A GB-month is a gigabyte kept for the calendar month (UTC) it is kept in, so a gigabyte-second costs more in February than in
March. A volume is charged from its making to its deletion, whether its machine runs or is stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Final

from pipeline.domain.costs.prices import PICOS_PER_MICRO

_MICROSECOND: Final = timedelta(microseconds=1)
_DAYS_TO_NEXT_MONTH: Final = timedelta(days=31)


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


def _month_start(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _next_month(at: datetime) -> datetime:
    return _month_start(_month_start(at) + _DAYS_TO_NEXT_MONTH)
