"""To how many workers the fleet can bring a pool: what deadlines are promised on that no worker serves yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pipeline.domain.costs.prices import Market
from pipeline.ports.cycle import PoolView, Reach, Serving
from pipeline.ports.fleet import FleetView, PoolKind


def pools_within_reach(pools: Iterable[PoolView], view: FleetView) -> tuple[PoolView, ...]:
    """Return these pools, and those of the fleet that have no workers, each with what it can be brought to."""
    seen = {pool.pool: pool for pool in pools}
    for kind in view.pools:
        reach = reach_of(kind, view)
        if reach is not None:
            seen[kind.pool] = replace(seen.get(kind.pool) or _empty(kind), reach=reach)
    return tuple(seen[name] for name in sorted(seen))


def reach_of(kind: PoolKind, view: FleetView) -> Reach | None:
    """Return how many workers of the pool nobody can take from us or refuse us, as far as is known; None for none.

    Only what is on demand counts, and of a pool or an offer without a limit one worker: how many there are to be had
    has not been said.
    """
    offers = [
        offer for offer in kind.offers if offer.market is Market.ON_DEMAND and offer.refused_until_us <= view.now_us
    ]
    if not offers:
        return None
    limits = [offer.workers_max for offer in offers]
    known = sum(limit for limit in limits if limit is not None)
    workers = known if None not in limits else max(known, kind.workers_max or 1)
    if kind.workers_max is not None:
        workers = min(workers, kind.workers_max)
    rate = min(offer.rate_micros_per_hour for offer in offers)
    if view.spend_micros_per_hour_max is not None and rate > 0:
        workers = min(workers, view.spend_micros_per_hour_max // rate)
    return Reach(workers=workers, after_seconds=kind.cold_start_seconds) if workers > 0 else None


def _empty(kind: PoolKind) -> PoolView:
    servings = tuple(Serving(variant=model, model=model, tiers=kind.tiers) for model in kind.paces)
    rates = [offer.rate_micros_per_hour for offer in kind.offers]
    return PoolView(
        pool=kind.pool, workers=0, servings=servings, packs_waiting=0, rate_micros_per_hour=max(rates, default=0)
    )
