"""Zones by price, pooled rung by rung: what a job would cost in the cheapest alone, in those and the next, and so on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from scheduler.fleet.decision_table import DecisionTable, build
from scheduler.fleet.jobs import Job
from scheduler.fleet.survival import AGE_EDGES, HAZARD_MAX, HAZARD_MIN, Survival
from scheduler.fleet.zones import Market, Zone

#: Prices that are told apart at most, each with a table of its own.
RUNGS_MAX: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """Decision tables of the cheapest zones alone, of those and the next, and so on: how far up to go is decided by cost."""

    #: Zones of each rung, cheapest first.
    rungs: tuple[tuple[str, ...], ...]
    #: Price of the dearest zone of each rung.
    prices: tuple[float, ...]
    pools: tuple[Survival, ...]
    tables: tuple[DecisionTable, ...]

    @classmethod
    def of(cls, job: Job, market: Market, survivals: Mapping[str, Survival]) -> Ladder:
        """Return the tables of a job; zones as dear as on demand are on no rung, unless all are."""
        order = sorted(market.zones, key=lambda zone: (zone.spot_price, zone.name))
        order = [zone for zone in order if zone.spot_price < job.on_demand_price] or order[:1]
        prices = sorted({zone.spot_price for zone in order})
        # Of many prices, the lowest and the highest stay, and others evenly between.
        kept = sorted({round(at) for at in np.linspace(0, len(prices) - 1, min(len(prices), RUNGS_MAX))})
        rungs = [tuple(zone for zone in order if zone.spot_price <= prices[at]) for at in kept]
        made = [pooled(job, rung, survivals) for rung in rungs]
        return cls(
            rungs=tuple(tuple(zone.name for zone in rung) for rung in rungs),
            prices=tuple(prices[at] for at in kept),
            pools=tuple(survival for _, survival in made),
            tables=tuple(build(*each) for each in made),
        )


def pooled(job: Job, zones: Sequence[Zone], survivals: Mapping[str, Survival]) -> tuple[Job, Survival]:
    """Return zones as one pool, cheapest first: the mean price of the cheapest there, and losses that others make good."""
    there = np.array([survivals[zone.name].availability for zone in zones])
    nobody = np.concatenate([[1.0], np.cumprod(1 - there)[:-1]])
    weights = there * nobody / (there * nobody).sum()
    runs = np.array([survivals[zone.name].run_hazards for zone in zones])
    outages = np.array([survivals[zone.name].outage_hazards for zone in zones])
    ages = np.array([survivals[zone.name].age_weights(is_available=True) for zone in zones])
    median = int(np.searchsorted(np.cumsum(weights @ ages), 0.5))
    # Of a run that ends, the chance that another zone has capacity: of each zone's, by all others.
    others = np.array([1 - np.prod(np.delete(1 - there, at)) for at in range(len(zones))])
    survival = Survival(
        run_hazards=weights @ runs,
        outage_hazards=np.clip(1 - np.prod(1 - outages, axis=0), HAZARD_MIN, HAZARD_MAX),
        elsewhere=float(weights @ others),
        elsewhere_bucket=min(median, len(AGE_EDGES) - 1),
    )
    prices = np.array([zone.spot_price for zone in zones])
    return replace(job, spot_price=float(weights @ prices)), survival
