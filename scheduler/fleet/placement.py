"""Which pool work goes to: the one that does it for least, among those that may and can."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np

from pipeline.ports.fleet import FleetView, PoolKind, WorkerStanding
from scheduler.fleet.demand import Due, Lane, PoolWork, pool_work
from scheduler.fleet.mixing import mix
from scheduler.fleet.offers import effective_rate, is_coming_or_there
from scheduler.fleet.sizing import cumulative

#: Shares of a lane below this are not worth a place.
_SHARE_MIN: Final = 1e-6
_US: Final = 1_000_000

Shares = dict[str, dict[Lane, float]]


def may_run(pool: PoolKind, lane: Lane) -> bool:
    """Whether a pool may run such rows: any of its workers may lease a pack, so all of its offers must be where they may be."""
    if lane.model not in pool.paces or lane.tier not in pool.tiers:
        return False
    # Of a pool that nobody rents for us it is not known where its workers are.
    return lane.regions is None or (bool(pool.offers) and all(offer.region in lane.regions for offer in pool.offers))


def place(
    view: FleetView,
    lanes: Mapping[Lane, Due],
    *,
    workers_most: Callable[[PoolKind], int],
    margin_seconds: float,
    stays_within: float = 0.0,
    preferred: Mapping[Lane, str] = MappingProxyType({}),
) -> tuple[Shares, tuple[Lane, ...]]:
    """Return what share of each lane goes to which pool, and the lanes that no pool runs.

    Each goes where it costs least; what a pool can not do in time with all the workers it may have goes to the next. A pool
    that has workers is preferred to one that is cheaper by less than `stays_within`, and `preferred` ones to all.
    """
    live = {worker.pool for worker in view.workers if is_coming_or_there(worker)}
    order = {
        lane: _order(view.pools, lane, due, live, stays_within, preferred.get(lane)) for lane, due in lanes.items()
    }
    pools = {pool.pool: pool for pool in view.pools}
    shares: Shares = {pool.pool: {} for pool in view.pools}
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
                    moved = True
        if not moved:
            break
    return shares, tuple(lane for lane, names in order.items() if not names)


def _kept_share(work: PoolWork, now_us: int, pool: PoolKind, most: int, margin_seconds: float) -> float:
    left, due = cumulative(work, now_us, margin_seconds)
    if not len(due):
        return 1.0
    able = most * (left - pool.cold_start_seconds).clip(min=1.0)
    return min(1.0, float((able / due.clip(min=1e-9)).min()))


def _order(
    pools: Sequence[PoolKind], lane: Lane, due: Due, live: set[str], stays_within: float, preferred: str | None
) -> list[str]:
    costs = []
    for pool in pools:
        if may_run(pool, lane) and (pool.offers or pool.pool in live):
            seconds = float(due.seconds(pool.paces[lane.model]).sum())
            cost = seconds * _rate(pool) * (1 - stays_within if pool.pool in live else 1)
            costs.append((pool.pool != preferred, cost, seconds, pool.pool))
    return [name for *_, name in sorted(costs)]


def _rate(pool: PoolKind) -> float:
    rates = [effective_rate(offer, cold_start_seconds=pool.cold_start_seconds) for offer in pool.offers]
    return min((rate for rate in rates if not math.isinf(rate)), default=0.0)


def workers_of(view: FleetView, pool: str) -> list[WorkerStanding]:
    """Return the workers of a pool that take work or will."""
    return [worker for worker in view.workers if worker.pool == pool and is_coming_or_there(worker)]


@dataclass(slots=True, kw_only=True)
class Mixer:
    """Which pool each lane had best go to, all taken together: worked out now and then, and kept in between."""

    every_seconds: float
    margin_seconds: float
    #: A mix is left for another that costs less by at least this share.
    stays_within: float = 0.1
    preferred: dict[Lane, str] = field(default_factory=dict)
    _mixed_us: int | None = None

    def mixed(
        self, view: FleetView, lanes: Mapping[Lane, Due], workers_most: Callable[[PoolKind], int]
    ) -> Mapping[Lane, str]:
        """Return the pool that each lane is to go to first; lanes that no mix has a place for are not told."""
        is_due = self._mixed_us is None or view.now_us - self._mixed_us >= self.every_seconds * _US
        if is_due or any(lane not in self.preferred for lane in lanes):
            self._mixed_us = view.now_us
            self._mix(view, {lane: due for lane, due in lanes.items() if len(due.due_us)}, workers_most)
        return self.preferred

    def _mix(self, view: FleetView, lanes: Mapping[Lane, Due], workers_most: Callable[[PoolKind], int]) -> None:
        loads = np.array([[self._load(view, pool, lane, due) for pool in view.pools] for lane, due in lanes.items()])
        placed = [number for number, row in enumerate(loads) if np.isfinite(row).any()]
        names = [list(lanes)[number] for number in placed]
        if not names:
            return
        prices = np.array([max(_rate(pool), 1.0) for pool in view.pools])
        quotas = np.array([float(workers_most(pool)) for pool in view.pools])
        found = mix(loads[placed], prices, quotas)
        if found is None:
            return
        at = {pool.pool: number for number, pool in enumerate(view.pools)}
        kept = [at.get(self.preferred.get(lane, ""), -1) for lane in names]
        if min(kept) >= 0:
            used = np.zeros(len(prices))
            np.add.at(used, kept, loads[placed][np.arange(len(names)), kept])
            if found.cost > (1 - self.stays_within) * float(np.ceil(used) @ prices):
                return
        self.preferred = {lane: view.pools[kind].pool for lane, kind in zip(names, found.kinds, strict=True)}

    def _load(self, view: FleetView, pool: PoolKind, lane: Lane, due: Due) -> float:
        """Return the workers of a pool that a lane keeps busy, so that it is in time."""
        if not may_run(pool, lane) or not pool.offers:
            return math.inf
        left, seconds = cumulative(pool_work({lane: due}, {lane: 1.0}, pool.paces), view.now_us, self.margin_seconds)
        return float((seconds / (left - pool.cold_start_seconds).clip(min=60.0)).max())
