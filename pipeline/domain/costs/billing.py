"""Bills of workers: what a provider charges for a worker's life, as a function of time that telescopes.

A bill grows with the worker's age. The cost of any span is a difference of two floors of the running total, one for each
column, so that whatever the cuts, their costs sum to the bill to the micro-unit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from pipeline.domain.costs.amounts import COST_NAMES, Amounts
from pipeline.domain.costs.billing_rules import BillingRule
from pipeline.domain.costs.prices import Market
from pipeline.domain.costs.rate_card import RateStep

_MICROSECONDS_PER_HOUR: Final = 3_600_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """How long a worker was had, and how that ended."""

    length_us: int
    market: Market
    #: Whether the provider took it away. False too where it is not known yet: nothing is free on a guess.
    was_interrupted: bool = False

    def __post_init__(self) -> None:
        """Refuse a life that runs backwards."""
        assert self.length_us >= 0, f"a life of {self.length_us} us"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a bill consists of."""

    #: For the time that was used.
    used: Amounts
    #: For the rest of the last second or hour begun.
    rounding: Amounts
    #: For what was not used of the least that is charged.
    minimum: Amounts

    @property
    def total(self) -> Amounts:
        """Return the bill."""
        return self.used + self.rounding + self.minimum


class Bill:
    """What a worker's life costs by a rule, at rates that may have changed on the way."""

    def __init__(self, life: Life, steps: Sequence[RateStep], rule: BillingRule) -> None:
        """Bill `life`; `steps` are in order, and the first holds from its start."""
        assert steps, "a life without a rate"
        assert steps[0].from_us == 0, "the first rate holds from the start"
        assert all(before.from_us < step.from_us for before, step in pairwise(steps)), "out of order"
        self.life = life
        self.rule = rule
        # Time that is charged without being used has the price of the end: what comes later changes no bill.
        self._steps = [step for step in steps if step.from_us == 0 or step.from_us < life.length_us]
        self._starts = [step.from_us for step in self._steps]
        self._sums = _running(self._steps)
        is_spot = life.market is Market.SPOT
        self._billed_us = rule.billed_us(life.length_us, is_interrupted_spot=is_spot and life.was_interrupted)
        # What an on-demand machine would have cost: nobody interrupts it, and nothing of it is free.
        self._on_demand_us = rule.billed_us(life.length_us, is_interrupted_spot=False)

    @property
    def billed_us(self) -> int:
        """Return the time that is charged; 0 where all is free."""
        return self._billed_us

    @property
    def end_us(self) -> int:
        """Return the age past which no column grows any more."""
        return max(self._billed_us, self._on_demand_us)

    @property
    def total(self) -> Amounts:
        """Return the whole bill."""
        return self.until(self.end_us)

    @property
    def parts(self) -> Parts:
        """Return the bill by what it is for; the three sum to it."""
        used_us = self.life.length_us
        rounded_us = max(used_us, self.rule.rounded_us(used_us))
        used, rounded = self.until(used_us), self.until(rounded_us)
        return Parts(used=used, rounding=rounded - used, minimum=self.total - rounded)

    def until(self, age_us: int) -> Amounts:
        """Return what is charged up to that age: never less than up to any before."""
        assert age_us >= 0, f"an age of {age_us} us"
        return Amounts.costs(
            lambda name: (
                self._numerator(
                    name, min(age_us, self._on_demand_us if name == "on_demand_micros" else self._billed_us)
                )
                // _MICROSECONDS_PER_HOUR
            )
        )

    def between(self, start_us: int, stop_us: int) -> Amounts:
        """Return the cost of a span; costs of adjacent spans sum to that of both."""
        assert start_us <= stop_us, f"span runs backwards: {start_us} to {stop_us}"
        return self.until(stop_us) - self.until(start_us)

    def _numerator(self, name: str, age_us: int) -> int:
        """Return rates times microseconds up to that age, in micro-units times microseconds per hour."""
        index = bisect_right(self._starts, age_us) - 1
        step = self._steps[index]
        return int(getattr(self._sums[index], name)) + int(getattr(step.rates, name)) * (age_us - step.from_us)


def _running(steps: Sequence[RateStep]) -> list[Amounts]:
    """Return, for each step, rates times microseconds of all before it."""
    sums = [Amounts()]
    for step, following in pairwise(steps):
        lasted_us = following.from_us - step.from_us
        sums.append(
            Amounts(**{name: getattr(sums[-1], name) + getattr(step.rates, name) * lasted_us for name in COST_NAMES})
        )
    return sums
