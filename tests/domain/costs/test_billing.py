"""Bills of workers at every boundary of every rule, and what holds for all of them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.costs.amounts import COST_NAMES, Amounts
from pipeline.domain.costs.billing import Bill, Life
from pipeline.domain.costs.billing_rules import (
    AWS_HOURLY_V1,
    AWS_LINUX_V1,
    AZURE_V1,
    BILLING_RULES,
    FLAT_V1,
    GCP_V1,
    BillingRule,
    rule_of,
)
from pipeline.domain.costs.prices import Market
from pipeline.domain.costs.rate_card import RateStep
from pipeline.domain.money import metered_cost_micros

SECOND = 1_000_000
HOUR = 3600 * SECOND
#: A micro-unit a second, and twice that on demand.
RATES = Amounts(
    list_micros=3600, contracted_micros=3600, effective_micros=3600, billed_micros=3600, on_demand_micros=7200
)


def bill(seconds: float, rule: BillingRule, *, spot: bool = False, interrupted: bool = False) -> Bill:
    market = Market.SPOT if spot else Market.ON_DEMAND
    life = Life(length_us=round(seconds * SECOND), market=market, was_interrupted=interrupted)
    return Bill(life, [RateStep(from_us=0, rates=RATES)], rule)


@pytest.mark.parametrize(
    ("rule", "seconds", "charged"),
    [
        (AWS_LINUX_V1, 0, 60),
        (AWS_LINUX_V1, 1, 60),
        (AWS_LINUX_V1, 59, 60),
        (AWS_LINUX_V1, 60, 60),
        (AWS_LINUX_V1, 60.000001, 61),
        (AWS_LINUX_V1, 61, 61),
        (AWS_LINUX_V1, 3599, 3599),
        (AWS_LINUX_V1, 3600, 3600),
        (AWS_LINUX_V1, 3601, 3601),
        (GCP_V1, 59, 60),
        (GCP_V1, 60, 60),
        (GCP_V1, 61, 61),
        (AZURE_V1, 0, 0),
        (AZURE_V1, 59, 59),
        (AZURE_V1, 59.5, 60),
        (AWS_HOURLY_V1, 1, 3600),
        (AWS_HOURLY_V1, 3600, 3600),
        (AWS_HOURLY_V1, 3600.000001, 7200),
        (AWS_HOURLY_V1, 7199, 7200),
        (FLAT_V1, 0, 0),
        (FLAT_V1, 59, 59),
        (FLAT_V1, 61, 61),
    ],
)
@pytest.mark.parametrize("spot", [False, True])
def test_a_worker_that_we_stop_is_charged_what_its_rule_says(
    rule: BillingRule, seconds: float, charged: int, *, spot: bool
) -> None:
    found = bill(seconds, rule, spot=spot)

    assert found.billed_us == charged * SECOND
    assert found.total.billed_micros == charged
    assert found.total.on_demand_micros == 2 * charged


@pytest.mark.parametrize(
    ("rule", "seconds", "charged"),
    [
        (AWS_LINUX_V1, 1, 0),
        (AWS_LINUX_V1, 3599, 0),
        (AWS_LINUX_V1, 3599.999999, 0),
        (AWS_LINUX_V1, 3600, 3600),
        (AWS_LINUX_V1, 3601, 3601),
        (AWS_HOURLY_V1, 3599, 0),
        (AWS_HOURLY_V1, 3600, 3600),
        (AWS_HOURLY_V1, 3601, 3600),
        (AWS_HOURLY_V1, 7199, 3600),
        (AWS_HOURLY_V1, 7200, 7200),
        (GCP_V1, 59, 0),
        (GCP_V1, 60, 60),
        (GCP_V1, 61, 61),
        (AZURE_V1, 1, 1),
        (FLAT_V1, 1, 1),
    ],
)
def test_a_spot_worker_that_its_provider_takes_away_is_charged_what_its_rule_says(
    rule: BillingRule, seconds: float, charged: int
) -> None:
    found = bill(seconds, rule, spot=True, interrupted=True)

    assert found.total.billed_micros == charged
    assert found.total.list_micros == found.total.contracted_micros == found.total.effective_micros == charged


def test_what_is_free_would_not_have_been_free_on_demand() -> None:
    found = bill(1800, AWS_LINUX_V1, spot=True, interrupted=True)

    assert found.total == Amounts(on_demand_micros=3600)


def test_an_on_demand_worker_that_its_provider_takes_away_is_charged() -> None:
    assert bill(1800, AWS_LINUX_V1, interrupted=True).total.billed_micros == 1800


@pytest.mark.parametrize(
    ("seconds", "rule", "used", "rounding", "minimum"),
    [
        (10.5, AWS_LINUX_V1, 10, 1, 49),
        (60.25, AWS_LINUX_V1, 60, 1, 0),
        (3601, AWS_HOURLY_V1, 3601, 3599, 0),
        (30, AZURE_V1, 30, 0, 0),
        (30.5, FLAT_V1, 30, 0, 0),
    ],
)
def test_a_bill_is_what_was_used_what_was_rounded_and_what_is_charged_at_least(
    seconds: float, rule: BillingRule, used: int, rounding: int, minimum: int
) -> None:
    found = bill(seconds, rule)

    parts = found.parts
    assert (parts.used.billed_micros, parts.rounding.billed_micros, parts.minimum.billed_micros) == (
        used,
        rounding,
        minimum,
    )
    assert parts.total == found.total


def test_a_price_that_changes_in_the_middle_of_a_second_counts_from_that_microsecond() -> None:
    steps = [
        RateStep(from_us=0, rates=Amounts.cost(3_600_000)),
        RateStep(from_us=90 * SECOND + 250_000, rates=Amounts.cost(7_200_000)),
    ]
    found = Bill(Life(length_us=91 * SECOND, market=Market.SPOT), steps, AWS_LINUX_V1)

    # 1,000 micro-units a second, then 2,000.
    assert found.total.billed_micros == 90_250 + 1_500
    assert found.between(90 * SECOND, 91 * SECOND).billed_micros == 250 + 1_500


def test_a_price_that_changes_after_the_end_changes_no_bill() -> None:
    steps = [RateStep(from_us=0, rates=RATES), RateStep(from_us=30 * SECOND, rates=Amounts.cost(10**9))]

    for length_us in (20 * SECOND, 30 * SECOND):
        found = Bill(Life(length_us=length_us, market=Market.SPOT), steps, AWS_LINUX_V1)
        assert found.total.billed_micros == 60


def test_a_bill_at_one_rate_is_what_the_meter_says() -> None:
    found = Bill(Life(length_us=5_000_000_007, market=Market.ON_DEMAND), [RateStep(from_us=0, rates=RATES)], FLAT_V1)

    for start_us, stop_us in pairwise((0, 1, 999_999, 1_000_001, 77_777_777, 5_000_000_007)):
        assert found.between(start_us, stop_us).effective_micros == metered_cost_micros(3600, start_us, stop_us)


def test_rules_have_names_that_say_their_version_and_say_where_they_are_from() -> None:
    for name, rule in BILLING_RULES.items():
        assert name == rule.name
        assert name.rpartition("_v")[2].isdigit()
        assert rule.source
    assert [rule_of(provider).name for provider in ("aws", "gcp", "azure", "lambda", None)] == [
        "aws_linux_v1",
        "gcp_v1",
        "azure_v1",
        "flat_v1",
        "flat_v1",
    ]


AMOUNTS = st.integers(min_value=0, max_value=10_000_000_000)
LENGTHS = st.one_of(
    st.integers(min_value=0, max_value=5 * HOUR),
    st.sampled_from([point + nudge for point in (60 * SECOND, HOUR, 2 * HOUR) for nudge in (-1, 0, 1)]),
)


@st.composite
def bills(draw: st.DrawFn) -> Bill:
    length_us = draw(LENGTHS)
    starts = draw(st.sets(st.integers(min_value=1, max_value=6 * HOUR), max_size=5))
    rates = st.builds(
        Amounts,
        list_micros=AMOUNTS,
        contracted_micros=AMOUNTS,
        effective_micros=AMOUNTS,
        billed_micros=AMOUNTS,
        on_demand_micros=AMOUNTS,
    )
    steps = [RateStep(from_us=start, rates=draw(rates)) for start in sorted({0, *starts})]
    life = Life(
        length_us=length_us,
        market=draw(st.sampled_from([Market.SPOT, Market.ON_DEMAND])),
        was_interrupted=draw(st.booleans()),
    )
    return Bill(life, steps, draw(st.sampled_from(list(BILLING_RULES.values()))))


@settings(deadline=None)
@given(bills(), st.sets(st.integers(min_value=0, max_value=7 * HOUR), max_size=8))
def test_costs_of_the_spans_of_any_partition_sum_to_the_bill_and_none_is_below_zero(
    found: Bill, inner: set[int]
) -> None:
    cuts = sorted({0, found.end_us, *(cut for cut in inner if cut <= found.end_us)})

    spans = [found.between(start, stop) for start, stop in pairwise(cuts)]

    for name in COST_NAMES:
        assert sum(getattr(span, name) for span in spans) == getattr(found.total, name)
        assert all(getattr(span, name) >= 0 for span in spans)
    assert found.parts.total == found.total
    assert found.until(found.end_us + 10 * HOUR) == found.total


@settings(deadline=None)
@given(bills())
def test_time_is_free_only_for_a_spot_worker_that_was_interrupted(found: Bill) -> None:
    life, rule = found.life, found.rule
    is_interrupted = life.market is Market.SPOT and life.was_interrupted

    if not is_interrupted:
        assert found.billed_us >= max(life.length_us, rule.minimum_us)
        assert found.billed_us < life.length_us + rule.unit_us + rule.minimum_us
    if found.billed_us < life.length_us:
        assert is_interrupted
        assert rule.free_below_us
    assert (found.billed_us == 0) == (
        (is_interrupted and life.length_us < rule.free_below_us) or (life.length_us == 0 and rule.minimum_us == 0)
    )


@settings(deadline=None)
@given(bills(), st.integers(min_value=0, max_value=HOUR))
def test_a_longer_life_never_costs_less(found: Bill, longer_us: int) -> None:
    life = Life(
        length_us=found.life.length_us + longer_us,
        market=found.life.market,
        was_interrupted=found.life.was_interrupted,
    )
    # At one rate: with a later price that is lower the rest of the least time would be cheaper.
    steps = [RateStep(from_us=0, rates=found._steps[0].rates)]
    shorter, longer = Bill(found.life, steps, found.rule), Bill(life, steps, found.rule)

    assert all(getattr(longer.total, name) >= getattr(shorter.total, name) for name in COST_NAMES)
