"""A catalogue's prices as offers and APIs."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.app.calculating import PriceBook, with_prices
from pipeline.report.calculators.answers import source_of
from pipeline.report.calculators.buy_or_make import BuyOrMakeInputs
from pipeline.report.calculators.catalogued import apis_from, offers_from
from pipeline.report.calculators.fields import fields_of
from pipeline.report.calculators.model_cost import ModelCostInputs, model_cost


@dataclass(frozen=True)
class Item:
    name: str
    unit: str = "hour"
    market: str = "spot"
    provider: str = "aws"
    region: str | None = "us-east-1"
    zone: str | None = None


@dataclass(frozen=True)
class Price:
    item: Item
    unit_price_picos: int


@dataclass(frozen=True)
class Hardware:
    gpu: str | None
    gpu_count: int = 1
    gpu_memory_gib: int = 80


HARDWARE = {
    ("aws", "small"): Hardware("H100"),
    ("aws", "large"): Hardware("H100"),
    ("aws", "old"): Hardware("A100", 8, 40),
    ("aws", "odd"): Hardware("A100", 8, 80),
    ("aws", "cpu"): Hardware(None, 0, 0),
    ("aws", "abacus"): Hardware("Abacus"),
}
UNIT = 10**12


def test_instances_of_a_region_become_offers_the_cheapest_of_each_kind() -> None:
    prices = [
        Price(Item("large"), 9 * UNIT),
        Price(Item("small"), 7 * UNIT),
        Price(Item("small", market="on_demand"), 8 * UNIT),
        Price(Item("small", zone="use1-az1"), 1),
        Price(Item("small", region="eu-west-1"), 2),
        Price(Item("small", provider="gcp"), 3),
        Price(Item("small", unit="gb"), 4),
        Price(Item("old"), 5 * UNIT),
        Price(Item("odd"), 6 * UNIT + 500_001),
        Price(Item("cpu"), 1),
        Price(Item("abacus"), 1),
        Price(Item("unknown"), 1),
    ]

    found = offers_from(prices, HARDWARE, provider="aws", region="us-east-1")

    assert [(offer.name, offer.gpu, offer.gpus, offer.market, offer.price_micros_per_hour) for offer in found] == [
        ("old", "A100-40GB", 8, "spot", 5_000_000),
        ("odd", "A100-80GB", 8, "spot", 6_000_001),
        ("small", "H100", 1, "spot", 7_000_000),
        ("small", "H100", 1, "on_demand", 8_000_000),
    ]


def test_apis_with_both_batch_prices_become_options() -> None:
    def api(name: str, unit: str, picos: int, market: str = "batch") -> Price:
        return Price(Item(name, unit=unit, market=market, region=None), picos)

    prices = [
        api("dear", "input_token", 1_000_000),
        api("dear", "output_token", 2_000_000),
        api("cheap", "input_token", 50_000),
        api("cheap", "output_token", 200_000),
        api("half", "input_token", 1),
        api("embeds", "input_token", 1),
        api("embeds", "output_token", 0),
        api("listed", "input_token", 1, "on_demand"),
        api("listed", "output_token", 1, "on_demand"),
        api("=bad", "input_token", 1),
        api("=bad", "output_token", 1),
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
    offers = offers_from([Price(Item("small"), UNIT)], HARDWARE, provider="aws", region="us-east-1")
    book = PriceBook(offers=offers)

    filled = with_prices(ModelCostInputs(), book)

    assert isinstance(filled, ModelCostInputs)
    assert model_cost(filled).cheapest == "small (spot)"
    assert with_prices(filled, PriceBook(offers=offers * 2)) == filled
    assert with_prices(BuyOrMakeInputs(), book) == BuyOrMakeInputs()
    # Nobody gave them.
    (offers_asked,) = (each for each in fields_of(ModelCostInputs) if each.name == "offers")
    assert source_of(offers_asked, filled) == "given, or the price catalogue"
