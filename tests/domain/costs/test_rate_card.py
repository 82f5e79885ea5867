"""Which price holds, and what becomes of it by contract."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.costs.prices import Item, Market, Price, PriceSource, PriceUnit, picos_of
from pipeline.domain.costs.rate_card import (
    Commitment,
    Discount,
    Offer,
    PriceBook,
    PriceUnknownError,
    RateCard,
    RateStep,
    family_of,
)

T0 = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
ZONE = "use1-az1"
SPOT, ON_DEMAND = Market.SPOT, Market.ON_DEMAND
OVERRIDE, REFRESHED, CATALOGUE = PriceSource.OVERRIDE, PriceSource.REFRESHED, PriceSource.CATALOGUE


def item(market: Market = SPOT, region: str | None = "us-east-1", zone: str | None = ZONE) -> Item:
    return Item(provider="aws", name="g5.xlarge", unit=PriceUnit.HOUR, market=market, region=region, zone=zone)


def price(
    units: str | None,
    source: PriceSource = CATALOGUE,
    *,
    of: Item | None = None,
    at: datetime = T0,
    as_of: datetime = T0,
    currency: str = "USD",
) -> Price:
    return Price(
        item=of or item(),
        unit_price_picos=None if units is None else picos_of(units),
        currency=currency,
        effective_at=at,
        source=source,
        as_of=as_of,
        origin="test",
    )


def held(*prices: Price, at: datetime = T0 + HOUR, of: Item | None = None) -> str | None:
    found = PriceBook(prices).price(of or item(), at, "USD")
    return None if found is None or found.unit_price_picos is None else f"{found.unit_price_picos / 10**12:g}"


ANYWHERE, REGION = item(region=None, zone=None), item(zone=None)


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        ([], None),
        ([price("1", of=ANYWHERE)], "1"),
        ([price("1", of=ANYWHERE), price("2", of=REGION), price("3")], "3"),
        ([price("1", of=ANYWHERE), price("2", of=REGION)], "2"),
        # The operator's word beats any other, however narrow.
        ([price("1", OVERRIDE, of=ANYWHERE), price("2", REFRESHED), price("3")], "1"),
        ([price("1", OVERRIDE, of=ANYWHERE), price("2", OVERRIDE, of=REGION)], "2"),
        # Of the others the narrowest, then the one that was asked for.
        ([price("1", REFRESHED, of=REGION), price("2")], "2"),
        ([price("1", REFRESHED), price("2")], "1"),
        # Of one source the last in effect, and of two for the same instant the last that was said.
        ([price("1"), price("2", at=T0 + HOUR), price("3", at=T0 + 2 * HOUR)], "2"),
        ([price("2", as_of=T0 + HOUR), price("1")], "2"),
        ([price("1", at=T0 + 2 * HOUR)], None),
        # A source that says nothing any more leaves it to the others.
        ([price("1", OVERRIDE), price(None, OVERRIDE, at=T0 + HOUR), price("2", REFRESHED)], "2"),
        ([price("1", OVERRIDE), price(None, OVERRIDE, at=T0 + 2 * HOUR), price("2", REFRESHED)], "1"),
        # Other places, terms and currencies are nothing to it.
        ([price("1", of=item(zone="use1-az2")), price("2", of=item(region="eu-west-1", zone=None))], None),
        ([price("1", of=item(ON_DEMAND)), price("1", currency="EUR")], None),
    ],
)
def test_the_price_that_holds(prices: list[Price], expected: str | None) -> None:
    assert held(*prices) == expected
    assert held(*reversed(prices)) == expected


def test_a_price_of_a_zone_is_none_for_its_region() -> None:
    assert held(price("1"), of=REGION) is None


@st.composite
def spoken(draw: st.DrawFn) -> list[Price]:
    """Words on one thing in a few places, at a few instants; some instants are spoken of twice."""
    places = st.sampled_from([item(), REGION, ANYWHERE, item(zone="use1-az2"), item(region="eu-west-1", zone=None)])
    word = st.builds(
        price,
        st.sampled_from([None, "1", "2", "3", "4"]),
        st.sampled_from(list(PriceSource)),
        of=places,
        at=st.integers(min_value=0, max_value=5).map(lambda hours: T0 + hours * HOUR),
    )
    # No two are said at the same moment: which of them was the last would be anybody's guess.
    return [replace(each, as_of=T0 + n * HOUR) for n, each in enumerate(draw(st.lists(word, max_size=12)))]


@settings(deadline=None)
@given(spoken(), st.integers(min_value=-1, max_value=6), st.randoms(use_true_random=False))
def test_the_price_that_holds_is_that_of_reading_all_words_one_by_one(
    words: list[Price], hours: int, random: Random
) -> None:
    at = T0 + hours * HOUR
    best: tuple[tuple[bool, int, int], int | None] | None = None
    for source in PriceSource:
        for place in (item(), REGION, ANYWHERE):
            said = [word for word in words if (word.source, word.item) == (source, place) and word.effective_at <= at]
            if said:
                last = max(said, key=lambda word: (word.effective_at, word.as_of))
                rank = (source is not OVERRIDE, -place.narrowness, source.rank)
                if last.unit_price_picos is not None and (best is None or rank < best[0]):
                    best = rank, last.unit_price_picos
    shuffled = list(words)
    random.shuffle(shuffled)

    found = PriceBook(shuffled).price(item(), at, "USD")

    assert (None if found is None else found.unit_price_picos) == (None if best is None else best[1])
    if found is not None:
        assert found.effective_at in {T0, *PriceBook(words).changes(item(), T0, at, "USD")}


BOOK = PriceBook(
    [
        price("0.4"),
        price("0.5", REFRESHED, at=T0 + HOUR),
        price("1.006", of=item(ON_DEMAND, zone=None)),
        price("1.100", of=item(ON_DEMAND, zone=None), at=T0 + 2 * HOUR),
    ]
)
SPOT_OFFER = Offer(market=SPOT, provider="aws", instance_type="g5.xlarge", region="us-east-1", zone=ZONE)
ON_DEMAND_OFFER = Offer(market=ON_DEMAND, provider="aws", instance_type="g5.xlarge", region="us-east-1", zone=ZONE)


def card(*, discounts: tuple[Discount, ...] = (), commitments: tuple[Commitment, ...] = ()) -> RateCard:
    return RateCard(
        book=BOOK, currency="USD", flat_micros_per_hour=100_000, discounts=discounts, commitments=commitments
    )


def test_a_spot_worker_has_the_spot_price_and_what_on_demand_would_have_cost() -> None:
    found = card().hourly_rates(SPOT_OFFER, T0)

    assert found.rates == Amounts(
        list_micros=400_000,
        contracted_micros=400_000,
        effective_micros=400_000,
        billed_micros=400_000,
        on_demand_micros=1_006_000,
    )
    assert found.source == "catalogue 2026-01-01T00:00:00Z test"


@pytest.mark.parametrize(
    ("discounts", "contracted"),
    [
        ((Discount(provider="aws", discount_ppm=100_000),), 905_400),
        ((Discount(provider="gcp", discount_ppm=100_000),), 1_006_000),
        ((Discount(provider="aws", family="g6", discount_ppm=100_000),), 1_006_000),
        ((Discount(provider="aws", market=SPOT, discount_ppm=100_000),), 1_006_000),
        (
            (Discount(provider="aws", discount_ppm=100_000), Discount(provider="aws", family="g5", discount_ppm=0)),
            1_006_000,
        ),
        (
            (
                Discount(provider="aws", family="g5.xlarge", discount_ppm=500_000),
                Discount(provider="aws", family="g5", market=ON_DEMAND, discount_ppm=0),
            ),
            503_000,
        ),
        ((Discount(provider="aws", discount_ppm=1_000_000),), 0),
        # 1,006,000 · 0.999999 = 1,005,998.994
        ((Discount(provider="aws", discount_ppm=1),), 1_005_999),
    ],
)
def test_the_most_exact_discount_is_taken_off(discounts: tuple[Discount, ...], contracted: int) -> None:
    found = card(discounts=discounts).hourly_rates(ON_DEMAND_OFFER, T0).rates

    assert (found.list_micros, found.on_demand_micros) == (1_006_000, 1_006_000)
    assert found.contracted_micros == found.effective_micros == found.billed_micros == contracted


def test_a_commitment_covers_as_many_workers_as_it_says_and_their_use_is_not_invoiced() -> None:
    committed = card(commitments=(Commitment(provider="aws", family="g5", workers=2, rate_micros_per_hour=600_000),))

    covered = committed.hourly_rates(ON_DEMAND_OFFER, T0, committed_workers=1)
    beyond = committed.hourly_rates(ON_DEMAND_OFFER, T0, committed_workers=2)
    spot = committed.hourly_rates(SPOT_OFFER, T0)

    assert (covered.rates.contracted_micros, covered.rates.effective_micros, covered.rates.billed_micros) == (
        1_006_000,
        600_000,
        0,
    )
    assert covered.commitment is not None
    assert beyond.rates == Amounts.cost(1_006_000)
    assert spot.commitment is None


def test_commitments_are_filled_one_after_the_other() -> None:
    committed = card(
        commitments=(
            Commitment(provider="aws", family="g6", workers=9, rate_micros_per_hour=1),
            Commitment(provider="aws", family="g5", workers=2, rate_micros_per_hour=600_000),
            Commitment(provider="aws", region="us-east-1", workers=1, rate_micros_per_hour=700_000),
        )
    )

    rates = [committed.hourly_rates(ON_DEMAND_OFFER, T0, committed_workers=n).rates for n in range(5)]

    assert [each.effective_micros for each in rates] == [600_000, 600_000, 700_000, 1_006_000, 1_006_000]
    assert [each.billed_micros for each in rates] == [0, 0, 0, 1_006_000, 1_006_000]


def test_a_pool_with_a_fixed_price_costs_that_whatever_is_listed() -> None:
    fixed = Offer(
        market=SPOT,
        provider="aws",
        instance_type="g5.xlarge",
        region="us-east-1",
        zone=ZONE,
        fixed_micros_per_hour=250_000,
    )
    unlisted = Offer(market=SPOT, provider="aws", instance_type="z9.huge", fixed_micros_per_hour=250_000)

    assert card().hourly_rates(fixed, T0).rates == Amounts(
        list_micros=400_000,
        contracted_micros=250_000,
        effective_micros=250_000,
        billed_micros=250_000,
        on_demand_micros=1_006_000,
    )
    assert card().hourly_rates(unlisted, T0).rates == Amounts.cost(250_000)


def test_a_machine_of_which_nothing_is_known_has_the_flat_price() -> None:
    found = card().hourly_rates(Offer(market=ON_DEMAND), T0)

    assert found.rates == Amounts.cost(100_000)
    assert found.source == "settings"
    fixed = card().hourly_rates(Offer(market=ON_DEMAND, fixed_micros_per_hour=7), T0)
    assert fixed.rates == Amounts.cost(7)


def test_a_machine_without_a_price_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(PriceUnknownError, match=r"aws z9\.huge \(spot\) in eu-west-1") as raised:
        card().hourly_rates(Offer(market=SPOT, provider="aws", instance_type="z9.huge", region="eu-west-1"), T0)

    assert "nightrate prices set" in str(raised.value.hint)


def test_the_rates_of_a_life_step_whenever_a_price_of_either_market_changes() -> None:
    steps = card().steps(SPOT_OFFER, T0 + HOUR / 2, T0 + 3 * HOUR)

    half_hour_us = 1_800_000_000
    listed = [(step.from_us, step.rates.list_micros, step.rates.on_demand_micros) for step in steps]
    assert listed == [
        (0, 400_000, 1_006_000),
        (half_hour_us, 500_000, 1_006_000),
        (3 * half_hour_us, 500_000, 1_100_000),
    ]
    assert card().steps(SPOT_OFFER, T0, T0 + HOUR / 2)[1:] == []
    flat = card().steps(Offer(market=ON_DEMAND), T0, T0 + 9 * HOUR)
    assert flat == [RateStep(from_us=0, rates=Amounts.cost(100_000))]


def test_families_of_instance_types() -> None:
    assert [family_of(name) for name in ("g5.xlarge", "p6-b200.48xlarge", "a3-highgpu-8g", "local")] == [
        "g5",
        "p6-b200",
        "a3",
        "local",
    ]
