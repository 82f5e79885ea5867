"""Which offers are asked for the workers that pools are to have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.domain.lifecycle import WorkerState
from pipeline.ports.fleet import FleetReason, OfferView, PoolKind, WorkerStanding
from scheduler.fleet.offers import Purse, effective_rate, efficiency, is_spot
from scheduler.fleet.pool_needs import PoolCase, PoolNeed
from scheduler.fleet.terms import FleetTerms

_US = 1_000_000
_HOUR_SECONDS = 3600


def effective(pool: PoolKind, offer: OfferView, terms: FleetTerms) -> float:
    """Return what an hour of work done by a worker of an offer costs, in micro-units."""
    return effective_rate(
        offer,
        cold_start_seconds=pool.cold_start_seconds,
        lost_seconds=terms.lost_seconds,
        egress_micros=offer.egress_micros,
    )


def utility(pool: PoolKind, offer: OfferView, value: float, terms: FleetTerms) -> float:
    """Return what an hour of a worker of the offer is worth beyond its price: value of work by efficiency, less price and egress.

    `value` is that of an hour of work done, in micro-units. Where capacity is thought to be lost at once, it is below 0.
    """
    life = offer.lifetime_seconds
    counts = efficiency(
        lifetime_seconds=life,
        cold_start_seconds=pool.cold_start_seconds,
        lost_seconds=terms.lost_seconds if is_spot(offer) else 0.0,
    )
    egress = 0.0 if math.isinf(life) else offer.egress_micros * _HOUR_SECONDS / max(life, 1.0)
    return value * counts - offer.rate_micros_per_hour - egress


def missing_of(case: PoolCase, need: PoolNeed, *, steady: int, spot: int) -> int:
    """Return how many more workers are to be rented, on whatever market, with so many there.

    Where there is spot, on-demand workers that spot may take the place of do not count: they stay until it works.
    """
    if case.table is not None and case.is_available:
        steady = min(steady, max(need.steady, need.kept, len(case.crew.others)))
    return need.wanted - steady - spot


@dataclass(slots=True)
class Renting:
    """Asks for what is missing, what is promised first; remembers which offers were asked though nothing was there."""

    terms: FleetTerms
    #: When an offer without capacity was last asked, all the same.
    probed_us: dict[str, int] = field(default_factory=dict)

    def is_usable(self, offer: OfferView, now_us: int) -> bool:
        """Whether an offer has capacity, as far as anyone knows."""
        return offer.is_available is not False and offer.refused_until_us <= now_us

    def ask(self, purse: Purse, cases: Mapping[str, PoolCase], needs: Mapping[str, PoolNeed]) -> dict[str, FleetReason]:
        """Ask for what is missing, and return what kept pools from having it."""
        shorts: dict[str, FleetReason] = {}
        asked = dict.fromkeys(cases, 0)
        steps = (
            ({name: need.promised_floor for name, need in needs.items()}, FleetReason.FLOOR),
            ({name: need.floor for name, need in needs.items()}, FleetReason.FLOOR),
            ({name: need.steady for name, need in needs.items()}, FleetReason.DEADLINE),
        )
        for counts, reason in steps:
            for name, case in cases.items():
                missing = counts[name] - len(case.crew.steady) - len(case.crew.others) - asked[name]
                offers = self._by_price(case.pool, [each for each in case.pool.offers if not is_spot(each)])
                if missing > 0:
                    asked[name] += self._asked(purse, case.pool, offers, (missing, reason), shorts)
        for name, case in cases.items():
            steady = len(case.crew.steady) + len(case.crew.others) + asked[name]
            missing = missing_of(case, needs[name], steady=steady, spot=len(case.crew.spot))
            if missing > 0:
                asked[name] += self._rest(purse, case, needs[name], missing, shorts)
            self._probe(purse, case, missing)
            if not asked[name]:
                self._replace(purse, case, needs[name])
        return shorts

    def _asked(
        self,
        purse: Purse,
        pool: PoolKind,
        offers: Sequence[OfferView],
        what: tuple[int, FleetReason],
        shorts: dict[str, FleetReason],
    ) -> int:
        count, reason = what
        got = purse.ask(pool, offers, count, reason)
        if got < count:
            shorts[pool.pool] = purse.why_not(pool, offers)
        return got

    def _rest(self, purse: Purse, case: PoolCase, need: PoolNeed, missing: int, shorts: dict[str, FleetReason]) -> int:
        """Ask for workers of any market: spot where the pool has any that is worth it."""
        pool = case.pool
        reason = FleetReason.WARM if need.wanted <= pool.workers_min and not need.work_seconds else need.reason
        if case.table is None:
            steady = [each for each in pool.offers if not is_spot(each)]
            usable = [each for each in pool.offers if self.is_usable(each, case.now_us)]
            offers = steady if need.work_seconds and steady else usable
            return self._asked(purse, pool, self._by_price(pool, offers), (missing, reason), shorts)
        return self._asked(purse, pool, self.spot_by_utility(case), (missing, FleetReason.CHEAP), shorts)

    def spot_by_utility(self, case: PoolCase) -> list[OfferView]:
        """Return spot offers that have capacity and are worth more than they cost, the best first; one at least, if any."""
        offers = [each for each in case.worth_it if self.is_usable(each, case.now_us)]
        value = case.work_value
        ranked = sorted(offers, key=lambda each: (-utility(case.pool, each, value, self.terms), each.offer))
        return [each for each in ranked if utility(case.pool, each, value, self.terms) > 0] or ranked[:1]

    def _probe(self, purse: Purse, case: PoolCase, missing: int) -> None:
        """Ask one offer without capacity for one of the workers that are missing: if it comes, it works."""
        if missing <= 0 or case.table is None or case.is_available:
            return
        stale = [
            offer
            for offer in case.worth_it
            if offer.refused_until_us <= case.now_us
            and case.now_us - self.probed_us.get(offer.offer, -(1 << 62)) >= self.terms.probe_seconds * _US
        ]
        if stale:
            first = min(stale, key=lambda each: (self.probed_us.get(each.offer, 0), each.rate_micros_per_hour))
            if purse.ask(case.pool, [first], 1, FleetReason.CHEAP):
                self.probed_us[first.offer] = case.now_us

    def _replace(self, purse: Purse, case: PoolCase, need: PoolNeed) -> None:
        """Ask for one worker in the place of a much dearer one, when nobody else of the pool is starting.

        Who is replaced goes when the new one works.
        """
        crew = case.crew
        if crew.count != need.wanted or need.steady or not need.work_seconds:
            return
        if any(worker.state is not WorkerState.READY for worker in (*crew.spot, *crew.steady)):
            return
        better = self.spot_by_utility(case)[:1] if case.table is not None else []
        dearest = dearest_of(crew.spot, case.pool)
        if better and dearest is not None and self.is_better(case, dearest, better[0]):
            purse.ask(case.pool, better, 1, FleetReason.REPLACED)

    def is_better(self, case: PoolCase, worker: WorkerStanding, offer: OfferView) -> bool:
        """Whether an offer saves so much on a worker that a new start is worth it, before the work ends or the new one does."""
        held = next((each for each in case.pool.offers if each.offer == worker.offer), None)
        if held is None:
            return False
        start = case.pool.cold_start_seconds
        if case.now_us - worker.requested_at_us < 2 * start * _US:
            return False
        saved = held.rate_micros_per_hour - effective(case.pool, offer, self.terms)
        if saved < self.terms.replacement_saving_min * held.rate_micros_per_hour:
            return False
        seconds = min(offer.lifetime_seconds, case.work.present_seconds / max(1, case.crew.count))
        cost = offer.rate_micros_per_hour * start + offer.egress_micros * _HOUR_SECONDS
        return saved * seconds > 2 * cost

    def _by_price(self, pool: PoolKind, offers: Sequence[OfferView]) -> list[OfferView]:
        return sorted(offers, key=lambda offer: (effective(pool, offer, self.terms), offer.offer))


def dearest_of(workers: Sequence[WorkerStanding], pool: PoolKind) -> WorkerStanding | None:
    """Return the worker whose hour costs most, the oldest of several."""
    rates = {offer.offer: offer.rate_micros_per_hour for offer in pool.offers}
    return max(workers, key=lambda each: (rates.get(each.offer or "", 0), -each.requested_at_us), default=None)
