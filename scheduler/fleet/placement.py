"""Which pool work goes to: the one that does it for least, among those that may and can."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pipeline.ports.fleet import FleetView, PoolKind, WorkerStanding
from scheduler.fleet.demand import Due, Lane, PoolWork, pool_work
from scheduler.fleet.offers import effective_rate, is_coming_or_there
from scheduler.fleet.sizing import cumulative

#: Shares of a lane below this are not worth a place.
_SHARE_MIN: Final = 1e-6

Shares = dict[str, dict[Lane, float]]


def may_run(pool: PoolKind, lane: Lane) -> bool:
    """Whether a pool may run such rows: any of its workers may lease a pack, so all of its offers must be where they may be."""
    if lane.model not in pool.paces or lane.tier not in pool.tiers:
        return False
    return lane.regions is None or all(offer.region in lane.regions for offer in pool.offers)


def place(
    view: FleetView,
    lanes: Mapping[Lane, Due],
    *,
    workers_most: Callable[[PoolKind], int],
    margin_seconds: float,
    stays_within: float = 0.0,
) -> tuple[Shares, tuple[Lane, ...]]:
    """Return what share of each lane goes to which pool, and the lanes that no pool runs.

    Each goes where it costs least; what a pool can not do in time with all the workers it may have goes to the next. A pool
    that has workers is preferred to one that is cheaper by less than `stays_within`.
    """
    live = {worker.pool for worker in view.workers if is_coming_or_there(worker)}
    order = {lane: _order(view.pools, lane, due, live, stays_within) for lane, due in lanes.items()}
    pools = {pool.pool: pool for pool in view.pools}
    shares: Shares = {pool.pool: {} for pool in view.pools}
    at = dict.fromkeys(lanes, 0)
    for lane, names in order.items():
        if names:
            shares[names[0]][lane] = 1.0
    for _ in range(len(pools)):
        moved = False
        for name, placed in shares.items():
            work = pool_work(lanes, placed, pools[name].paces)
            kept = _kept_share(work, view.now_us, pools[name], workers_most(pools[name]), margin_seconds)
            for lane, share in list(placed.items()) if kept < 1 else []:
                names = order[lane]
                following = names.index(name) + 1
                if following < len(names) and share * (1 - kept) > _SHARE_MIN:
                    placed[lane] = share * kept
                    onward = shares[names[following]]
                    onward[lane] = onward.get(lane, 0.0) + share * (1 - kept)
                    at[lane], moved = following, True
        if not moved:
            break
    return shares, tuple(lane for lane, names in order.items() if not names)


def _kept_share(work: PoolWork, now_us: int, pool: PoolKind, most: int, margin_seconds: float) -> float:
    left, due = cumulative(work, now_us, margin_seconds)
    if not len(due):
        return 1.0
    able = most * (left - pool.cold_start_seconds).clip(min=1.0)
    return min(1.0, float((able / due.clip(min=1e-9)).min()))


def _order(pools: Sequence[PoolKind], lane: Lane, due: Due, live: set[str], stays_within: float) -> list[str]:
    costs = []
    for pool in pools:
        if may_run(pool, lane) and (pool.offers or pool.pool in live):
            seconds = float(due.seconds(pool.paces[lane.model]).sum())
            cost = seconds * _rate(pool) * (1 - stays_within if pool.pool in live else 1)
            costs.append((cost, seconds, pool.pool))
    return [name for _, _, name in sorted(costs)]


def _rate(pool: PoolKind) -> float:
    rates = [effective_rate(offer, cold_start_seconds=pool.cold_start_seconds) for offer in pool.offers]
    return min((rate for rate in rates if not math.isinf(rate)), default=0.0)


def workers_of(view: FleetView, pool: str) -> list[WorkerStanding]:
    """Return the workers of a pool that take work or will."""
    return [worker for worker in view.workers if worker.pool == pool and is_coming_or_there(worker)]
