"""Prices: what one unit of a thing costs from an instant on, as somebody said it.

Unit prices are integer picos (1e-12 of a unit of currency), so that an S3 GET of $0.0000004 and a token of a model at $0.05
a million are exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Final

from pipeline.domain.errors import UsageError
from pipeline.domain.limits import RATE_MICROS_PER_HOUR_MAX

PICOS_PER_MICRO: Final = 1_000_000
PICOS_PER_UNIT: Final = 1_000_000_000_000
#: Of one hour, gigabyte, request or token; it fits a BIGINT with room for a month of them.
UNIT_PRICE_PICOS_MAX: Final = RATE_MICROS_PER_HOUR_MAX * PICOS_PER_MICRO
_DECIMALS_MAX: Final = 12


class Market(StrEnum):
    """On what terms a thing is had."""

    ON_DEMAND = "on_demand"
    SPOT = "spot"
    #: An instance type committed to for a year, nothing paid at the start.
    RESERVED = "reserved"
    #: Tokens of an external API whose answers may take a day.
    BATCH = "batch"


class PriceUnit(StrEnum):
    """What a price is for one of; it tells what kind of thing its name is."""

    #: Of an instance type.
    HOUR = "hour"
    #: Of a storage class, for a calendar month.
    GB_MONTH = "gb_month"
    #: Of a kind of request to a storage class, such as `s3_standard.get`.
    REQUEST = "request"
    #: Sent from `region` to the region that is the name, or to `internet` or `zone` (another zone of the same region).
    GB = "gb"
    #: Of an external API's model.
    INPUT_TOKEN = "input_token"  # noqa: S105 -- a token of text
    CACHED_INPUT_TOKEN = "cached_input_token"  # noqa: S105 -- a token of text
    OUTPUT_TOKEN = "output_token"  # noqa: S105 -- a token of text


class PriceSource(StrEnum):
    """Who said it; a later word of this list yields to an earlier one."""

    #: The operator.
    OVERRIDE = "override"
    #: The provider, when asked.
    REFRESHED = "refreshed"
    #: What this release came with.
    CATALOGUE = "catalogue"

    @property
    def rank(self) -> int:
        """Return 0 for the source that beats all others."""
        return list(PriceSource).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A thing that has a price: what, from whom, on what terms, and where."""

    provider: str
    #: An instance type, a storage class, a kind of request, a region that is sent to, or a model: see `PriceUnit`.
    name: str
    unit: PriceUnit
    market: Market = Market.ON_DEMAND
    #: None: any.
    region: str | None = None
    #: None: any of the region. A zone's id, such as `use1-az1`, is the same for all accounts, and its name is not.
    zone: str | None = None

    def __post_init__(self) -> None:
        """Refuse a zone of no region."""
        if self.zone is not None and self.region is None:
            raise UsageError(f"zone {self.zone!r} is of no region", hint="name the region, too")

    @property
    def places(self) -> tuple[Item, ...]:
        """Return the items whose prices are prices of this one: its zone's, its region's, those of anywhere."""
        region = self if self.zone is None else replace(self, zone=None)
        return tuple(dict.fromkeys((self, region, replace(region, region=None))))

    @property
    def narrowness(self) -> int:
        """Return how exactly it says where: 2 for a zone, 1 for a region, 0 for anywhere."""
        return (self.region is not None) + (self.zone is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one unit of an item costs from `effective_at` until another price of the same item and source holds."""

    item: Item
    #: None: this source says nothing any more from here on, and another's word counts.
    unit_price_picos: int | None
    currency: str
    effective_at: datetime
    source: PriceSource
    #: When it was looked up or said.
    as_of: datetime
    #: Who said it, in words: a data set, a provider's interface, an actor.
    origin: str

    def __post_init__(self) -> None:
        """Refuse what no price is."""
        if self.unit_price_picos is not None and not 0 <= self.unit_price_picos <= UNIT_PRICE_PICOS_MAX:
            raise UsageError(f"{self.unit_price_picos} picos is no price of a {self.item.unit}")
        assert self.effective_at.tzinfo is not None, "an instant without a zone"
        assert self.as_of.tzinfo is not None, "an instant without a zone"


def picos_of(text: str) -> int:
    """Return the picos of a price such as `0.0000004`, or raise `UsageError`."""
    try:
        units = Decimal(text.strip())
    except InvalidOperation:
        units = Decimal("NaN")
    if not units.is_finite() or not 0 <= units <= Decimal(UNIT_PRICE_PICOS_MAX) / PICOS_PER_UNIT:
        raise UsageError(
            f"{text!r} is not a price",
            hint=f"write a number from 0 to {UNIT_PRICE_PICOS_MAX // PICOS_PER_UNIT:,}, such as 1.006",
        )
    picos = units * PICOS_PER_UNIT
    if picos != int(picos):
        raise UsageError(f"{text!r} has more than {_DECIMALS_MAX} decimals", hint="the smallest price is 1e-12")
    return int(picos)


def price_text(picos: int) -> str:
    """Return picos as a decimal amount of units with nothing lost, and two decimals at least: 400000 is `0.0000004`."""
    units, fraction = divmod(picos, PICOS_PER_UNIT)
    return f"{units}.{f'{fraction:0{_DECIMALS_MAX}d}'.rstrip('0').ljust(2, '0')}"


def rate_micros(unit_price_picos: int) -> int:
    """Return a price in micro-units, halves rounded up: what a worker's rate can be."""
    return (unit_price_picos + PICOS_PER_MICRO // 2) // PICOS_PER_MICRO
