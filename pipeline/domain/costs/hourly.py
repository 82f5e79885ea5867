"""Hours: what a span of a worker's life costs at its hourly rates, which are amounts an hour."""

from __future__ import annotations

from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.money import metered_cost_micros


def metered(rates: Amounts, start_us: int, stop_us: int) -> Amounts:
    """Return what that span costs, at rates in micro-units per hour; adjacent spans telescope, in each amount."""
    return Amounts.costs(lambda name: metered_cost_micros(getattr(rates, name), start_us, stop_us))
