"""Tariffs: what is charged, when it is submitted when."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pipeline.domain.costs.charging import AT_COST, ChargeTerms
from pipeline.domain.costs.tariffs import (
    Elasticity,
    Hours,
    Tariff,
    TokenPrices,
    minute_of,
    multiplier_of,
    price_sentence,
    tariff_document,
)
from pipeline.domain.tiers import Tier

NIGHT = Hours(days=frozenset(range(5)), start_minute=22 * 60, stop_minute=6 * 60, multiplier_ppm=600_000)
#: A Friday in winter: Berlin is an hour ahead.
FRIDAY = datetime(2026, 1, 9, tzinfo=UTC)


def factors(tariff: Tariff, at: datetime = FRIDAY, *, plan_ppm: int = 1_000_000, free: float = 1.0) -> dict[str, int]:
    return tariff.factors(tier=Tier.BULK, plan_ppm=plan_ppm, at=at, free_share=free)


def test_as_it_comes_a_batch_is_charged_what_it_costs() -> None:
    tariff = Tariff()

    assert factors(tariff) == {}
    assert tariff.terms({}, "any") == AT_COST


def test_the_multiplier_is_the_product_of_its_factors_rounded_down() -> None:
    tariff = Tariff(tiers={Tier.BULK: 700_001}, hours=(NIGHT,))

    found = factors(tariff, FRIDAY.replace(hour=23), plan_ppm=333_333)

    assert found == {"tier": 700_001, "plan": 333_333, "hours": 600_000}
    assert tariff.terms(found, None) == ChargeTerms(multiplier_ppm=140_000)
    assert multiplier_of({"tier": 2_500_000}) == 2_500_000


@pytest.mark.parametrize(
    ("at", "is_night"),
    [
        (FRIDAY.replace(hour=20, minute=59), False),
        (FRIDAY.replace(hour=21), True),  # 22:00 in Berlin
        (datetime(2026, 1, 10, 4, 59, tzinfo=UTC), True),  # Saturday morning is Friday's night
        (datetime(2026, 1, 10, 5, tzinfo=UTC), False),
        (datetime(2026, 1, 10, 22, tzinfo=UTC), False),  # Saturday's own is none
        (datetime(2026, 1, 12, 2, tzinfo=UTC), False),  # nor Sunday's
        (datetime(2026, 7, 10, 20, tzinfo=UTC), True),  # in summer Berlin is two hours ahead
    ],
)
def test_hours_are_those_of_their_zone_and_of_the_day_they_begin_on(at: datetime, is_night: bool) -> None:  # noqa: FBT001 -- a case
    tariff = Tariff(hours=(NIGHT,), zone="Europe/Berlin")

    assert factors(tariff, at) == ({"hours": 600_000} if is_night else {})


def test_the_first_hours_that_have_a_time_count() -> None:
    always = Hours(days=frozenset(range(7)), start_minute=0, stop_minute=0, multiplier_ppm=900_000)

    assert factors(Tariff(hours=(NIGHT, always)), FRIDAY.replace(hour=23)) == {"hours": 600_000}
    assert factors(Tariff(hours=(NIGHT, always)), FRIDAY.replace(hour=12)) == {"hours": 900_000}


@pytest.mark.parametrize(("free", "ppm"), [(1.0, 500_000), (0.5, 1_250_000), (0.0, 2_000_000)])
def test_the_fuller_the_fleet_the_dearer(free: float, ppm: int) -> None:
    assert Elasticity(floor_ppm=500_000, ceiling_ppm=2_000_000).multiplier_ppm(free) == ppm


def test_tokens_have_their_price_times_the_multiplier() -> None:
    tariff = Tariff(tiers={Tier.BULK: 500_000}, prices={"m": TokenPrices(input_picos=100_000, output_picos=400_000)})

    terms = tariff.terms(factors(tariff), "m")

    assert (terms.input_token_picos, terms.output_token_picos) == (50_000, 200_000)
    # A million tokens in, two out, at 0.05 and 0.20.
    assert terms.charge_micros(effective_micros=9, input_tokens=10**6, output_tokens=2 * 10**6) == 450_000
    assert price_sentence(terms, factors(tariff), "USD") == "$0.05 in, $0.20 out, per million tokens (tier 0.50)"


@pytest.mark.parametrize("clock", ["", "22", "22:60", "25:00", "24:01", "x:10"])
def test_what_is_no_time_of_day_is_refused(clock: str) -> None:
    with pytest.raises(ValueError, match="day"):
        minute_of(clock)


def test_a_tariff_is_told_in_decimals() -> None:
    told = tariff_document(Tariff(tiers={Tier.BULK: 500_000}, hours=(NIGHT,)))

    assert told["tiers"] == {"urgent": "1.00", "standard": "1.00", "bulk": "0.50", "nightly": "1.00"}
    assert told["hours"] == [{"days": "mon tue wed thu fri", "from": "22:00", "to": "06:00", "multiplier": "0.60"}]
