"""What others do: policies that want so many workers of each pool by one number, to be compared with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.domain.lifecycle import WorkerState
from pipeline.ports.fleet import FleetPlan, FleetReason, FleetView, PoolKind, PoolStanding, Stop, WorkerStanding
from scheduler.fleet.demand import lanes_of, pool_work
from scheduler.fleet.offers import Purse, is_spot
from scheduler.fleet.placement import place, workers_of
from scheduler.fleet.replicas import Stabilizer, replicas
from scheduler.fleet.terms import FleetTerms

_US = 1_000_000


def steered(view: FleetView, wanted: Callable[[PoolKind, float, int], int], *, on_spot: bool = False) -> FleetPlan:
    """Return the plan that gives each pool as many workers as `wanted` says of it, its work in seconds, and what it has.

    All are on demand, or spot where it says so and there is any. Who goes: what has not started, what is idle, the youngest.
    """
    purse = Purse(view)
    seconds = present_seconds(view)
    stops: list[Stop] = []
    standings = []
    for pool in view.pools:
        workers = workers_of(view, pool.pool)
        count = max(pool.workers_min, wanted(pool, seconds[pool.pool], len(workers)))
        missing = count - len(workers)
        reason = FleetReason.DEADLINE if count else FleetReason.NO_WORK
        if missing > 0:
            offers = sorted(pool.offers, key=lambda offer: (offer.rate_micros_per_hour, offer.offer))
            offers = [offer for offer in offers if is_spot(offer) == on_spot] or offers
            if purse.ask(pool, offers, missing, FleetReason.DEADLINE) < missing:
                reason = purse.why_not(pool, offers)
        ours = sorted((worker for worker in workers if worker.offer is not None), key=_first_to_go)
        stops += [Stop(worker_id=worker.worker_id, reason=FleetReason.SURPLUS) for worker in ours[: max(0, -missing)]]
        standings.append(PoolStanding(pool=pool.pool, wanted=count, reason=reason, work_seconds=seconds[pool.pool]))
    return FleetPlan(starts=purse.made(), stops=tuple(stops), standings=tuple(standings))


def present_seconds(view: FleetView) -> dict[str, float]:
    """Return the worker-seconds that are there now, by the pool that they are placed in."""
    lanes = {
        lane: due.where(~due.is_expected & (due.from_us <= view.now_us))
        for lane, due in lanes_of(view, quantile=0.5).items()
    }
    shares, _ = place(view, lanes, workers_most=lambda pool: pool.workers_max or 1_000_000, margin_seconds=0.0)
    return {pool.pool: pool_work(lanes, shares[pool.pool], pool.paces).present_seconds for pool in view.pools}


def _first_to_go(worker: WorkerStanding) -> tuple[bool, bool, int]:
    return worker.state is WorkerState.READY, worker.idle_since_us is None, -worker.requested_at_us


@dataclass(slots=True)
class AlwaysOn:
    """As many workers of each pool all the time, sized for the peak."""

    workers: int = 1
    name: str = "always_on"

    def decide(self, view: FleetView) -> FleetPlan:
        """Return what is missing."""
        return steered(view, lambda pool, _seconds, _count: min(self.workers, pool.workers_max or self.workers))


@dataclass(slots=True, kw_only=True)
class QueueLength:
    """Looks at the queue every so often, and wants as many workers as do it within the target: ceil(current x metric / target)."""

    step_seconds: float = 300.0
    target_seconds: float = 600.0
    tolerance: float = 0.1
    down_seconds: float = 300.0
    name: str = "queue_length"
    _looked_us: int | None = None
    _wanted: dict[str, int] = field(default_factory=dict)
    _stabilizers: dict[str, Stabilizer] = field(default_factory=dict)

    def decide(self, view: FleetView) -> FleetPlan:
        """Return what the last look asks for; looks anew when it is time."""
        is_due = self._looked_us is None or view.now_us - self._looked_us >= self.step_seconds * _US
        if is_due:
            self._looked_us = view.now_us
        return steered(view, self._count if not is_due else self._look(view.now_us))

    def _count(self, pool: PoolKind, _seconds: float, count: int) -> int:
        return self._wanted.get(pool.pool, count)

    def _look(self, now_us: int) -> Callable[[PoolKind, float, int], int]:
        def look(pool: PoolKind, seconds: float, count: int) -> int:
            stabilizer = self._stabilizers.setdefault(
                pool.pool, Stabilizer(down_seconds=self.down_seconds, up_period_seconds=None)
            )
            found = scaled(count, seconds, self.target_seconds, tolerance=self.tolerance)
            self._wanted[pool.pool] = stabilizer.settle(now_us, count, found)
            return self._wanted[pool.pool]

        return look


def scaled(count: int, seconds: float, target_seconds: float, *, tolerance: float) -> int:
    """Return the replicas for a queue; from none, as many as it has targets, for of none there is no mean."""
    if count == 0:
        return math.ceil(seconds / target_seconds)
    return replicas(count, seconds / count, target_seconds, tolerance=tolerance)


@dataclass(slots=True, kw_only=True)
class KedaLag:
    """An event-driven autoscaler on lag: from none to one at any lag, then the classic one, and to none after a cooldown."""

    polling_seconds: float = 30.0
    cooldown_seconds: float = 300.0
    target_seconds: float = 600.0
    name: str = "keda_lag"
    _polled_us: int | None = None
    _active_us: dict[str, int] = field(default_factory=dict)
    _wanted: dict[str, int] = field(default_factory=dict)
    _stabilizers: dict[str, Stabilizer] = field(default_factory=dict)

    def decide(self, view: FleetView) -> FleetPlan:
        """Return what the last poll asks for; polls anew when it is time."""
        if self._polled_us is not None and view.now_us - self._polled_us < self.polling_seconds * _US:
            return steered(view, lambda pool, _seconds, count: self._wanted.get(pool.pool, count))
        self._polled_us = view.now_us
        return steered(view, lambda pool, seconds, count: self._poll(view.now_us, pool.pool, seconds, count))

    def _poll(self, now_us: int, pool: str, seconds: float, count: int) -> int:
        if seconds > 0:
            self._active_us[pool] = now_us
        if count == 0:
            wanted = 1 if seconds > 0 else 0
        elif seconds <= 0 and now_us - self._active_us.get(pool, now_us) >= self.cooldown_seconds * _US:
            wanted = 0
        else:
            stabilizer = self._stabilizers.setdefault(pool, Stabilizer())
            found = scaled(count, seconds, self.target_seconds, tolerance=0.1)
            wanted = max(1, stabilizer.settle(now_us, count, found))
        self._wanted[pool] = wanted
        return wanted


def always_on(terms: FleetTerms) -> AlwaysOn:
    """Return the policy by its terms."""
    return AlwaysOn(terms.always_on_workers)


def queue_length(terms: FleetTerms) -> QueueLength:
    """Return the policy by its terms."""
    return QueueLength(target_seconds=terms.target_seconds)


def keda_lag(terms: FleetTerms) -> KedaLag:
    """Return the policy by its terms."""
    return KedaLag(target_seconds=terms.target_seconds)
