"""Which workers go: whose time is up, who has had nothing to do for too long, and whom a cheaper one has replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import WorkerState
from pipeline.ports.fleet import FleetReason, Stop, WorkerStanding
from scheduler.fleet.keep_warm import IdleGaps, ski_rental_seconds, start_cost_seconds
from scheduler.fleet.pool_needs import PoolCase, PoolNeed
from scheduler.fleet.renting import Renting, dearest_of, missing_of
from scheduler.fleet.terms import FleetTerms, IdleRule

_US = 1_000_000


@dataclass(slots=True)
class Stopping:
    """Decides who goes; remembers how long pools were quiet."""

    terms: FleetTerms
    gaps: dict[str, IdleGaps] = field(default_factory=dict)

    def observe(self, cases: Mapping[str, PoolCase]) -> None:
        """Take in which pools have work."""
        for name, case in cases.items():
            has_work = case.work.startable(case.now_us).present_seconds > 0
            self.gaps.setdefault(name, IdleGaps()).observe(case.now_us, has_work=has_work)

    def stops(self, case: PoolCase, need: PoolNeed, renting: Renting) -> list[Stop]:
        """Return who goes from one pool; nobody who is not ours."""
        end_us = case.now_us + round(self.terms.margin_seconds * _US)
        made = {
            worker.worker_id: FleetReason.LIFETIME
            for worker in case.crew.leaving
            if worker.offer is not None and worker.ends_by_us is not None and worker.ends_by_us <= end_us
        }
        self._idle(case, need, made)
        self._unlaunched(case, need, made)
        if case.table is not None:
            self._replaced(case, need, made)
            self._outpriced(case, need, renting, made)
        return [Stop(worker_id=worker_id, reason=reason) for worker_id, reason in made.items()]

    def _idle(self, case: PoolCase, need: PoolNeed, made: dict[WorkerId, FleetReason]) -> None:
        crew = case.crew
        # Whoever has not started yet takes nobody's place.
        surplus = self._working(case, made) - max(need.wanted, need.steady)
        steady, spot = len(crew.steady) + len(crew.others), len(crew.spot)
        rates = {offer.offer: offer.rate_micros_per_hour for offer in case.pool.offers}
        idle = [worker for worker in (*crew.steady, *crew.spot) if self._is_idle_long(case, worker)]
        if need.steady:
            # Without spot that rides along, more would have to be on demand.
            idle = [worker for worker in idle if worker in crew.steady]
        for worker in sorted(idle, key=lambda each: -rates.get(each.offer or "", 0)):
            fewer_steady, fewer_spot = (steady - 1, spot) if worker in crew.steady else (steady, spot - 1)
            missing = missing_of(case, need, steady=fewer_steady, spot=fewer_spot)
            if surplus > 0 and missing <= 0 and fewer_steady >= min(steady, need.steady):
                made[worker.worker_id] = FleetReason.IDLE
                steady, spot, surplus = fewer_steady, fewer_spot, surplus - 1

    def _unlaunched(self, case: PoolCase, need: PoolNeed, made: dict[WorkerId, FleetReason]) -> None:
        """Call off what was asked for and is not launched, where there is nothing left to do."""
        if need.work_seconds > 0 or case.work.present_seconds > 0:
            return
        ours = [*case.crew.spot, *case.crew.steady]
        waiting = [each for each in ours if each.state is WorkerState.REQUESTED and each.launched_at_us is None]
        surplus = case.crew.count - len(made) - max(need.wanted, need.steady)
        made.update({worker.worker_id: FleetReason.SURPLUS for worker in waiting[: max(0, surplus)]})

    def _replaced(self, case: PoolCase, need: PoolNeed, made: dict[WorkerId, FleetReason]) -> None:
        """Let on-demand workers go that spot makes good for, once it works; where there is none, that had better wait."""
        crew = case.crew
        left = [worker for worker in crew.steady if worker.worker_id not in made]
        excess = len(left) - max(0, max(need.steady, need.kept) - len(crew.others))
        spare = self._working(case, made) - need.wanted if case.is_available else len(left)
        if excess <= 0 or spare <= 0:
            return
        # What has not started yet goes first, and makes nobody fewer; then what was asked for last.
        left.sort(key=lambda each: -each.requested_at_us)
        starting = [each for each in left if each.state is not WorkerState.READY][:excess]
        working = [each for each in left if each.state is WorkerState.READY][: min(spare, excess - len(starting))]
        made.update({worker.worker_id: FleetReason.REPLACED for worker in (*starting, *working)})

    def _outpriced(self, case: PoolCase, need: PoolNeed, renting: Renting, made: dict[WorkerId, FleetReason]) -> None:
        """Let one spot worker go that a cheaper one was started for, when that one works."""
        spot = [worker for worker in case.crew.spot if worker.worker_id not in made]
        dearest = dearest_of(spot, case.pool)
        best = renting.spot_by_utility(case)[:1]
        if dearest is None or not best or self._working(case, made) <= max(need.wanted, need.steady):
            return
        if renting.is_better(case, dearest, best[0]):
            made[dearest.worker_id] = FleetReason.REPLACED

    def _working(self, case: PoolCase, made: Mapping[WorkerId, FleetReason]) -> int:
        crew = case.crew
        everyone = (*crew.spot, *crew.others, *crew.steady)
        return sum(each.state is WorkerState.READY and each.worker_id not in made for each in everyone)

    def _is_idle_long(self, case: PoolCase, worker: WorkerStanding) -> bool:
        if worker.idle_since_us is None:
            return False
        minimum = next((each.minimum_seconds for each in case.pool.offers if each.offer == worker.offer), 0.0)
        began_us = worker.requested_at_us if worker.launched_at_us is None else worker.launched_at_us
        if case.now_us - began_us < minimum * _US:
            # It is paid for until then.
            return False
        cost = start_cost_seconds(case.pool.cold_start_seconds, minimum_seconds=minimum)
        limit = ski_rental_seconds(cost)
        if self.terms.idle_rule is IdleRule.HAZARD and case.pool.pool in self.gaps:
            limit = self.gaps[case.pool.pool].threshold_seconds(cost)
        return case.now_us - worker.idle_since_us >= max(self.terms.idle_seconds_min, limit) * _US
