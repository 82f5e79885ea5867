"""ROI, what-if and buy-or-make: by hand, and what must hold of any inputs."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.tiers import Tier
from pipeline.report.calculators.buy_or_make import BuyOrMakeInputs, Making, buy_or_make
from pipeline.report.calculators.offers import ApiPrice
from pipeline.report.calculators.roi import RoiInputs, roi
from pipeline.report.calculators.whatif import WhatIfInputs, what_if

UNIT = 1_000_000
MILLION = 1_000_000


def move(**inputs: object) -> RoiInputs:
    """Return a move of 10 M tokens in and 1 M out a month, from 1.00 and 10.00 at list price."""
    given_: dict[str, Any] = {
        "moving_from": "api_list",
        "input_tokens_per_month": 10 * MILLION,
        "output_tokens_per_month": MILLION,
        "api_micros_per_million_input": UNIT,
        "api_micros_per_million_output": 10 * UNIT,
        "own_micros_per_million_input": 0,
        "own_micros_per_million_output": 0,
        "own_micros_per_month": 5 * UNIT,
        "one_off_micros": 60 * UNIT,
        "horizon_months": 12,
        "discount_percent_per_year": Decimal(0),
    }
    return RoiInputs(**(given_ | inputs))


@pytest.mark.parametrize(
    ("change", "before"),
    [
        ({}, 20),
        ({"moving_from": "api_batch", "batch_discount_percent": Decimal(25)}, 15),
        ({"moving_from": "always_on", "gpus_always_on": 2, "gpu_micros_per_hour": UNIT}, 1460),
        ({"moving_from": "other_scheduler", "other_micros_per_month": 7 * UNIT}, 7),
    ],
)
def test_what_is_paid_today_depends_on_where_one_comes_from(change: dict[str, Any], before: int) -> None:
    assert roi(move(**change)).before_micros_per_month == before * UNIT


def test_a_move_is_paid_back_in_the_month_that_brings_the_sum_together() -> None:
    # 20 less 5 a month against 60: four months; 180 in a year.
    found = roi(move())

    assert found.saving_micros_per_month == 15 * UNIT
    assert found.payback_months == 4
    assert found.total_micros == found.present_value_micros == 120 * UNIT
    assert found.roi_percent == 200
    assert roi(move(one_off_micros=60 * UNIT + 1)).payback_months == 5
    assert roi(move(own_micros_per_month=20 * UNIT)).payback_months is None
    assert roi(move(one_off_micros=0)).roi_percent is None


def test_the_tornado_has_every_input_that_matters_the_widest_first() -> None:
    swings = roi(move()).sensitivity
    by_name = {swing.name: swing for swing in swings}

    assert [swing.swing_micros for swing in swings] == sorted((swing.swing_micros for swing in swings), reverse=True)
    # A fifth of 60, both ways; a fifth of 10 a month for a year, both ways.
    assert by_name["one_off"].swing_micros == 24 * UNIT
    assert by_name["input_tokens_per_month"].swing_micros == 48 * UNIT
    # Not of the way that is not taken, and not where a fifth of nothing is nothing.
    assert by_name.keys() == {
        "api_per_million_input",
        "api_per_million_output",
        "horizon_months",
        "input_tokens_per_month",
        "one_off",
        "output_tokens_per_month",
        "own_per_month",
    }


@given(price=st.integers(0, 10**9), more=st.integers(0, 10**9))
def test_the_dearer_the_api_the_more_a_move_is_worth(price: int, more: int) -> None:
    found, dearer = (roi(move(api_micros_per_million_input=each)) for each in (price, price + more))

    assert dearer.present_value_micros >= found.present_value_micros


TOKENS = st.integers(0, 10**15)
PERCENT = st.integers(0, 100).map(Decimal)


@given(
    tokens=st.fixed_dictionaries({f"{tier}_tokens": TOKENS for tier in Tier}),
    parts=st.fixed_dictionaries({f"new_{tier}_parts": st.integers(0, 1000) for tier in Tier}),
    price=st.integers(0, 10**9),
    spot=PERCENT,
)
def test_the_same_month_costs_the_same(
    *, tokens: dict[str, int], parts: dict[str, int], price: int, spot: Decimal
) -> None:
    same = WhatIfInputs(**tokens, on_demand_micros_per_million=price, spot_percent=spot, new_spot_percent=spot)
    found = what_if(same)
    moved = what_if(replace(same, **parts))

    assert found.cost_now_micros == found.cost_then_micros
    assert found.charged_now_micros == found.charged_then_micros
    assert found.saving_micros == 0
    # No token is lost on the way to another tier.
    assert sum(tier.tokens_then for tier in moved.tiers) == sum(tokens.values())


def test_a_month_under_more_spot_costs_what_its_tiers_may_save() -> None:
    # 100 M bulk tokens at 1.00: all on spot at half price, a tenth done again, nine tenths within reach.
    month = WhatIfInputs(
        urgent_tokens=0,
        standard_tokens=0,
        bulk_tokens=100 * MILLION,
        nightly_tokens=0,
        on_demand_micros_per_million=UNIT,
        spot_discount_percent=Decimal(50),
        spot_lost_percent=Decimal(10),
        bulk_reach_percent=Decimal(90),
        spot_percent=Decimal(0),
        new_spot_percent=Decimal(100),
        price_micros_per_million=2 * UNIT,
        bulk_charge_percent=Decimal(70),
    )

    found = what_if(month)

    assert found.cost_now_micros == 100 * UNIT
    assert found.cost_then_micros == 59_500_000
    assert found.charged_now_micros == found.charged_then_micros == 140 * UNIT
    assert what_if(replace(month, new_relative_cost_percent=Decimal(50))).cost_then_micros == 29_750_000
    # Urgent work reaches no spot.
    assert what_if(replace(month, new_urgent_parts=1)).cost_then_micros == 100 * UNIT


def workload(**inputs: object) -> BuyOrMakeInputs:
    """Return 3 M tokens in and 1 M out, made for 1.00 a million and 100 a month."""
    given_: dict[str, Any] = {
        "input_tokens_per_month": 3 * MILLION,
        "output_tokens_per_month": MILLION,
        "own_micros_per_million_input": UNIT,
        "own_micros_per_million_output": UNIT,
        "own_micros_per_month": 100 * UNIT,
        "apis": (
            ApiPrice(name="dear", price_micros_per_million_input=2 * UNIT, price_micros_per_million_output=14 * UNIT),
            ApiPrice(name="cheap", price_micros_per_million_input=UNIT, price_micros_per_million_output=2 * UNIT),
            ApiPrice(name="given away", price_micros_per_million_input=0, price_micros_per_million_output=UNIT),
        ),
    }
    return BuyOrMakeInputs(**(given_ | inputs))


def test_options_are_ranked_and_making_pays_from_a_volume_on() -> None:
    found = buy_or_make(workload())

    assert [(option.name, option.cost_micros_per_month // UNIT) for option in found.options] == [
        ("given away", 1),
        ("cheap", 5),
        ("dear", 20),
        ("Nightrate", 104),
    ]
    assert found.verdict == "buy"
    assert found.saving_micros_per_month == 103 * UNIT
    # Blended 5.00 against 1.00: 100 a month are 25 M tokens; 1.25 against 1.00: 400 M; 0.25: never.
    by_name = {option.name: option.break_even_tokens_per_month for option in found.options}
    assert by_name == {"dear": 25 * MILLION, "cheap": 400 * MILLION, "given away": None, "Nightrate": None}


@pytest.mark.parametrize(("tokens", "verdict"), [(24 * MILLION, "buy"), (26 * MILLION, "make")])
def test_the_verdict_turns_at_the_break_even(tokens: int, verdict: str) -> None:
    inputs = workload(
        input_tokens_per_month=tokens * 3 // 4,
        output_tokens_per_month=tokens // 4,
        apis=(
            ApiPrice(name="dear", price_micros_per_million_input=2 * UNIT, price_micros_per_million_output=14 * UNIT),
        ),
    )

    assert buy_or_make(inputs).verdict == verdict


def test_there_may_be_nothing_to_buy_and_nothing_to_make() -> None:
    alone = buy_or_make(workload(apis=()))
    nothing = buy_or_make(workload(input_tokens_per_month=0, output_tokens_per_month=0))

    assert (alone.cheapest, alone.verdict, alone.saving_micros_per_month) == ("Nightrate", "make", None)
    assert {option.cost_micros_per_million for option in nothing.options} == {None}
    assert buy_or_make(workload(makings=(Making(name="own servers"),))).cheapest == "own servers"


@given(price=st.integers(0, 10**9), more=st.integers(0, 10**9), tokens=st.integers(1, 10**12))
def test_a_dearer_api_never_raises_the_volume_from_which_making_pays(price: int, more: int, tokens: int) -> None:
    def volume(each: int) -> int | None:
        api = ApiPrice(name="api", price_micros_per_million_input=each, price_micros_per_million_output=each)
        found = buy_or_make(workload(apis=(api,), input_tokens_per_month=tokens))
        return next(option for option in found.options if option.kind == "buy").break_even_tokens_per_month

    before, after = volume(price), volume(price + more)

    assert before is None or (after is not None and after <= before)
