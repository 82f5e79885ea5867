"""Own servers versus the cloud: by hand, and what must hold of any inputs."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.calculators.tco import TcoInputs, tco
from pipeline.report.calculators.value import HOURS_PER_MONTH, MONTHS_MAX, annuity, months_until, present

UNIT = 1_000_000


def plain(**inputs: object) -> TcoInputs:
    """Return servers that cost 100 a month to run, and nothing else that is not named."""
    free: dict[str, Any] = {
        "server_watts": 0,
        "failures_percent_per_year": Decimal(0),
        "resale_percent": Decimal(0),
        "discount_percent_per_year": Decimal(0),
        "hosting_micros_per_month": 100 * UNIT,
        "staff_micros_per_month": 0,
        "network_micros_per_month": 0,
        "server_price_micros": 6300 * UNIT,
        "reserved_parts": 0,
        "spot_parts": 0,
        "on_demand_micros_per_hour": UNIT,
        "utilisation_percent": Decimal(100),
    }
    return TcoInputs(**(free | inputs))


def test_the_break_even_is_the_month_in_which_the_difference_has_paid_for_the_servers() -> None:
    # The cloud is 730 a month, running 100: 6,300 are 630 times ten.
    assert tco(plain()).break_even_month == 10
    assert tco(plain(server_price_micros=6300 * UNIT + 1)).break_even_month == 11
    assert tco(plain(on_demand_micros_per_hour=0)).break_even_month is None
    months = tco(plain()).months
    assert months[10].own_micros == months[10].cloud_micros == 7300 * UNIT
    assert months[9].own_micros > months[9].cloud_micros


def test_the_break_even_utilisation_makes_both_ways_cost_the_same() -> None:
    # 6,300 over 36 months and 100 a month are 275 a month, of 730.
    found = tco(plain())

    assert found.break_even_utilisation_percent is not None
    assert round(found.break_even_utilisation_percent, 6) == round(Decimal(27_500) / 730, 6)
    assert tco(plain(server_price_micros=30_000 * UNIT)).break_even_utilisation_percent is None


def test_electricity_is_watts_times_pue_times_price() -> None:
    # 1 kW at a PUE of 1.5 and 0.20: 0.30 an hour.
    found = tco(plain(server_watts=1000, pue=Decimal("1.5"), electricity_micros_per_kwh=200_000))

    assert found.power_micros_per_month == 300_000 * HOURS_PER_MONTH
    assert found.running_micros_per_month == 319 * UNIT


def test_the_cloud_is_paid_for_by_its_mix() -> None:
    # Half reserved at 0.50 day and night; a quarter on demand and a quarter on spot, half of the hours, a tenth done again.
    found = tco(
        plain(
            on_demand_parts=1,
            reserved_parts=2,
            spot_parts=1,
            reserved_micros_per_hour=500_000,
            spot_micros_per_hour=400_000,
            spot_lost_percent=Decimal(10),
            utilisation_percent=Decimal(50),
        )
    )

    assert found.cloud_micros_per_month == round(HOURS_PER_MONTH * (250_000 + (250_000 + 110_000) / 2))


def test_without_parts_everything_is_on_demand() -> None:
    assert tco(plain(on_demand_parts=0)) == tco(plain(on_demand_parts=1))


def test_present_values_are_the_textbooks() -> None:
    # 100 at the end of each of two months at 1 %: 100/1.01 + 100/1.0201.
    one = Decimal("0.01")

    assert round(annuity(one, 2) * 100, 9) == round(100 / Decimal("1.01") + 100 / Decimal("1.0201"), 9)
    assert present(Decimal("102.01"), one, 2) == 100


def test_a_month_is_never_said_that_is_a_century_away() -> None:
    assert months_until(Decimal(MONTHS_MAX), Decimal(1)) == MONTHS_MAX
    assert months_until(Decimal(MONTHS_MAX + 1), Decimal(1)) is None
    assert months_until(Decimal(0), Decimal(-1)) == 0


MONEY = st.integers(0, 10**12)


@given(price=MONEY, hosting=MONEY, cloud=st.integers(0, 10**9), resale=st.integers(0, 100), months=st.integers(1, 120))
def test_without_interest_present_values_are_plain_sums(
    *, price: int, hosting: int, cloud: int, resale: int, months: int
) -> None:
    inputs = plain(
        server_price_micros=price,
        hosting_micros_per_month=hosting,
        on_demand_micros_per_hour=cloud,
        resale_percent=Decimal(resale),
        horizon_months=months,
    )

    found = tco(inputs)

    assert found.own_npv_micros == found.own_total_micros
    assert found.cloud_npv_micros == found.cloud_total_micros == found.months[-1].cloud_micros


@given(price=MONEY, more=MONEY, cloud=st.integers(1, 10**9), discount=st.integers(0, 100))
def test_dearer_servers_never_pay_sooner(*, price: int, more: int, cloud: int, discount: int) -> None:
    inputs = plain(
        server_price_micros=price, on_demand_micros_per_hour=cloud, discount_percent_per_year=Decimal(discount)
    )

    found, dearer = tco(inputs), tco(replace(inputs, server_price_micros=price + more))

    assert dearer.saving_npv_micros <= found.saving_npv_micros
    if found.break_even_month is None:
        assert dearer.break_even_month is None
    else:
        assert dearer.break_even_month is None or dearer.break_even_month >= found.break_even_month
