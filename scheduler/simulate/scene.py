"""The scene of a fleet: pools whose workers come and go, and the offers that they are rented by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final

from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.costs.billing_rules import BillingRule, rule_of
from pipeline.domain.costs.prices import Market
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Serving
from scheduler.simulate.capacity import Capacity
from scheduler.simulate.fleet import Disturbance, Fleet, Pool, Speed, Trouble

_DAY_SECONDS: Final = 86_400.0
#: Nothing starts faster than in this share of its mean.
_LEAST_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """Seconds that something takes, spread log-normally around their mean."""

    mean_seconds: float
    #: Standard deviation of the logarithm.
    spread: float = 0.2

    def draw(self, random: Random) -> float:
        """Return one of them."""
        # Of a log-normal with this median the mean is `mean_seconds`.
        drawn = self.mean_seconds * math.exp(random.gauss(-self.spread * self.spread / 2, self.spread))
        return max(self.least_seconds, drawn)

    @property
    def least_seconds(self) -> float:
        """Return what it takes at least."""
        return self.mean_seconds * _LEAST_SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class Offering:
    """One way to rent a worker, as it really is: policies see of it what they asked for and got."""

    name: str
    pool: str
    market: Market
    #: What an hour costs, and what it would cost on demand there.
    rate_micros_per_hour: int
    on_demand_micros_per_hour: int
    provider: str | None = None
    instance_type: str | None = None
    region: str | None = None
    zone: str | None = None
    #: That we may have at once: a quota, known to all. None: no limit.
    workers_max: int | None = None
    #: That there is: known to nobody. None: without end, and nothing is ever taken away.
    capacity: Capacity | None = None

    @property
    def rule(self) -> BillingRule:
        """Return how it is billed."""
        return rule_of(self.provider)

    @property
    def rates(self) -> Amounts:
        """Return what an hour costs, as bills have it."""
        rate = self.rate_micros_per_hour
        return Amounts(
            list_micros=rate,
            contracted_micros=rate,
            effective_micros=rate,
            billed_micros=rate,
            on_demand_micros=self.on_demand_micros_per_hour,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ElasticPool:
    """Workers of one speed, that are rented by offers."""

    name: str
    offerings: tuple[Offering, ...]
    #: By model: what a worker really takes.
    speeds: Mapping[str, Speed]
    boot: Delay = field(default_factory=lambda: Delay(mean_seconds=120.0))
    load: Delay = field(default_factory=lambda: Delay(mean_seconds=180.0))
    workers_min: int = 0
    workers_max: int | None = None
    tiers: frozenset[Tier] = frozenset(Tier)

    @property
    def cold_start_seconds(self) -> float:
        """Return the mean time from request to work."""
        return self.boot.mean_seconds + self.load.mean_seconds

    @property
    def workers_reachable(self) -> int:
        """Return how many workers it may have for certain: on demand, as far as quotas go."""
        found = math.inf if self.workers_max is None else self.workers_max
        quotas = [each.workers_max for each in self.offerings if each.capacity is None]
        if None not in quotas:
            found = min(found, sum(quota for quota in quotas if quota is not None))
        return round(min(found, _UNLIMITED))


#: Stands for a pool without limits.
_UNLIMITED: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything that a fleet's simulation takes as given, but for arrivals."""

    pools: tuple[ElasticPool, ...]
    trouble: Disturbance = field(default_factory=Trouble)
    #: What all workers may cost an hour.
    spend_micros_per_hour_max: int | None = None
    #: How often the fleet's policy decides.
    interval_seconds: float = 60.0
    #: What changes within this is packed together.
    cycle_seconds: float = 5.0
    #: How long before a machine is taken away its worker is told.
    notice_seconds: float = 30.0
    #: What a worker has in its engine is lost with it: so much of its last work runs again.
    lost_seconds: float = 20.0
    #: From the last pack until the machine is gone.
    drain_seconds: float = 15.0
    #: How long after a refusal nothing is asked of an offer.
    refusal_seconds: float = 300.0
    #: Whatever happens, machines are gone after this.
    lifetime_seconds: float = _DAY_SECONDS
    #: How old a sight of capacity may be.
    sight_seconds: float = 3600.0

    @property
    def offerings(self) -> dict[str, Offering]:
        """Return the offers of all pools by name."""
        return {each.name: each for pool in self.pools for each in pool.offerings}

    def fleet(self) -> Fleet:
        """Return the pools as the scheduler's cycle knows them, nobody in them yet."""
        return Fleet(pools=tuple(_plain(pool) for pool in self.pools), trouble=self.trouble)


def _plain(pool: ElasticPool) -> Pool:
    servings = tuple(Serving(variant=model, model=model, tiers=pool.tiers) for model in pool.speeds)
    return Pool(name=pool.name, workers=0, speeds=pool.speeds, servings=servings)
