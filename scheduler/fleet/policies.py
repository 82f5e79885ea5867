"""Named policies for the fleet as a whole; the default is `nightrate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from pipeline.ports.fleet import FleetPolicy
from scheduler.fleet.autoscalers import always_on, keda_lag, queue_length
from scheduler.fleet.nightrate import NightrateFleet
from scheduler.fleet.terms import FleetTerms, SpotRule

#: What a setting may name, and how it is made.
FLEET_POLICIES: Final[Mapping[str, Callable[[FleetTerms], FleetPolicy]]] = MappingProxyType(
    {
        "nightrate": NightrateFleet,
        "greedy": lambda terms: NightrateFleet(replace(terms, spot_rule=SpotRule.GREEDY), name="greedy"),
        "uniform_progress": lambda terms: NightrateFleet(
            replace(terms, spot_rule=SpotRule.UNIFORM_PROGRESS), name="uniform_progress"
        ),
        "on_demand_only": lambda terms: NightrateFleet(
            replace(terms, spot_rule=SpotRule.ON_DEMAND_ONLY), name="on_demand_only"
        ),
        "always_on": always_on,
        "queue_length": queue_length,
        "keda_lag": keda_lag,
    }
)
DEFAULT_FLEET_POLICY: Final = "nightrate"
