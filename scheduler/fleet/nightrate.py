"""The fleet's default policy: place the work, size each pool, rent where it is cheapest, stop what nothing needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import WorkerState
from pipeline.ports.fleet import (
    FleetPlan,
    FleetReason,
    FleetView,
    OfferView,
    PoolKind,
    PoolStanding,
    Stop,
    WorkerStanding,
)
from scheduler.fleet.demand import lanes_of, pool_work
from scheduler.fleet.offers import Purse, effective_rate, is_spot
from scheduler.fleet.placement import place, workers_of
from scheduler.fleet.pool_needs import Crew, PoolCase, PoolNeed, need_of
from scheduler.fleet.spot import SpotTable, SpotTables
from scheduler.fleet.survival import Survival
from scheduler.fleet.terms import FleetTerms, SpotRule

_US = 1_000_000
_HOUR_SECONDS = 3600


class NightrateFleet:
    """Deadlines on demand where they must be, spot where it is cheaper, and no machine that nothing needs."""

    name = "nightrate"

    def __init__(self, terms: FleetTerms | None = None, survivals: Mapping[str, Survival] | None = None) -> None:
        """Decide by these terms, knowing this of offers."""
        self.terms = terms or FleetTerms()
        self.tables = SpotTables(
            tick_seconds=self.terms.tick_seconds,
            horizon_seconds=self.terms.horizon_seconds,
            survivals=survivals or {},
        )
        #: When an offer without capacity was last asked, all the same.
        self._probed_us: dict[str, int] = {}

    def decide(self, view: FleetView) -> FleetPlan:
        """Return what to start and stop now."""
        purse = Purse(view)
        crews = {pool.pool: Crew.of(workers_of(view, pool.pool), pool, view.now_us, self.terms) for pool in view.pools}
        cases = self._cases(view, purse, crews)
        needs = {name: need_of(case, self.terms) for name, case in cases.items()}
        shorts = self._start(view, purse, cases, needs)
        stops = [stop for name, case in cases.items() for stop in self._stops(case, needs[name])]
        standings = tuple(
            PoolStanding(
                pool=name,
                wanted=max(need.wanted, need.steady),
                reason=shorts.get(name, need.reason),
                on_demand_wanted=need.steady,
                work_seconds=need.work_seconds,
            )
            for name, need in needs.items()
        )
        return FleetPlan(starts=purse.made(), stops=tuple(stops), standings=standings)

    def _cases(self, view: FleetView, purse: Purse, crews: Mapping[str, Crew]) -> dict[str, PoolCase]:
        lanes = lanes_of(view, quantile=self.terms.arrivals_quantile)
        placed, _ = place(
            view,
            lanes,
            workers_most=lambda pool: crews[pool.pool].count + purse.room(pool, pool.offers),
            margin_seconds=self.terms.margin_seconds,
            stays_within=self.terms.placement_margin,
        )
        made = {}
        for pool in view.pools:
            crew = crews[pool.pool]
            steady_offers = [offer for offer in pool.offers if not is_spot(offer)]
            spot = self._worth_it(pool, steady_offers)
            usable = [offer for offer in spot if self._is_usable(offer, view.now_us)]
            made[pool.pool] = PoolCase(
                pool=pool,
                work=pool_work(lanes, placed[pool.pool], pool.paces),
                crew=crew,
                now_us=view.now_us,
                steady_most=len(crew.steady) + len(crew.others) + purse.room(pool, steady_offers),
                table=self._table(pool, spot, steady_offers),
                is_available=bool(usable),
                age_ticks=max((self._age_ticks(offer, view.now_us) for offer in usable), default=1),
            )
        return made

    def _table(self, pool: PoolKind, spot: Sequence[OfferView], steady: Sequence[OfferView]) -> SpotTable | None:
        if not spot:
            return None
        price = min(offer.rate_micros_per_hour for offer in (steady or spot)) * (1 if steady else 10)
        return self.tables.table(spot, cold_start_seconds=pool.cold_start_seconds, on_demand_price=float(price))

    def _worth_it(self, pool: PoolKind, steady: Sequence[OfferView]) -> list[OfferView]:
        """Return the spot offers that do an hour of work for less than on demand does."""
        if self.terms.spot_rule is SpotRule.ON_DEMAND_ONLY and steady:
            return []
        limit = min((offer.rate_micros_per_hour for offer in steady), default=float("inf"))
        return [offer for offer in pool.offers if is_spot(offer) and self._effective(pool, offer) < limit]

    def _effective(self, pool: PoolKind, offer: OfferView) -> float:
        return effective_rate(offer, cold_start_seconds=pool.cold_start_seconds, lost_seconds=self.terms.lost_seconds)

    def _is_usable(self, offer: OfferView, now_us: int) -> bool:
        return offer.is_available is not False and offer.refused_until_us <= now_us

    def _age_ticks(self, offer: OfferView, now_us: int) -> int:
        if offer.available_since_us is None:
            return 1
        return max(1, int((now_us - offer.available_since_us) / _US / self.terms.tick_seconds))

    def _start(
        self, view: FleetView, purse: Purse, cases: Mapping[str, PoolCase], needs: Mapping[str, PoolNeed]
    ) -> dict[str, FleetReason]:
        """Ask for what is missing, what is promised first, and return what kept pools from having it."""
        shorts: dict[str, FleetReason] = {}
        steps = (
            ({name: need.promised_floor for name, need in needs.items()}, FleetReason.FLOOR),
            ({name: need.floor for name, need in needs.items()}, FleetReason.FLOOR),
            ({name: need.steady for name, need in needs.items()}, FleetReason.DEADLINE),
        )
        asked = dict.fromkeys(cases, 0)
        for counts, reason in steps:
            for name, case in cases.items():
                missing = counts[name] - len(case.crew.steady) - len(case.crew.others) - asked[name]
                offers = self._by_price(case.pool, [each for each in case.pool.offers if not is_spot(each)])
                if missing > 0:
                    got = purse.ask(case.pool, offers, missing, reason)
                    asked[name] += got
                    if got < missing:
                        shorts[name] = purse.why_not(case.pool, offers)
        for name, case in cases.items():
            missing = needs[name].wanted - case.crew.count - asked[name]
            if missing > 0:
                spot = case.table is not None
                offers = [
                    each
                    for each in case.pool.offers
                    if (is_spot(each) and self._is_usable(each, view.now_us)) or not spot
                ]
                why = FleetReason.CHEAP if spot else FleetReason.WARM
                got = purse.ask(case.pool, self._by_price(case.pool, offers), missing, why)
                if got < missing:
                    shorts[name] = purse.why_not(case.pool, offers)
        return shorts

    def _by_price(self, pool: PoolKind, offers: Sequence[OfferView]) -> list[OfferView]:
        return sorted(offers, key=lambda offer: (self._effective(pool, offer), offer.offer))

    def _stops(self, case: PoolCase, need: PoolNeed) -> list[Stop]:
        """Return who goes: who must, who has nothing to do for too long, and whom spot has replaced."""
        crew, now_us = case.crew, case.now_us
        end_us = now_us + round(self.terms.margin_seconds * _US)
        stops = [
            Stop(worker_id=worker.worker_id, reason=FleetReason.LIFETIME)
            for worker in crew.leaving
            if worker.offer is not None and worker.ends_by_us is not None and worker.ends_by_us <= end_us
        ]
        rates = {offer.offer: offer.rate_micros_per_hour for offer in case.pool.offers}
        surplus = crew.count - max(need.wanted, need.steady)
        spare_steady = len(crew.steady) + len(crew.others) - need.steady
        idle = [worker for worker in (*crew.steady, *crew.spot) if self._is_idle_long(case, worker)]
        gone: set[WorkerId] = set()
        for worker in sorted(idle, key=lambda each: -rates.get(each.offer or "", 0)):
            is_steady = worker in crew.steady
            if surplus > 0 and (not is_steady or spare_steady > 0):
                stops.append(Stop(worker_id=worker.worker_id, reason=FleetReason.IDLE))
                gone.add(worker.worker_id)
                surplus, spare_steady = surplus - 1, spare_steady - is_steady
        if case.table is not None:
            stops.extend(self._replaced(case, need, gone))
        return stops

    def _replaced(self, case: PoolCase, need: PoolNeed, gone: set[WorkerId]) -> list[Stop]:
        """Return on-demand workers that spot makes good for, once it is there, or that had better wait."""
        crew = case.crew
        left = [worker for worker in crew.steady if worker.worker_id not in gone]
        keep = max(need.steady, need.kept) - len(crew.others)
        working = sum(
            worker.state is WorkerState.READY and worker.worker_id not in gone
            for worker in (*crew.spot, *crew.others, *crew.steady)
        )
        # Spot that is there takes over when it works; where there is none, waiting is what is cheaper.
        spare = working - need.wanted if case.is_available else len(left)
        count = max(0, min(len(left) - max(0, keep), spare))
        return [Stop(worker_id=worker.worker_id, reason=FleetReason.REPLACED) for worker in left[:count]]

    def _is_idle_long(self, case: PoolCase, worker: WorkerStanding) -> bool:
        if worker.idle_since_us is None:
            return False
        limit = max(self.terms.idle_seconds_min, case.pool.cold_start_seconds)
        return case.now_us - worker.idle_since_us >= limit * _US
