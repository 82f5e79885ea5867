"""Hourly rates: what an hour of a worker costs, seen five ways."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Self

from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.money import metered_cost_micros


@dataclass(frozen=True, slots=True, kw_only=True)
class HourlyRates:
    """Micro-units per hour; the names are those of `Amounts`."""

    list: int
    contracted: int
    effective: int
    billed: int
    on_demand: int

    def __post_init__(self) -> None:
        """Hold what the database holds, too."""
        assert min(astuple(self)) >= 0

    @classmethod
    def flat(cls, rate_micros_per_hour: int) -> Self:
        """Return rates that are the same however they are looked at."""
        return cls(
            list=rate_micros_per_hour,
            contracted=rate_micros_per_hour,
            effective=rate_micros_per_hour,
            billed=rate_micros_per_hour,
            on_demand=rate_micros_per_hour,
        )

    def cost(self, start_us: int, stop_us: int) -> Amounts:
        """Return what that span of a worker's life costs; adjacent spans telescope, in each amount."""
        return Amounts(
            list_micros=metered_cost_micros(self.list, start_us, stop_us),
            contracted_micros=metered_cost_micros(self.contracted, start_us, stop_us),
            effective_micros=metered_cost_micros(self.effective, start_us, stop_us),
            billed_micros=metered_cost_micros(self.billed, start_us, stop_us),
            on_demand_micros=metered_cost_micros(self.on_demand, start_us, stop_us),
        )
