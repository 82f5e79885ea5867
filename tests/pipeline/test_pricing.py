"""Prices put together: what is asked and when, what holds, and what a pool's worker costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.app.pricing import Wanted, import_catalogue, questions, rate_card, rates_here, refresh, standing
from pipeline.config import Settings
from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.costs.billing import Bill, Life
from pipeline.domain.costs.prices import Item, Market, Price, PriceSource, PriceUnit, picos_of
from pipeline.domain.costs.rate_card import PriceUnknownError
from pipeline.domain.errors import UsageError
from pipeline.ports.prices import PriceFeedError, PriceQuestion, Refresh
from storage.database import Database
from storage.prices import PriceRepository

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SPOT = Item(provider="aws", name="g5.xlarge", unit=PriceUnit.HOUR, market=Market.SPOT, region="us-east-1")
QUESTIONS = [
    PriceQuestion(provider="aws", instance_type=name, market=Market.SPOT, region="us-east-1")
    for name in ("g5.xlarge", "g6.xlarge")
]


def price(units: str, at: datetime = NOW, *, item: Item = SPOT, source: PriceSource = PriceSource.REFRESHED) -> Price:
    return Price(
        item=item,
        unit_price_picos=picos_of(units),
        currency="USD",
        effective_at=at,
        source=source,
        as_of=NOW,
        origin="test",
    )


class Feed:
    """A provider that answers with one price for whatever it is asked, and remembers since when it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, datetime]] = []
        self.failing: set[str] = set()

    def ask(self, question: PriceQuestion, *, since: datetime, now: datetime) -> Sequence[Price]:
        self.asked.append((question.instance_type, since))
        if question.instance_type in self.failing:
            raise PriceFeedError("overloaded")
        item = Item(
            provider="aws",
            name=question.instance_type,
            unit=PriceUnit.HOUR,
            market=question.market,
            region=question.region,
        )
        return [price("0.4", now, item=item)]


@pytest.fixture
def prices(database_url: str) -> Iterator[PriceRepository]:
    database = Database(database_url)
    yield PriceRepository(database)
    database.close()


def settings(**given: object) -> Settings:
    return Settings.model_validate({"rate_card": given} if given else {})


POOLS = {
    "east": {"provider": "aws", "instance_type": "g5.xlarge", "region": "us-east-1", "zone": "use1-az6"},
    "own": {"rate_per_hour": "0.33"},
    "lambda": {"provider": "lambda", "instance_type": "gpu_1x_h100", "region": "us-west-1"},
}


def test_what_was_asked_lately_is_not_asked_again(prices: PriceRepository) -> None:
    feed = Feed()

    first = refresh(prices, feed, QUESTIONS, now=NOW, max_age=HOUR, history=DAY)
    again = refresh(prices, feed, QUESTIONS, now=NOW + HOUR, max_age=HOUR, history=DAY)
    assert (first.asked, first.still_fresh, first.news) == (2, 0, 2)
    assert (again.asked, again.still_fresh, again.news) == (0, 2, 0)

    later = refresh(prices, feed, QUESTIONS, now=NOW + 50 * HOUR, max_age=HOUR, history=DAY)
    much_later = refresh(prices, feed, QUESTIONS[:1], now=NOW + 200 * DAY, max_age=HOUR, history=DAY)
    assert (later.asked, much_later.asked) == (2, 1)
    # From the last answer on, with an hour's overlap, and no further back than is told.
    assert [since for name, since in feed.asked if name == "g5.xlarge"] == [
        NOW - DAY,
        NOW - HOUR,
        NOW + 200 * DAY - 90 * DAY,
    ]


def test_a_question_that_fails_does_not_stop_the_others_and_is_asked_again(prices: PriceRepository) -> None:
    feed = Feed()
    feed.failing = {"g5.xlarge"}

    outcome = refresh(prices, feed, QUESTIONS, now=NOW, max_age=HOUR, history=DAY)

    assert [question for question, _ in outcome.failures] == QUESTIONS[:1]
    assert outcome.news == 1
    feed.failing = set()
    assert refresh(prices, feed, QUESTIONS, now=NOW, max_age=HOUR, history=DAY).asked == 1


@pytest.mark.parametrize(
    ("regions", "instance_types", "pools", "expected"),
    [
        (["eu-west-1", "eu-west-1"], ["g6.xlarge"], {}, {("g6.xlarge", "eu-west-1")}),
        ([], [], POOLS, {("g5.xlarge", "us-east-1")}),
        ([], ["p5.48xlarge"], POOLS, {("p5.48xlarge", "us-east-1")}),
    ],
)
def test_what_is_asked(
    regions: list[str], instance_types: list[str], pools: dict[str, object], expected: set[tuple[str, str]]
) -> None:
    asked = questions(settings(pools=pools), regions, instance_types)

    assert {(each.instance_type, each.region) for each in asked} == expected
    assert len(asked) == 2 * len(expected)
    assert {each.market for each in asked} == {Market.ON_DEMAND, Market.SPOT}


def test_a_region_alone_asks_for_all_instance_types_of_the_catalogue() -> None:
    asked = {each.instance_type for each in questions(settings(), ["eu-west-1"], [])}

    assert {"g5.xlarge", "p5.48xlarge", "c7i.large"} <= asked
    assert "a3-highgpu-8g" not in asked


def test_without_a_region_there_is_nothing_to_ask() -> None:
    with pytest.raises(UsageError, match="region"):
        questions(settings(), [], ["g5.xlarge"])


def test_a_worker_of_a_pool_costs_what_its_pool_runs_on(prices: PriceRepository) -> None:
    prices.add([price("0.41")])
    spot = Settings.model_validate({"pool": "east", "market": "spot", "rate_card": {"pools": POOLS}})

    rates = rates_here(spot, prices, NOW)

    assert (rates.rates.effective_micros, rates.rates.on_demand_micros) == (410_000, 1_006_000)
    assert rates.source == "refreshed 2026-11-22T12:00:00Z test"


def test_a_pool_of_which_nothing_is_said_costs_the_flat_price(prices: PriceRepository) -> None:
    assert rates_here(settings(), prices, NOW).rates == Amounts.cost(100_000)
    own = Settings.model_validate({"pool": "own", "rate_card": {"pools": POOLS}})
    assert rates_here(own, prices, NOW).rates == Amounts.cost(330_000)


def test_a_pool_of_unknown_price_is_an_error_rather_than_a_guess(prices: PriceRepository) -> None:
    unknown = Settings.model_validate({"pool": "lambda", "rate_card": {"pools": POOLS}})

    with pytest.raises(PriceUnknownError, match="gpu_1x_h100"):
        rates_here(unknown, prices, NOW)


def test_a_life_is_billed_by_the_prices_that_held_and_those_that_were_learned_later(prices: PriceRepository) -> None:
    given = Settings.model_validate({"pool": "east", "market": "spot", "rate_card": {"pools": POOLS}})
    start, stop = NOW - 2 * HOUR, NOW
    offer, rule = given.rate_card.offer_of("east", "spot"), given.rate_card.billing_rule_of("east", "aws")

    def billed() -> int:
        card = rate_card(given, prices, start, stop, instance_types=["g5.xlarge"])
        life = Life(length_us=(stop - start) // timedelta(microseconds=1), market=Market.SPOT)
        return Bill(life, card.steps(offer, start, stop), rule).total.billed_micros

    prices.add([price("0.40", start - DAY)])
    as_metered = billed()
    prices.add([price("0.50", start + HOUR)])

    assert (as_metered, billed()) == (800_000, 900_000)
    assert rule.name == "aws_linux_v1"


def test_a_rate_card_of_some_machines_has_the_prices_of_no_other(prices: PriceRepository) -> None:
    prices.add(
        [price("0.40", NOW - DAY), price("5", NOW - DAY, item=Item(provider="aws", name="z9", unit=PriceUnit.HOUR))]
    )

    card = rate_card(Settings(), prices, NOW, NOW, instance_types=["g5.xlarge"])

    assert {each.item.name for each in card.book} == {"g5.xlarge"}
    assert {each.source for each in card.book} == {PriceSource.CATALOGUE, PriceSource.REFRESHED}


def test_what_stands_is_shown_with_what_is_scheduled(prices: PriceRepository) -> None:
    prices.add(
        [
            price("0.3", source=PriceSource.OVERRIDE),
            price("0.2", NOW + DAY, source=PriceSource.OVERRIDE),
            price("5", NOW + DAY, item=Item(provider="aws", name="z9.huge", unit=PriceUnit.HOUR)),
        ]
    )
    said = prices.in_force(NOW, datetime.max.replace(tzinfo=UTC))

    [held] = standing(said, NOW, Wanted(currency="USD", name="g5.xlarge", region="us-east-1", unit=PriceUnit.HOUR))[2:]
    [to_come] = standing(said, NOW, Wanted(currency="USD", name="z9.huge"))

    assert (held.item, held.price) == (SPOT, price("0.3", source=PriceSource.OVERRIDE))
    assert [each.effective_at for each in held.scheduled] == [NOW + DAY]
    assert to_come.price is None
    assert len(to_come.scheduled) == 1
    assert standing(said, NOW, Wanted(currency="EUR")) == []


def test_a_price_that_was_said_again_is_as_old_as_the_last_answer(prices: PriceRepository) -> None:
    question = PriceQuestion(provider="aws", instance_type="g5.xlarge", market=Market.ON_DEMAND, region="us-east-1")
    items = [
        Item(provider="aws", name="g5.xlarge", unit=PriceUnit.HOUR, market=market, region="us-east-1")
        for market in (Market.ON_DEMAND, Market.RESERVED)
    ]
    answer = [price("1", NOW - DAY, item=item) for item in items]
    for days in (0, 3):
        later = NOW + days * DAY
        prices.add_answer(
            Refresh(question=question, asked_at=later, prices=2), [replace(each, as_of=later) for each in answer]
        )
    prices.add([price("0.4")])
    now = NOW + 4 * DAY

    found = standing(
        prices.in_force(now, now),
        now,
        Wanted(currency="USD", name="g5.xlarge", region="us-east-1"),
        asked=prices.last_asked(),
    )

    assert {each.item.market: each.confirmed_at for each in found} == {
        Market.ON_DEMAND: NOW + 3 * DAY,
        Market.RESERVED: NOW + 3 * DAY,
        Market.SPOT: NOW,
    }


def test_the_catalogue_is_imported_once(prices: PriceRepository) -> None:
    assert import_catalogue(prices) > 1000
    assert import_catalogue(prices) == 0
