"""A catalogue's prices as offers and APIs."""

from __future__ import annotations

from datetime import UTC, datetime

from pipeline.app.calculating import PriceBook, with_prices
from pipeline.domain.costs.catalogue import Hardware
from pipeline.domain.costs.prices import Item, Market, Price, PriceSource, PriceUnit
from pipeline.report.calculators.answers import source_of
from pipeline.report.calculators.buy_or_make import BuyOrMakeInputs
from pipeline.report.calculators.catalogued import apis_from, offers_from
from pipeline.report.calculators.fields import fields_of
from pipeline.report.calculators.model_cost import ModelCostInputs, model_cost

AT = datetime(2026, 1, 1, tzinfo=UTC)


def item(
    name: str,
    *,
    unit: PriceUnit = PriceUnit.HOUR,
    market: Market = Market.SPOT,
    provider: str = "aws",
    region: str | None = "us-east-1",
    zone: str | None = None,
) -> Item:
    return Item(provider=provider, name=name, unit=unit, market=market, region=region, zone=zone)


def price(of: Item, picos: int | None) -> Price:
    return Price(
        item=of,
        unit_price_picos=picos,
        currency="USD",
        effective_at=AT,
        source=PriceSource.CATALOGUE,
        as_of=AT,
        origin="here",
    )


def inside(gpu: str | None, gpu_count: int = 1, gpu_memory_gib: int = 80) -> Hardware:
    return Hardware(
        provider="aws",
        instance_type="any",
        gpu=gpu,
        gpu_count=gpu_count,
        gpu_memory_gib=gpu_memory_gib,
        vcpus=1,
        memory_gib=1,
    )


HARDWARE = {
    ("aws", "small"): inside("H100"),
    ("aws", "large"): inside("H100"),
    ("aws", "old"): inside("A100", 8, 40),
    ("aws", "odd"): inside("A100", 8, 80),
    ("aws", "cpu"): inside(None, 0, 0),
    ("aws", "abacus"): inside("Abacus"),
}
UNIT = 10**12


def test_instances_of_a_region_become_offers_the_cheapest_of_each_kind() -> None:
    prices = [
        price(item("large"), 9 * UNIT),
        price(item("small"), 7 * UNIT),
        price(item("small", market=Market.ON_DEMAND), 8 * UNIT),
        price(item("small", zone="use1-az1"), 1),
        price(item("small", region="eu-west-1"), 2),
        price(item("small", provider="gcp"), 3),
        price(item("small", unit=PriceUnit.REQUEST), 4),
        price(item("small"), None),
        price(item("old"), 5 * UNIT),
        price(item("odd"), 6 * UNIT + 1_500_001),
        price(item("cpu"), 1),
        price(item("abacus"), 1),
        price(item("unknown"), 1),
    ]

    found = offers_from(prices, HARDWARE, provider="aws", region="us-east-1")

    assert [(offer.name, offer.gpu, offer.gpus, offer.market, offer.price_micros_per_hour) for offer in found] == [
        ("old", "A100-40GB", 8, "spot", 5_000_000),
        ("odd", "A100-80GB", 8, "spot", 6_000_002),
        ("small", "H100", 1, "spot", 7_000_000),
        ("small", "H100", 1, "on_demand", 8_000_000),
    ]


def test_apis_with_both_batch_prices_become_options() -> None:
    def api(name: str, unit: PriceUnit, picos: int, market: Market = Market.BATCH) -> Price:
        return price(item(name, unit=unit, market=market, region=None), picos)

    prices = [
        api("dear", PriceUnit.INPUT_TOKEN, 1_000_000),
        api("dear", PriceUnit.OUTPUT_TOKEN, 2_000_000),
        api("cheap", PriceUnit.INPUT_TOKEN, 50_000),
        api("cheap", PriceUnit.OUTPUT_TOKEN, 200_000),
        api("half", PriceUnit.INPUT_TOKEN, 1),
        api("embeds", PriceUnit.INPUT_TOKEN, 1),
        api("embeds", PriceUnit.OUTPUT_TOKEN, 0),
        api("listed", PriceUnit.INPUT_TOKEN, 1, Market.ON_DEMAND),
        api("listed", PriceUnit.OUTPUT_TOKEN, 1, Market.ON_DEMAND),
    ]

    found = apis_from(prices)

    # 0.05 and 0.20 a million tokens.
    assert [
        (each.name, each.price_micros_per_million_input, each.price_micros_per_million_output) for each in found
    ] == [
        ("cheap (batch)", 50_000, 200_000),
        ("dear (batch)", 1_000_000, 2_000_000),
    ]


def test_known_prices_stand_in_where_none_are_given() -> None:
    offers = offers_from([price(item("small"), UNIT)], HARDWARE, provider="aws", region="us-east-1")
    book = PriceBook(offers=offers)

    filled = with_prices(ModelCostInputs(), book)

    assert isinstance(filled, ModelCostInputs)
    assert model_cost(filled).cheapest == "small (spot)"
    assert with_prices(filled, PriceBook(offers=offers * 2)) == filled
    assert with_prices(BuyOrMakeInputs(), book) == BuyOrMakeInputs()
    # Nobody gave them.
    (offers_asked,) = (each for each in fields_of(ModelCostInputs) if each.name == "offers")
    assert source_of(offers_asked, filled) == "given, or the price catalogue"
