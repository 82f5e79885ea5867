"""Keeping objects: bytes times time, requests, and bytes sent out, as a store bills them; in whole numbers throughout.

A GB-month is 2^30 bytes kept for the calendar month (UTC) that the day is in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.costs.prices import PICOS_PER_MICRO
from pipeline.domain.costs.transactions import (
    CostCategory,
    Entry,
    Overhead,
    Transaction,
    TransactionKind,
    of_batch,
    of_overhead,
    of_supplier,
)
from pipeline.domain.ids import BatchId, TenantId
from pipeline.domain.money import split_by_weight

_GB: Final = 1024**3
_MICROSECOND: Final = timedelta(microseconds=1)
_DAY: Final = timedelta(days=1)
_SUPPLIER: Final = of_supplier("objects")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectPrices:
    """What an object store bills, in 10^-12 units of the currency. A local disk bills nothing."""

    gb_month_picos: int = 0
    put_picos: int = 0
    get_picos: int = 0
    #: Of a GB (2^30 bytes) sent to the internet.
    egress_picos: int = 0
    source: str | None = None

    @property
    def is_free(self) -> bool:
        """Say whether nothing is billed."""
        return not (self.gb_month_picos or self.put_picos or self.get_picos or self.egress_picos)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What was kept on a day for a batch that lived, or else for a tenant."""

    batch_id: BatchId | None
    tenant_id: TenantId | None
    byte_microseconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What was sent out on a day: of a batch's results, or else of a tenant's files."""

    batch_id: BatchId | None
    tenant_id: TenantId
    size_bytes: int


def storage_micros(byte_us: int, gb_month_picos: int, day: date) -> int:
    """Return what so many byte-microseconds of that day cost, rounded down."""
    month = day.replace(day=1)
    month_us = ((month + timedelta(days=31)).replace(day=1) - month) // _MICROSECOND
    return byte_us * gb_month_picos // (_GB * month_us * PICOS_PER_MICRO)


def storage_accrual(day: date, kept: Sequence[Kept], prices: ObjectPrices, *, currency: str) -> Transaction | None:
    """Return what a day's storage cost whom; None where that is nothing."""
    total = storage_micros(sum(each.byte_microseconds for each in kept), prices.gb_month_picos, day)
    if not total:
        return None
    parts = split_by_weight(total, [each.byte_microseconds for each in kept])
    entries = [
        Entry(account=of_batch(each.batch_id), amounts=Amounts.cost(micros))
        for each, micros in zip(kept, parts, strict=True)
        if each.batch_id is not None and micros
    ]
    tenants = {str(each.tenant_id): micros for each, micros in zip(kept, parts, strict=True) if each.batch_id is None}
    if sum(tenants.values()):
        entries.append(Entry(account=of_overhead(Overhead.STORAGE), amounts=Amounts.cost(sum(tenants.values()))))
    detail = {
        "byte_microseconds": str(sum(each.byte_microseconds for each in kept)),
        "gb_month_picos": prices.gb_month_picos,
        "tenants": tenants,
    }
    return _accrual(f"objects:storage:{day}", day, entries, total, prices, detail, currency)


def request_accrual(day: date, *, puts: int, gets: int, prices: ObjectPrices, currency: str) -> Transaction | None:
    """Return what a day's requests cost; None where that is nothing."""
    total = (puts * prices.put_picos + gets * prices.get_picos) // PICOS_PER_MICRO
    if not total:
        return None
    entries = [Entry(account=of_overhead(Overhead.STORAGE), amounts=Amounts.cost(total))]
    detail = {
        "puts": puts,
        "gets": gets,
        "estimated": "a PUT for each object that the tables name, a GET for each shard of each attempt and each part of a "
        "batch that was finalized",
    }
    return _accrual(f"objects:requests:{day}", day, entries, total, prices, detail, currency)


def egress_accrual(day: date, sent: Sequence[Sent], prices: ObjectPrices, *, currency: str) -> Transaction | None:
    """Return what a day's downloads cost whom, as if all went to the internet; None where that is nothing."""
    size_bytes = sum(each.size_bytes for each in sent)
    total = size_bytes * prices.egress_picos // (_GB * PICOS_PER_MICRO)
    if not total:
        return None
    parts = split_by_weight(total, [each.size_bytes for each in sent])
    entries = [
        Entry(account=of_batch(each.batch_id), amounts=Amounts.cost(micros))
        for each, micros in zip(sent, parts, strict=True)
        if each.batch_id is not None and micros
    ]
    tenants: Counter[str] = Counter()
    for each, micros in zip(sent, parts, strict=True):
        if each.batch_id is None:
            tenants[each.tenant_id] += micros
    if tenants.total():
        entries.append(Entry(account=of_overhead(Overhead.NETWORK), amounts=Amounts.cost(tenants.total())))
    detail = {
        "size_bytes": size_bytes,
        "gb_picos": prices.egress_picos,
        "tenants": tenants,
        "estimated": "bytes that the API streamed, as if sent to the internet; links to the object store are not metered",
    }
    return _accrual(egress_key(day), day, entries, total, prices, detail, currency, category=CostCategory.NETWORK)


def egress_key(day: date) -> str:
    """Return what a day's downloads are posted for."""
    return f"objects:egress:{day}"


def _accrual(
    key: str,
    day: date,
    entries: Sequence[Entry],
    total_micros: int,
    prices: ObjectPrices,
    detail: Mapping[str, Any],
    currency: str,
    *,
    category: CostCategory = CostCategory.STORAGE,
) -> Transaction:
    begin = datetime.combine(day, time(), UTC)
    return Transaction(
        key=key,
        kind=TransactionKind.ACCRUAL,
        category=category,
        period_start=begin,
        period_stop=begin + _DAY,
        currency=currency,
        entries=(*entries, Entry(account=_SUPPLIER, amounts=Amounts.cost(-total_micros))),
        source=prices.source,
        detail=detail,
    )
