"""Allocating: the overhead of a pool's hour shared over the batches that ran in it, by a named rule.

Sums by pool stay what they were: what batches are debited, the overhead's accounts are credited. An hour without
batches keeps its overhead. Charges do not follow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.costs.settling import HOUR
from pipeline.domain.costs.splitting import split_amounts
from pipeline.domain.costs.transactions import (
    Account,
    CostCategory,
    Entry,
    Overhead,
    SharingRule,
    Transaction,
    TransactionKind,
    is_of_batch,
    of_overhead,
)

#: What may be shared: what nobody's rows brought about.
SHAREABLE: Final = frozenset(
    {Overhead.BOOT, Overhead.LOAD, Overhead.IDLE, Overhead.DRAIN, Overhead.MINIMUM, Overhead.ROUNDING}
)
_EVENLY: Final = Amounts.cost(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolHour:
    """What a pool's hour holds in one currency."""

    pool: str
    hour: datetime
    currency: str
    #: Accrued and settled.
    costs: Mapping[Account, Amounts]
    #: Allocated before: debits of batches, credits of overhead.
    allocated: Mapping[Account, Amounts]


def allocation(
    pool_hour: PoolHour, rule: SharingRule, kinds: Collection[Overhead], *, number: int
) -> Transaction | None:
    """Return what brings the hour's allocations to the rule; None where they are what it says."""
    wanted = _wanted(pool_hour, rule, kinds)
    accounts = sorted({*wanted, *pool_hour.allocated})
    nothing = Amounts()
    differences = {
        account: difference
        for account in accounts
        if (difference := wanted.get(account, nothing) - pool_hour.allocated.get(account, nothing))
    }
    if not differences:
        return None
    return Transaction(
        key=f"allocation:{pool_hour.pool}:{pool_hour.hour:%Y-%m-%dT%H}:{number}",
        kind=TransactionKind.ALLOCATION,
        category=CostCategory.COMPUTE,
        period_start=pool_hour.hour,
        period_stop=pool_hour.hour + HOUR,
        currency=pool_hour.currency,
        entries=tuple(Entry(account=account, amounts=amounts) for account, amounts in differences.items()),
        method=f"{rule}_v1",
        detail={"pool": pool_hour.pool, "kinds": sorted(kinds)},
    )


def _wanted(pool_hour: PoolHour, rule: SharingRule, kinds: Collection[Overhead]) -> dict[Account, Amounts]:
    batches = sorted(account for account in pool_hour.costs if is_of_batch(account))
    pots = {
        account: pool_hour.costs[account]
        for account in map(of_overhead, sorted(kinds))
        if pool_hour.costs.get(account, Amounts())
    }
    if rule is SharingRule.NONE or not batches or not pots:
        return {}
    shares = [_EVENLY if rule is SharingRule.EVEN else pool_hour.costs[batch] for batch in batches]
    parts = split_amounts(Amounts.total(pots.values()), shares)
    return {**dict(zip(batches, parts, strict=True)), **{account: -amounts for account, amounts in pots.items()}}
