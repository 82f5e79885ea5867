"""The fleet's default policy: place the work, size each pool, rent where it is cheapest, stop what nothing needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.ports.fleet import FleetPlan, FleetView, OfferView, PoolKind, PoolStanding
from scheduler.fleet.demand import Due, Lane, PoolWork, lanes_of, pool_work
from scheduler.fleet.offers import Purse, is_spot
from scheduler.fleet.placement import Mixer, place, workers_of
from scheduler.fleet.pool_needs import Crew, PoolCase, need_of
from scheduler.fleet.renting import Renting, effective
from scheduler.fleet.share_rules import EvenShares, GreedyShares, ShareRule
from scheduler.fleet.sizing import cumulative
from scheduler.fleet.spot import SpotTables, life_quantile_seconds
from scheduler.fleet.stopping import Stopping
from scheduler.fleet.survival import Survival
from scheduler.fleet.terms import FleetTerms, SpotRule

_US = 1_000_000
#: Of a pool that has no other way than spot: how many times spot's price what is late is taken to cost.
_ONLY_SPOT_FACTOR = 10


class NightrateFleet:
    """Deadlines on demand where they must be, spot where it is cheaper, and no machine that nothing needs."""

    def __init__(
        self,
        terms: FleetTerms | None = None,
        survivals: Mapping[str, Survival] | None = None,
        *,
        name: str = "nightrate",
    ) -> None:
        """Decide by these terms, knowing this of offers (by offer, in ticks of `terms.tick_seconds`)."""
        self.name = name
        self.terms = terms or FleetTerms()
        self.tables = SpotTables(
            tick_seconds=self.terms.tick_seconds,
            horizon_seconds=self.terms.horizon_seconds,
            survivals=survivals or {},
        )
        self._renting = Renting(self.terms)
        self._stopping = Stopping(self.terms)
        self._mixer = None
        if self.terms.mixing_seconds is not None:
            self._mixer = Mixer(
                every_seconds=self.terms.mixing_seconds,
                margin_seconds=self.terms.margin_seconds,
                stays_within=self.terms.placement_margin,
            )

    def decide(self, view: FleetView) -> FleetPlan:
        """Return what to start and stop now."""
        purse = Purse(view)
        cases = self._cases(view, purse)
        self._stopping.observe(cases)
        needs = {name: need_of(case, self.terms) for name, case in cases.items()}
        shorts = self._renting.ask(purse, cases, needs)
        stops = [
            stop for name, case in cases.items() for stop in self._stopping.stops(case, needs[name], self._renting)
        ]
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

    def _cases(self, view: FleetView, purse: Purse) -> dict[str, PoolCase]:
        crews = {pool.pool: Crew.of(workers_of(view, pool.pool), pool, view.now_us, self.terms) for pool in view.pools}
        lanes = lanes_of(view, quantile=self.terms.arrivals_quantile)
        most = {pool.pool: crews[pool.pool].count + purse.room(pool, pool.offers) for pool in view.pools}
        placed, _ = place(
            view,
            lanes,
            preferred=self._mixer.mixed(view, lanes, lambda pool: most[pool.pool]) if self._mixer else {},
            workers_most=lambda pool: most[pool.pool],
            margin_seconds=self.terms.margin_seconds,
            stays_within=self.terms.placement_margin,
        )
        return {
            pool.pool: self._case(
                pool,
                pool_work(lanes, placed[pool.pool], pool.paces),
                crews[pool.pool],
                purse,
                view.now_us,
                is_hurried=self._is_hurried(lanes, placed[pool.pool], view.now_us),
            )
            for pool in view.pools
        }

    def _is_hurried(self, lanes: Mapping[Lane, Due], shares: Mapping[Lane, float], now_us: int) -> bool:
        """Say whether any work is placed there that is not to wait for company."""
        hurried = (lanes[lane] for lane, share in shares.items() if share > 0 and lane.tier in self.terms.hurried_tiers)
        return any(bool((~due.is_expected & (due.from_us <= now_us)).any()) for due in hurried)

    def _case(
        self, pool: PoolKind, work: PoolWork, crew: Crew, purse: Purse, now_us: int, *, is_hurried: bool
    ) -> PoolCase:
        steady = [offer for offer in pool.offers if not is_spot(offer)]
        spot = self._worth_it(pool, steady)
        usable = [offer for offer in spot if self._renting.is_usable(offer, now_us)]
        rule = self._rule(pool, spot, steady) if len(work.seconds) else None
        age = max((self._age_ticks(offer, now_us) for offer in usable), default=1)
        value = 0.0
        if rule is not None:
            left, due = cumulative(work, now_us, self.terms.margin_seconds)
            # Of the class that presses most.
            at = int((due / left.clip(min=1.0)).argmax())
            each = rule.share_seconds(left[at : at + 1], is_available=bool(usable), age_ticks=age)
            value = rule.work_value(float(left[at]), float(each[0]), is_available=bool(usable), age_ticks=age)
        return PoolCase(
            pool=pool,
            work=work,
            crew=crew,
            now_us=now_us,
            is_hurried=is_hurried,
            steady_most=len(crew.steady) + len(crew.others) + purse.room(pool, steady),
            table=rule,
            worth_it=tuple(spot),
            work_value=value,
            is_available=bool(usable),
            age_ticks=age,
            spot_life_seconds=self._spot_life(spot, age) if self._counts_spot else 0.0,
        )

    @property
    def _counts_spot(self) -> bool:
        return self.terms.counts_spot or self.terms.promises_count_spot

    def _spot_life(self, spot: Sequence[OfferView], age_ticks: int) -> float:
        """Return how long spot can be counted on, in seconds: that of the offer that is lost soonest."""
        tick = self.terms.tick_seconds
        lives = [life_quantile_seconds(self.tables.survival(offer), age_ticks, tick) for offer in spot]
        return min(lives, default=0.0)

    def _rule(self, pool: PoolKind, spot: Sequence[OfferView], steady: Sequence[OfferView]) -> ShareRule | None:
        if not spot:
            return None
        price = float(min(offer.rate_micros_per_hour for offer in steady or spot))
        price *= 1 if steady else _ONLY_SPOT_FACTOR
        start = pool.cold_start_seconds
        if self.terms.spot_rule is SpotRule.GREEDY:
            return GreedyShares(cold_start_seconds=start, on_demand_price=price, overhead_max=self.terms.overhead_max)
        if self.terms.spot_rule is SpotRule.UNIFORM_PROGRESS:
            return EvenShares(cold_start_seconds=start, on_demand_price=price)
        return self.tables.table(spot, cold_start_seconds=start, on_demand_price=price)

    def _worth_it(self, pool: PoolKind, steady: Sequence[OfferView]) -> list[OfferView]:
        """Return the spot offers that do an hour of work for less than on demand does."""
        if self.terms.spot_rule is SpotRule.ON_DEMAND_ONLY and steady:
            return []
        limit = min((offer.rate_micros_per_hour for offer in steady), default=float("inf"))
        return [offer for offer in pool.offers if is_spot(offer) and effective(pool, offer, self.terms) < limit]

    def _age_ticks(self, offer: OfferView, now_us: int) -> int:
        if offer.available_since_us is None:
            return 1
        return max(1, int((now_us - offer.available_since_us) / _US / self.terms.tick_seconds))
