"""Budgets of tenants, projects, batches and months hold together, whatever happens; `make bench-budgets` runs many more."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from pipeline.domain.costs.budgets import BudgetStanding
from scheduler.cursor import Cursor
from scheduler.funds import Funds
from scheduler.purses import Purse
from tests.scheduler.treasury import all_wrong, as_assumed, beside_fixed_time, treasury, within_bounds

RUNS = 4


def overruns(ratio: Callable[..., float], runs: int = RUNS) -> list[float]:
    return [treasury(seed, ratio).run().overrun_packs for seed in range(runs)]


def test_no_budget_is_overrun_while_packs_stay_within_their_bounds() -> None:
    assert overruns(within_bounds) == [0.0] * RUNS


def test_budgets_are_overrun_by_less_than_a_pack_where_their_times_spread() -> None:
    assert max(overruns(as_assumed)) <= 1.0


def test_budgets_are_overrun_by_less_than_a_pack_where_packs_have_a_fixed_time_that_nobody_told() -> None:
    assert max(overruns(beside_fixed_time)) <= 1.0


def test_what_is_overrun_is_what_packs_were_charged_beyond_their_bounds() -> None:
    # The runs themselves say so at every step.
    assert max(overruns(all_wrong)) > 0


def test_a_run_has_packs_and_stops() -> None:
    outcome = treasury(1, within_bounds).run()

    assert outcome.packs > 0
    assert outcome.stops > 0
    assert outcome.spent_micros > 0


def reserve_of_its_own_alone(self: Purse, micros: float) -> int:
    reserved = math.ceil(micros) if self.left_micros is None else min(math.ceil(micros), self.left_micros)
    if self.left_micros is not None:
        self.left_micros -= reserved
    return reserved


def at_cost(self: Cursor, second_micros: float) -> float:
    return self._row_seconds() * second_micros


MUTANTS: list[tuple[object, str, object]] = [
    (Funds, "claims_of", lambda _self, _place: ()),
    (Purse, "reserve", reserve_of_its_own_alone),
    (BudgetStanding, "left_micros", property(lambda self: self.limit_micros - self.spent_micros)),
    (BudgetStanding, "limit_micros", property(lambda self: self.terms.amount_micros + 2 * self.added_micros)),
    (Cursor, "_charge_per_row", at_cost),
]


@pytest.mark.parametrize(("place", "name", "mutant"), MUTANTS)
def test_a_broken_treasury_is_caught(monkeypatch: pytest.MonkeyPatch, place: object, name: str, mutant: object) -> None:
    monkeypatch.setattr(place, name, mutant)

    with pytest.raises(AssertionError):
        overruns(within_bounds, 60)
