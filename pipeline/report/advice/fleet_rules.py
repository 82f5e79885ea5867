"""Rules about the workers: where they are, whether they idle, how they are paid for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from pipeline.ports.usage import PoolUsage, Usage
from pipeline.report.advice.proposals import (
    AdviceKind,
    Confidence,
    Proposal,
    Thresholds,
    base_account,
    idle_account,
)

_MILLION: Final = 1_000_000
_HUNDRED: Final = Decimal(100)
_MICROSECONDS_PER_HOUR: Final = 3_600_000_000
_ON_DEMAND: Final = "on_demand"


def cheaper_places(usage: Usage, limits: Thresholds) -> Iterator[Proposal]:
    """Propose the pool and market where a token of the same variant cost least."""
    prices = _prices(usage, limits)
    for work in usage.works:
        if not work.tokens or not work.cost_micros:
            continue
        of_variant = {
            (pool, market): price for (variant, pool, market), price in prices.items() if variant == work.variant
        }
        here = of_variant.get((work.pool, work.market))
        if here is None or len(of_variant) < 2:  # noqa: PLR2004 -- here and elsewhere
            continue
        (pool, market), price = min(of_variant.items(), key=lambda found: (found[1], found[0]))
        share = 1 - price / here
        if (pool, market) == (work.pool, work.market) or share * 100 < limits.difference_percent_min:
            continue
        yield Proposal(
            kind=AdviceKind.CHEAPER_PLACE,
            subject=f"{work.variant} in {work.tier} on {work.pool}, {work.market}",
            sentence=f"A token of {work.variant} cost {share * 100:.0f} % less in the pool {pool} ({market}) than in "
            f"{work.pool} ({work.market}).",
            shares={work.account: share},
            evidence={
                "cost_micros_per_million_tokens": round(here * _MILLION),
                "cost_micros_per_million_tokens_there": round(price * _MILLION),
                "tokens": work.tokens,
            },
            confidence=Confidence.MEDIUM,
            command=f"nightrate worker --pool {pool}",
        )


def less_idle(usage: Usage, limits: Thresholds) -> Iterator[Proposal]:
    """Propose fewer workers where they waited for work for long."""
    for pool in usage.pools:
        if not pool.life_us or not pool.idle_cost_micros:
            continue
        idle_percent = pool.idle_us / pool.life_us * 100
        if idle_percent < limits.idle_percent_max:
            continue
        workers = pool.life_us / _MICROSECONDS_PER_HOUR / max(pool.hours, 1)
        busy_workers = workers * (1 - idle_percent / 100)
        fewer = max(1, math.ceil(busy_workers / (1 - limits.idle_percent_kept / 100)))
        spared_us = (workers - fewer) * pool.hours * _MICROSECONDS_PER_HOUR
        if spared_us <= 0:
            continue
        share = Decimal(repr(round(min(spared_us / pool.idle_us, 1.0), 6)))
        yield Proposal(
            kind=AdviceKind.LESS_IDLE,
            subject=f"{pool.pool}, {pool.market}",
            sentence=f"Workers of the pool {pool.pool} waited for work {idle_percent:.0f} % of their time; {fewer} would have done "
            f"where {workers:.1f} were there.",
            shares={idle_account(pool.pool, pool.market): share},
            evidence={
                "idle_percent": round(idle_percent, 1),
                "idle_hours": round(pool.idle_us / _MICROSECONDS_PER_HOUR, 1),
                "workers_mean": round(workers, 2),
                "workers_enough": fewer,
            },
            confidence=Confidence.MEDIUM,
            command=f"nightrate up --workers {fewer}",
        )


def reserved_bases(usage: Usage, limits: Thresholds) -> Iterator[Proposal]:
    """Propose a commitment for on-demand workers that were always there, where its discount is known."""
    discount = usage.reserved_discount_percent
    for pool in usage.pools:
        if discount is None or pool.market != _ON_DEMAND or not pool.workers_always_on or pool.hours < limits.hours_min:
            continue
        always_us = pool.workers_always_on * pool.hours * _MICROSECONDS_PER_HOUR
        share = min(Decimal(always_us) / pool.life_us, Decimal(1)) * Decimal(repr(discount)) / _HUNDRED
        works = [work.account for work in usage.works if (work.pool, work.market) == (pool.pool, pool.market)]
        others = [idle_account(pool.pool, pool.market), base_account(pool.pool, pool.market)]
        yield Proposal(
            kind=AdviceKind.RESERVED_BASE,
            subject=f"{pool.pool}, {pool.market}",
            sentence=f"{pool.workers_always_on} on-demand workers of the pool {pool.pool} were there nine hours of ten or more; committed to, "
            f"they cost {discount:.0f} % less.",
            shares=dict.fromkeys([*works, *others], share),
            evidence={
                "workers_always_on": pool.workers_always_on,
                "hours": pool.hours,
                "discount_percent": discount,
                "on_demand_cost_micros": pool.cost_micros,
            },
            confidence=Confidence.MEDIUM,
            command="nightrate cost calc tco --on-demand-parts 0 --reserved-parts 1 --spot-parts 0",
        )


def other_cost_micros(usage: Usage, pool: PoolUsage) -> int:
    """Return what the pool's time cost that was neither work nor idle: booting, loading and the like."""
    work = sum(each.cost_micros for each in usage.works if (each.pool, each.market) == (pool.pool, pool.market))
    return max(0, pool.cost_micros - pool.idle_cost_micros - work)


def _prices(usage: Usage, limits: Thresholds) -> dict[tuple[str, str, str], Decimal]:
    """Return what a token of each variant cost in each place, in micro-units."""
    sums: dict[tuple[str, str, str], tuple[int, int]] = {}
    for work in usage.works:
        place = (work.variant, work.pool, work.market)
        tokens, cost = sums.get(place, (0, 0))
        sums[place] = (tokens + work.tokens, cost + work.cost_micros)
    return {
        place: Decimal(cost) / tokens
        for place, (tokens, cost) in sums.items()
        if tokens >= limits.tokens_min and cost > 0
    }
