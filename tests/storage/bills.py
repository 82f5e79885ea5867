"""Bills for tests: prices that change, a first hour that is free, a minute that is the least."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.domain.costs.amounts import COST_NAMES, Amounts
from pipeline.domain.costs.bills import WorkerLife
from pipeline.domain.costs.hourly import metered
from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import WorkerEnd

SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US

#: Micro-units per hour, a column each, from an age on.
Steps = list[tuple[int, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class SteppedBill:
    """Written apart from the product's own rules: whole numerators, one floor."""

    steps: Steps
    length_us: int
    is_free: bool
    rule: str = "test_v1"
    source: str | None = "a test"

    def _until(self, age_us: int) -> Amounts:
        sums = [0] * len(COST_NAMES)
        for index, (start_us, rates) in enumerate(self.steps):
            stop_us = self.steps[index + 1][0] if index + 1 < len(self.steps) else age_us
            for column, rate in enumerate(rates):
                sums[column] += rate * max(0, min(age_us, stop_us) - start_us)
        amounts = [each // HOUR_US for each in sums]
        if self.is_free:
            amounts[2] = amounts[3] = 0
        return Amounts.of((*amounts, 0))

    def between(self, start_us: int, stop_us: int) -> Amounts:
        return self._until(stop_us) - self._until(start_us)

    @property
    def _rounded_us(self) -> int:
        return -(-self.length_us // SECOND_US) * SECOND_US

    @property
    def rounding(self) -> Amounts:
        return self.between(self.length_us, self._rounded_us)

    @property
    def minimum(self) -> Amounts:
        return self.between(self._rounded_us, max(self._rounded_us, 60 * SECOND_US))


@dataclass(slots=True)
class SteppedBills:
    """Prices that tests change."""

    steps: dict[WorkerId, Steps] = field(default_factory=dict)
    number: int = 0

    def change(self, worker_id: WorkerId, steps: Steps) -> None:
        self.steps[worker_id] = steps
        self.number += 1

    @property
    def is_of_prices(self) -> bool:
        return False

    def revision(self) -> int:
        return self.number

    def bill(self, life: WorkerLife) -> SteppedBill:
        rates = life.rates
        registered: Steps = [
            (
                0,
                (
                    rates.list_micros,
                    rates.contracted_micros,
                    rates.effective_micros,
                    rates.billed_micros,
                    rates.on_demand_micros,
                ),
            )
        ]
        return SteppedBill(
            self.steps.get(life.worker_id, registered),
            life.metered_until_us,
            life.end_cause is WorkerEnd.INTERRUPTED and life.metered_until_us < HOUR_US,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatBill:
    """Every microsecond at the rates that the worker was registered with; nothing is free and nothing rounded."""

    rates: Amounts
    rule: str = "flat_v1"
    source: str | None = None
    rounding: Amounts = field(default_factory=Amounts)
    minimum: Amounts = field(default_factory=Amounts)

    def between(self, start_us: int, stop_us: int) -> Amounts:
        return metered(self.rates, start_us, stop_us)


class FlatBills:
    """Bills without price histories or rules."""

    @property
    def is_of_prices(self) -> bool:
        return False

    def revision(self) -> int:
        return 0

    def bill(self, life: WorkerLife) -> FlatBill:
        return FlatBill(rates=life.rates)
