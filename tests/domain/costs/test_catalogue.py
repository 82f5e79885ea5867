"""The catalogue in the package: whole, dated, and readable by the names that people use."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from importlib import resources

import pytest

from pipeline.domain.costs import catalogue
from pipeline.domain.costs.prices import Item, Market, PriceSource, PriceUnit, price_text
from pipeline.domain.costs.rate_card import PriceBook, family_of

#: After the newest of its tables.
NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook(catalogue.load().prices)


@pytest.mark.parametrize(
    ("item", "price"),
    [
        (Item(provider="aws", name="g5.xlarge", unit=PriceUnit.HOUR, region="us-east-1"), "1.006"),
        (Item(provider="aws", name="p5.48xlarge", unit=PriceUnit.HOUR, region="us-east-1"), "55.04"),
        (Item(provider="aws", name="p4d.24xlarge", unit=PriceUnit.HOUR, region="us-east-1"), "21.957642"),
        (Item(provider="aws", name="c8i.2xlarge", unit=PriceUnit.HOUR, region="us-east-1"), "0.37484"),
        (
            Item(
                provider="aws",
                name="p5.48xlarge",
                unit=PriceUnit.HOUR,
                market=Market.SPOT,
                region="us-east-1",
                zone="use1-az2",
            ),
            "18.734",
        ),
        (
            Item(provider="aws", name="p4d.24xlarge", unit=PriceUnit.HOUR, market=Market.RESERVED, region="us-east-2"),
            "13.921092",
        ),
        (Item(provider="aws", name="s3_standard.get", unit=PriceUnit.REQUEST, region="us-east-1"), "0.0000004"),
        (Item(provider="aws", name="us-west-2", unit=PriceUnit.GB, region="us-east-1"), "0.02"),
        (Item(provider="openai", name="gpt-5-nano", unit=PriceUnit.CACHED_INPUT_TOKEN), "0.000000005"),
        (
            Item(provider="openai", name="gpt-5-mini", unit=PriceUnit.OUTPUT_TOKEN, market=Market.BATCH),
            "0.000001",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Item) else value,
)
def test_prices_are_what_their_sources_say(book: PriceBook, item: Item, price: str) -> None:
    found = book.price(item, NOW, "USD")

    assert found is not None
    assert found.unit_price_picos is not None
    assert price_text(found.unit_price_picos) == price
    assert found.source is PriceSource.CATALOGUE
    assert found.origin


def test_a_region_whose_zones_alone_have_prices_has_their_median(book: PriceBook) -> None:
    zones = [
        price.unit_price_picos
        for price in catalogue.load().prices
        if (price.item.name, price.item.market, price.item.region) == ("p4d.24xlarge", Market.SPOT, "us-east-2")
        and price.item.zone is not None
    ]
    region = Item(provider="aws", name="p4d.24xlarge", unit=PriceUnit.HOUR, market=Market.SPOT, region="us-east-2")

    found = book.price(region, NOW, "USD")

    assert len(zones) == 3
    assert found is not None
    assert found.unit_price_picos == sorted(zones)[1]  # type: ignore[type-var] # the catalogue's all say something


def test_no_item_has_two_prices_and_none_is_newer_than_the_catalogue() -> None:
    loaded = catalogue.load()

    assert [item for item, count in Counter(price.item for price in loaded.prices).items() if count > 1] == []
    assert {price.currency for price in loaded.prices} == {"USD"}
    assert all(price.effective_at == price.as_of <= loaded.as_of <= NOW for price in loaded.prices)
    assert all(any(price.origin.startswith(table.origin) for table in loaded.tables) for price in loaded.prices)
    assert len({table.origin for table in loaded.tables}) == len(loaded.tables)


def test_every_instance_type_with_a_price_per_hour_is_described_and_the_other_way_round() -> None:
    loaded = catalogue.load()
    priced = {(price.item.provider, price.item.name) for price in loaded.prices if price.item.unit is PriceUnit.HOUR}

    assert priced == set(loaded.hardware)
    for hardware in loaded.hardware.values():
        assert (hardware.gpu is None) == (hardware.gpu_count == 0) == (hardware.gpu_memory_gib == 0)
        assert hardware.vcpus > 0
        assert hardware.memory_gib > 0
    families = {family_of(instance_type) for provider, instance_type in priced if provider == "aws"}
    assert {"g5", "g6", "g6e", "p4d", "p5", "p5en", "p6-b200", "p6-b300", "c7i", "c8i", "m7i"} <= families


def test_tokens_in_a_batch_are_never_dearer_than_at_once(book: PriceBook) -> None:
    models = [price for price in book if price.item.market is Market.BATCH]

    assert len({(price.item.provider, price.item.name) for price in models}) >= 30
    for price in models:
        at_once = book.price(Item(provider=price.item.provider, name=price.item.name, unit=price.item.unit), NOW, "USD")
        assert at_once is not None
        assert price.unit_price_picos is not None
        assert at_once.unit_price_picos is not None
        assert price.unit_price_picos <= at_once.unit_price_picos


def test_the_catalogue_is_small() -> None:
    folder = resources.files(catalogue)

    assert sum(len(file.read_bytes()) for file in folder.iterdir() if file.name.endswith((".csv", ".json"))) < 60_000
