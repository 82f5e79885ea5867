"""Settling brings what was metered to the bill, whatever was metered."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.costs.billing import Bill, Life
from pipeline.domain.costs.billing_rules import AWS_LINUX_V1, BILLING_RULES, BillingRule
from pipeline.domain.costs.columns import Columns
from pipeline.domain.costs.prices import Market
from pipeline.domain.costs.rate_card import RateStep
from pipeline.domain.costs.settlement import Metered, settle

SECOND = 1_000_000
FLAT = Columns.flat(3_600_000)


def summed(parts: list[Columns]) -> Columns:
    total = Columns()
    for part in parts:
        total += part
    return total


def metered(cuts: list[int], rates: Columns = FLAT) -> list[Metered]:
    by_meter = Bill(
        Life(length_us=cuts[-1], market=Market.SPOT), [RateStep(from_us=0, rates=rates)], BILLING_RULES["flat_v1"]
    )
    return [
        Metered(start_us=start, stop_us=stop, charged=by_meter.between(start, stop)) for start, stop in pairwise(cuts)
    ]


def test_a_short_life_is_charged_the_rest_of_its_minute() -> None:
    life = Life(length_us=20 * SECOND + 500_000, market=Market.SPOT)
    bill = Bill(life, [RateStep(from_us=0, rates=FLAT)], AWS_LINUX_V1)

    found = settle(bill, metered([0, 5 * SECOND, life.length_us]))

    assert found.spans == (Columns(), Columns())
    assert found.rounding == Columns.flat(500)
    assert found.minimum == Columns.flat(39_000)


def test_an_interruption_in_the_first_hour_takes_all_back_but_what_on_demand_would_have_cost() -> None:
    life = Life(length_us=100 * SECOND, market=Market.SPOT, was_interrupted=True)
    bill = Bill(life, [RateStep(from_us=0, rates=FLAT)], AWS_LINUX_V1)

    found = settle(bill, metered([0, 40 * SECOND, 100 * SECOND]))

    taken_back = [Columns(on_demand_micros=micros) - Columns.flat(micros) for micros in (40_000, 60_000)]
    assert list(found.spans) == taken_back
    assert (found.rounding, found.minimum) == (Columns(), Columns())


@settings(deadline=None)
@given(
    cuts=st.sets(st.integers(min_value=1, max_value=8000 * SECOND), min_size=1, max_size=8),
    changes=st.dictionaries(
        st.integers(min_value=1, max_value=8000 * SECOND), st.integers(min_value=0, max_value=10**9), max_size=4
    ),
    rule=st.sampled_from(list(BILLING_RULES.values())),
    was_interrupted=st.booleans(),
)
def test_what_was_metered_and_what_is_settled_sum_to_the_bill_and_settling_again_is_nothing(
    cuts: set[int], changes: dict[int, int], rule: BillingRule, *, was_interrupted: bool
) -> None:
    spans = metered([0, *sorted(cuts)])
    steps = [RateStep(from_us=0, rates=FLAT)]
    steps += [RateStep(from_us=at, rates=Columns.flat(micros)) for at, micros in sorted(changes.items())]
    life = Life(length_us=max(cuts), market=Market.SPOT, was_interrupted=was_interrupted)
    bill = Bill(life, steps, rule)

    found = settle(bill, spans)
    settled = [replace(span, charged=span.charged + besides) for span, besides in zip(spans, found.spans, strict=True)]

    assert summed([*(span.charged for span in settled), found.rounding, found.minimum]) == bill.total
    assert settle(bill, settled, rounding=found.rounding, minimum=found.minimum).is_nothing
