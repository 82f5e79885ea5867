"""The price catalogue that this release comes with: tables, each with where it is from and as of when.

It is a start, not the truth: prices change, and `nightrate prices refresh` asks for those of today.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from statistics import median_low
from types import MappingProxyType
from typing import Final

from pipeline.domain.costs.prices import Item, Market, Price, PriceSource, PriceUnit, picos_of

_TOKENS_PER_QUOTED: Final = 1_000_000
_MEDIAN: Final = "; the median of the region's zones"
_MODEL_COLUMNS: Final = (
    ("input", PriceUnit.INPUT_TOKEN, Market.ON_DEMAND),
    ("output", PriceUnit.OUTPUT_TOKEN, Market.ON_DEMAND),
    ("cached_input", PriceUnit.CACHED_INPUT_TOKEN, Market.ON_DEMAND),
    ("batch_input", PriceUnit.INPUT_TOKEN, Market.BATCH),
    ("batch_output", PriceUnit.OUTPUT_TOKEN, Market.BATCH),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table of the catalogue."""

    file: str
    #: How its rows and columns are laid out: a key of `_READERS`.
    shape: str
    #: Empty where each row says it.
    provider: str
    market: str
    as_of: datetime
    #: The data set, and what its prices are.
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What is in an instance type."""

    provider: str
    instance_type: str
    #: None: no GPU.
    gpu: str | None
    gpu_count: int
    #: Of one GPU, as its maker counts.
    gpu_memory_gib: int
    vcpus: int
    memory_gib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Everything in it."""

    currency: str
    tables: tuple[Table, ...]
    prices: tuple[Price, ...]
    #: By provider and instance type.
    hardware: Mapping[tuple[str, str], Hardware]

    @property
    def as_of(self) -> datetime:
        """Return when the newest of its tables was true."""
        return max(table.as_of for table in self.tables)


@cache
def load() -> Catalogue:
    """Read the catalogue from the package."""
    listed = json.loads(_text("sources.json"))
    tables = tuple(
        Table(**{**table, "as_of": datetime.fromisoformat(table["as_of"]).replace(tzinfo=UTC)})
        for table in listed["tables"]
    )
    prices = tuple(
        Price(
            item=item,
            unit_price_picos=picos,
            currency=listed["currency"],
            effective_at=table.as_of,
            source=PriceSource.CATALOGUE,
            as_of=table.as_of,
            origin=f"{table.origin}{note}",
        )
        for table in tables
        for item, picos, note in _READERS[table.shape](table)
    )
    hardware = {(each.provider, each.instance_type): each for each in map(_hardware, _rows("hardware.csv"))}
    return Catalogue(currency=listed["currency"], tables=tables, prices=prices, hardware=MappingProxyType(hardware))


def _text(file: str) -> str:
    return resources.files(__package__).joinpath(file).read_text(encoding="utf-8")


def _rows(file: str) -> Iterator[dict[str, str]]:
    return csv.DictReader(_text(file).splitlines())


def _hardware(row: Mapping[str, str]) -> Hardware:
    return Hardware(
        provider=row["provider"],
        instance_type=row["instance_type"],
        gpu=row["gpu"] or None,
        gpu_count=int(row["gpu_count"]),
        gpu_memory_gib=int(row["gpu_memory_gib"]),
        vcpus=int(row["vcpus"]),
        memory_gib=int(row["memory_gib"]),
    )


#: An item, its price in picos, and what is to be said of it besides where it is from.
_Priced = Iterable[tuple[Item, int, str]]


def _wide(table: Table) -> _Priced:
    """Read hourly prices: a row for each instance type, a column for each region."""
    for row in _rows(table.file):
        name = row.pop("name")
        for region, price in row.items():
            if price:
                yield _item(table, name, PriceUnit.HOUR, region), picos_of(price), ""


def _places(table: Table) -> _Priced:
    """Read a row for each price. Where a region has prices of zones alone, their median is the region's."""
    of_zones: dict[Item, list[int]] = defaultdict(list)
    for row in _rows(table.file):
        unit = PriceUnit(row.get("unit") or PriceUnit.HOUR)
        picos, zone = picos_of(row["price"]), row.get("zone") or None
        item = _item(table, row["name"], unit, row["region"] or None, zone)
        yield item, picos, ""
        if zone is not None:
            of_zones[_item(table, row["name"], unit, row["region"])].append(picos)
    yield from ((item, median_low(prices), _MEDIAN) for item, prices in of_zones.items())


def _pairs(table: Table) -> _Priced:
    """Read prices of a gigabyte: a row for each region that sends, a column for each that gets."""
    for row in _rows(table.file):
        sender = row.pop("from")
        for receiver, price in row.items():
            if price:
                yield _item(table, receiver, PriceUnit.GB, sender), picos_of(price), ""


def _models(table: Table) -> _Priced:
    """Read prices of a million tokens: a row for each model."""
    for row in _rows(table.file):
        for column, unit, market in _MODEL_COLUMNS:
            if row[column]:
                item = Item(provider=row["provider"], name=row["name"], unit=unit, market=market)
                yield item, picos_of(row[column]) // _TOKENS_PER_QUOTED, ""


def _item(table: Table, name: str, unit: PriceUnit, region: str | None, zone: str | None = None) -> Item:
    return Item(provider=table.provider, name=name, unit=unit, market=Market(table.market), region=region, zone=zone)


_READERS: Final[Mapping[str, Callable[[Table], _Priced]]] = MappingProxyType(
    {"wide": _wide, "places": _places, "pairs": _pairs, "models": _models}
)
