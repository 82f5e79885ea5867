"""What one pool is to have: on demand, on spot, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.domain.lifecycle import WorkerState
from pipeline.ports.fleet import FleetReason, OfferView, PoolKind, WorkerStanding
from scheduler.columns import Floats
from scheduler.fleet.demand import PoolWork
from scheduler.fleet.jobs import Mode
from scheduler.fleet.offers import is_spot
from scheduler.fleet.share_rules import ON_DEMAND, ON_SPOT, ShareRule
from scheduler.fleet.sizing import (
    StartTime,
    cumulative,
    edf_need,
    fallback_limits,
    latest_start_seconds,
    on_demand_floor,
    reachable,
)
from scheduler.fleet.terms import FleetTerms

_US = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """The workers of a pool that take work or will, by who may take them away."""

    #: Ours on spot, ours otherwise, and those that are not ours to stop; none that is soon to go.
    spot: tuple[WorkerStanding, ...]
    steady: tuple[WorkerStanding, ...]
    others: tuple[WorkerStanding, ...]
    #: Those whose machine must be gone before another could take their place.
    leaving: tuple[WorkerStanding, ...]

    @classmethod
    def of(cls, workers: Sequence[WorkerStanding], pool: PoolKind, now_us: int, terms: FleetTerms) -> Crew:
        """Sort the workers of a pool."""
        spot_offers = {offer.offer for offer in pool.offers if is_spot(offer)}
        soon_us = now_us + round((pool.cold_start_seconds + terms.step_seconds + terms.margin_seconds) * _US)
        leaving = [each for each in workers if each.ends_by_us is not None and each.ends_by_us <= soon_us]
        staying = [each for each in workers if each.ends_by_us is None or each.ends_by_us > soon_us]
        return cls(
            spot=tuple(each for each in staying if each.offer in spot_offers),
            steady=tuple(each for each in staying if each.offer is not None and each.offer not in spot_offers),
            others=tuple(each for each in staying if each.offer is None),
            leaving=tuple(leaving),
        )

    @property
    def count(self) -> int:
        """All that stay."""
        return len(self.spot) + len(self.steady) + len(self.others)


def ready_in(workers: Sequence[WorkerStanding], pool: PoolKind, now_us: int) -> Floats:
    """Return the seconds until each works, as starts of the pool usually take."""
    waits = [
        0.0
        if worker.state is WorkerState.READY
        else max(0.0, pool.cold_start_seconds - (now_us - worker.requested_at_us) / _US)
        for worker in workers
    ]
    return np.sort(np.array(waits, dtype=np.float64))


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolNeed:
    """How many workers a pool is to have, in order of how much depends on it."""

    #: On demand, or not ours, so that what is promised is safe, whatever becomes of spot; and all that is due.
    promised_floor: int = 0
    floor: int = 0
    #: On demand besides, because it is cheaper than to wait longer.
    on_demand: int = 0
    #: On demand that run already, and are not to be left for spot or for waiting yet.
    kept: int = 0
    #: Of any market: what deadlines need, and what is cheapest.
    deadline: int = 0
    wanted: int = 0
    reason: FleetReason = FleetReason.NO_WORK
    work_seconds: float = 0.0

    @property
    def steady(self) -> int:
        """On demand, for whatever reason."""
        return max(self.floor, self.on_demand)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCase:
    """All that the need of one pool follows from."""

    pool: PoolKind
    work: PoolWork
    crew: Crew
    now_us: int
    #: On-demand workers that there may be in all; 0: the pool has no such offers.
    steady_most: int
    #: Some of the work does not wait for more to share a start with.
    is_hurried: bool = False
    #: Of the spot offers that are worth it; None: there are none, or there is no work.
    table: ShareRule | None = None
    worth_it: tuple[OfferView, ...] = ()
    #: What an hour of work done now is worth, in micro-units.
    work_value: float = 0.0
    is_available: bool = False
    age_ticks: int = 1
    #: As long as nine of ten spot workers that run last at least; 0: none of it is relied on.
    spot_life_seconds: float = 0.0


def need_of(case: PoolCase, terms: FleetTerms) -> PoolNeed:
    """Return what the pool is to have."""
    pool, crew, now_us = case.pool, case.crew, case.now_us
    start = StartTime(cold_start_seconds=pool.cold_start_seconds)
    begins_us = now_us + round((pool.cold_start_seconds + terms.step_seconds) * _US)
    work = case.work.startable(begins_us)
    left, due = cumulative(work, now_us, terms.margin_seconds)
    if not len(due) or due[-1] <= 0:
        return PoolNeed(wanted=pool.workers_min, reason=_idle_reason(pool))
    steady = ready_in((*crew.steady, *crew.others), pool, now_us)
    promised = work if work.is_promised.all() else work.where(work.is_promised)
    lasting = (case.spot_life_seconds - ready_in(crew.spot, pool, now_us)).clip(min=0.0)
    trusted = lasting if terms.promises_count_spot else None
    promised_floor = _floor(promised, case, start, steady, terms, done_by_spot=trusted)
    floor = promised_floor
    if not work.is_promised.all():
        floor = max(floor, _floor(work, case, start, steady, terms, done_by_spot=lasting))
    everyone = ready_in((*crew.steady, *crew.others, *crew.spot), pool, now_us)
    deadline = edf_need(left, due, everyone, start, share_seconds_min=terms.share_seconds_min)
    deadline = min(deadline, max(1, int(np.ceil(due[-1] / terms.share_seconds_min))))
    found = PoolNeed(
        promised_floor=promised_floor,
        floor=floor,
        deadline=deadline,
        wanted=max(deadline, pool.workers_min),
        reason=FleetReason.DEADLINE if work.present_seconds > 0 else FleetReason.FORECAST,
        work_seconds=float(due[-1]),
    )
    if not crew.count and not floor and not case.is_hurried and _may_gather(left, due, start, terms):
        return PoolNeed(
            wanted=pool.workers_min,
            reason=FleetReason.WARM if pool.workers_min else FleetReason.SLACK,
            work_seconds=float(due[-1]),
        )
    if case.table is None:
        return replace(found, on_demand=deadline, kept=deadline)
    by_table = _by_table(found, case, case.table, reachable(left, start, terms.share_seconds_min), due, terms)
    if case.is_hurried and not max(by_table.wanted, by_table.steady):
        return replace(by_table, wanted=1, on_demand=0 if case.is_available else 1, reason=FleetReason.DEADLINE)
    return by_table


def _by_table(
    found: PoolNeed, case: PoolCase, table: ShareRule, left: Floats, due: Floats, terms: FleetTerms
) -> PoolNeed:
    """Return the need with spot: as many as the work has shares, each doing what the table says of it."""
    there, age = case.is_available, case.age_ticks
    most = max(1.0, np.ceil(due[-1] / terms.share_seconds_min))
    share = np.minimum(table.share_seconds(left, is_available=there, age_ticks=age), due)
    shares = np.minimum(np.ceil(due / np.maximum(share, 1.0) - 1e-9), most)
    each = due / shares
    fresh = table.choices(left, each, Mode.IDLE, is_available=there, age_ticks=age)
    riding = table.choices(left, each, Mode.SPOT, is_available=True, age_ticks=age)
    paid = table.choices(left, each, Mode.ON_DEMAND, is_available=there, age_ticks=age)
    # Who has not started yet rides on nothing.
    riders = np.minimum(sum(worker.state is WorkerState.READY for worker in case.crew.spot), shares)
    on_demand = np.where(fresh == ON_DEMAND, shares - riders, 0) + np.where(riding == ON_DEMAND, riders, 0)
    on_spot = np.where(fresh == ON_SPOT, shares, np.where(riding == ON_SPOT, riders, 0))
    kept = np.where(paid == ON_DEMAND, shares, 0)
    steady = max(found.floor, int(on_demand.max()))
    wanted = max(int(on_spot.max()), steady, case.pool.workers_min)
    if not case.steady_most:
        # There is nothing to fall back on: spot is all that deadlines have.
        wanted, steady = max(wanted, found.deadline, int(on_demand.max())), 0
    elif case.is_available:
        wanted = max(wanted, min(found.deadline, int(shares.max())))
    reason = FleetReason.SLACK if not wanted else FleetReason.CHEAP
    if steady:
        reason = FleetReason.FLOOR if found.floor >= steady else FleetReason.DEADLINE
    return replace(found, on_demand=steady, kept=int(kept.max()), wanted=wanted, reason=reason)


def _floor(
    work: PoolWork,
    case: PoolCase,
    start: StartTime,
    steady: Floats,
    terms: FleetTerms,
    done_by_spot: Floats | None = None,
) -> int:
    left, due = cumulative(work, case.now_us, terms.margin_seconds)
    if done_by_spot is not None and len(done_by_spot) and len(left):
        # By each deadline, what spot workers do that last so long and no longer.
        due = np.maximum(0.0, due - np.minimum(left[:, None], done_by_spot[None, :]).clip(min=0.0).sum(axis=1))
    if not len(due) or case.steady_most <= 0:
        return 0
    thin = terms.share_seconds_min
    limits = fallback_limits(
        left, due, start, overhead_max=terms.overhead_max, most=case.steady_most, share_seconds_min=thin
    )
    return on_demand_floor(
        left, due, steady, start, step_seconds=terms.step_seconds, limits=limits, share_seconds_min=thin
    )


def _may_gather(left: Floats, due: Floats, start: StartTime, terms: FleetTerms) -> bool:
    """Whether so little is there, and so far from due, that more of it is waited for before anything starts."""
    is_little = due[-1] * terms.overhead_max < start.cold_start_seconds
    kept = 4 * start.cold_start_seconds + 2 * terms.step_seconds
    return bool(is_little and latest_start_seconds(left, due, start, workers=1) > kept)


def _idle_reason(pool: PoolKind) -> FleetReason:
    return FleetReason.WARM if pool.workers_min else FleetReason.NO_WORK
