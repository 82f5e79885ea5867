"""What offers come to, and what may still be asked of them: prices in effect, quotas, and what all may cost an hour."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.domain.costs.prices import Market
from pipeline.domain.lifecycle import WorkerState
from pipeline.ports.fleet import FleetReason, FleetView, OfferView, PoolKind, Start, UnitPace, WorkerStanding

_HOUR_SECONDS = 3600
_MILLION = 1_000_000
#: Workers, where no limit is known.
_NO_LIMIT = 1_000_000


def is_spot(offer: OfferView) -> bool:
    """Whether its provider may take the machine."""
    return offer.market is Market.SPOT


def is_ours(worker: WorkerStanding) -> bool:
    """Whether we started it, and so may stop it."""
    return worker.offer is not None


def is_coming_or_there(worker: WorkerStanding) -> bool:
    """Whether it takes work, now or when it has started."""
    return not worker.state.is_terminal and worker.state is not WorkerState.DRAINING


def efficiency(*, lifetime_seconds: float, cold_start_seconds: float, lost_seconds: float = 0.0) -> float:
    """Return the part of a worker's seconds whose results count: its start, and what it loses when taken, do not."""
    if math.isinf(lifetime_seconds):
        return 1.0
    return max(0.0, lifetime_seconds - cold_start_seconds - lost_seconds) / max(lifetime_seconds, 1.0)


def effective_rate(
    offer: OfferView,
    *,
    cold_start_seconds: float,
    lost_seconds: float = 0.0,
    stay_seconds: float = math.inf,
    egress_micros: float = 0.0,
) -> float:
    """Return what an hour of work done costs, in micro-units: price over efficiency, and egress over its life.

    `stay_seconds` is how long a worker would be kept; what is billed is never less than the offer's least. A worker that is
    taken while it is free of charge costs nothing then: that is left out, and so this is never too low.
    """
    life = min(offer.lifetime_seconds, stay_seconds)
    useful = life * efficiency(
        lifetime_seconds=life, cold_start_seconds=cold_start_seconds, lost_seconds=lost_seconds if is_spot(offer) else 0
    )
    if math.isinf(life):
        return float(offer.rate_micros_per_hour)
    if useful <= 0:
        return math.inf
    billed = max(life, offer.minimum_seconds)
    return (offer.rate_micros_per_hour * billed + egress_micros * _HOUR_SECONDS) / useful


def price_per_million_tokens(rate_micros_per_hour: float, pace: UnitPace, *, output_share: float = 0.5) -> float:
    """Return micro-units for a million tokens, of which this share is output, at a rate for an hour of work."""
    seconds = (1 - output_share) * pace.input_token_seconds + output_share * pace.output_token_seconds
    return _MILLION * seconds * rate_micros_per_hour / _HOUR_SECONDS


@dataclass(slots=True)
class Purse:
    """What may still be started: counts what lives, and what the plan has asked for so far."""

    view: FleetView
    starts: dict[tuple[str, FleetReason], int] = field(default_factory=dict)
    _of_offer: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _of_pool: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _micros_per_hour: int = 0

    def __post_init__(self) -> None:
        """Count the workers that live, those that drain among them: they are billed, and fill quotas."""
        rates = {offer.offer: offer.rate_micros_per_hour for pool in self.view.pools for offer in pool.offers}
        for worker in self.view.workers:
            if worker.state.is_terminal:
                continue
            self._of_pool[worker.pool] += 1
            if worker.offer is not None:
                self._of_offer[worker.offer] += 1
                self._micros_per_hour += rates.get(worker.offer, 0)

    def room(self, pool: PoolKind, offers: Sequence[OfferView]) -> int:
        """Return how many more workers these offers may be asked for together, in this order."""
        count, spent = 0, 0
        for offer in offers:
            more = min(self._offer_room(offer), self._pool_room(pool) - count, self._money_room(offer, spent))
            count, spent = count + max(0, more), spent + max(0, more) * offer.rate_micros_per_hour
        return count

    def why_not(self, pool: PoolKind, offers: Sequence[OfferView]) -> FleetReason:
        """Return what keeps the pool from having one more."""
        open_now = [offer for offer in offers if self._is_open(offer)]
        if not open_now:
            return FleetReason.CAPACITY
        if self._pool_room(pool) <= 0 or all(self._offer_room(offer) <= 0 for offer in open_now):
            return FleetReason.QUOTA
        return FleetReason.SPEND

    def ask(self, pool: PoolKind, offers: Sequence[OfferView], count: int, reason: FleetReason) -> int:
        """Ask these offers, in order, for so many workers; return how many may be asked for."""
        asked = 0
        for offer in offers:
            more = min(count - asked, self._offer_room(offer), self._pool_room(pool), self._money_room(offer))
            if more > 0:
                self.starts[offer.offer, reason] = self.starts.get((offer.offer, reason), 0) + more
                self._of_offer[offer.offer] += more
                self._of_pool[pool.pool] += more
                self._micros_per_hour += more * offer.rate_micros_per_hour
                asked += more
        return asked

    def made(self) -> tuple[Start, ...]:
        """Return what was asked for."""
        return tuple(Start(offer=offer, count=count, reason=reason) for (offer, reason), count in self.starts.items())

    def _is_open(self, offer: OfferView) -> bool:
        return offer.refused_until_us <= self.view.now_us

    def _offer_room(self, offer: OfferView) -> int:
        if not self._is_open(offer):
            return 0
        return _NO_LIMIT if offer.workers_max is None else max(0, offer.workers_max - self._of_offer[offer.offer])

    def _pool_room(self, pool: PoolKind) -> int:
        return _NO_LIMIT if pool.workers_max is None else max(0, pool.workers_max - self._of_pool[pool.pool])

    def _money_room(self, offer: OfferView, spent: int = 0) -> int:
        most = self.view.spend_micros_per_hour_max
        if most is None or offer.rate_micros_per_hour <= 0:
            return _NO_LIMIT
        return max(0, (most - self._micros_per_hour - spent) // offer.rate_micros_per_hour)
