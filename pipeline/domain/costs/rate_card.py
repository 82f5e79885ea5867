"""Rate cards: which price holds for a worker in a place at a moment, and what becomes of it by contract.

The operator's word beats every other. Where the operator said nothing the price of the narrowest place holds (zone, region,
anywhere), and of two for the same place the refreshed one beats the catalogue's. Of one source's prices for one item the
last that is in effect holds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Final

from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.costs.prices import Item, Market, Price, PriceSource, PriceUnit, rate_micros
from pipeline.domain.errors import NightrateError

_PPM: Final = 1_000_000
_MICROSECOND: Final = timedelta(microseconds=1)
_Voice = tuple[Item, str, PriceSource]


class PriceUnknownError(NightrateError):
    """No price is known for this."""

    code = "price_unknown"
    exit_code = 3


class PriceBook:
    """Prices by what they are for. Never changed once it is made."""

    def __init__(self, prices: Iterable[Price]) -> None:
        """Keep them; of one item, source and instant the last that was said holds."""
        words: dict[_Voice, dict[datetime, Price]] = defaultdict(dict)
        for price in prices:
            said = words[price.item, price.currency, price.source]
            before = said.get(price.effective_at)
            if before is None or before.as_of <= price.as_of:
                said[price.effective_at] = price
        self._prices = {voice: [said[at] for at in sorted(said)] for voice, said in words.items()}

    def __iter__(self) -> Iterator[Price]:
        """Go through all of them."""
        return chain.from_iterable(self._prices.values())

    def price(self, item: Item, at: datetime, currency: str) -> Price | None:
        """Return the price that holds for `item` at that moment; None where none is known."""
        holding = []
        for said in self._of(item, currency):
            index = bisect_right(said, at, key=_effective_at)
            if index and said[index - 1].unit_price_picos is not None:
                holding.append(said[index - 1])
        return min(holding, key=_precedence, default=None)

    def changes(self, item: Item, after: datetime, until: datetime, currency: str) -> list[datetime]:
        """Return when, later than `after` and no later than `until`, another price may come to hold for `item`."""
        moments: set[datetime] = set()
        for said in self._of(item, currency):
            begin, end = (bisect_right(said, at, key=_effective_at) for at in (after, until))
            moments.update(price.effective_at for price in said[begin:end])
        return sorted(moments)

    def _of(self, item: Item, currency: str) -> Iterator[Sequence[Price]]:
        """Yield what each source says of the item's place and of all that it is in, in the order of instants."""
        for place in item.places:
            for source in PriceSource:
                if said := self._prices.get((place, currency, source)):
                    yield said


@dataclass(frozen=True, slots=True, kw_only=True)
class Discount:
    """What was negotiated off the list prices of a provider."""

    provider: str
    #: An instance family such as `p5`, or an instance type; None: all.
    family: str | None = None
    #: None: all.
    market: Market | None = None
    discount_ppm: int

    def fits(self, offer: Offer) -> bool:
        """Whether it is off this offer's price."""
        return (
            offer.provider == self.provider
            and self.market in {None, offer.market}
            and self.family in {None, offer.family, offer.instance_type}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """On-demand use that is paid for whether it is used or not: a reservation, a savings plan."""

    provider: str
    #: As of a discount.
    family: str | None = None
    region: str | None = None
    #: How many workers at once it covers; None: all.
    workers: int | None = None
    #: What an hour of one of them comes to, all that is paid for the commitment spread over its hours.
    rate_micros_per_hour: int

    def fits(self, offer: Offer) -> bool:
        """Whether it can cover this offer."""
        return (
            offer.market is Market.ON_DEMAND
            and offer.provider == self.provider
            and self.family in {None, offer.family, offer.instance_type}
            and self.region in {None, offer.region}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a worker runs on, as far as it is known: a machine, on some terms, somewhere."""

    market: Market
    provider: str | None = None
    instance_type: str | None = None
    region: str | None = None
    zone: str | None = None
    #: What an hour costs whatever prices say: a pool's fixed price.
    fixed_micros_per_hour: int | None = None

    @property
    def family(self) -> str | None:
        """Return the family of its instance type: `g5` of `g5.xlarge`, `a3` of `a3-highgpu-8g`."""
        return None if self.instance_type is None else family_of(self.instance_type)

    @property
    def item(self) -> Item | None:
        """Return what is to be priced; None where it is not known what it is."""
        if self.provider is None or self.instance_type is None:
            return None
        return Item(
            provider=self.provider,
            name=self.instance_type,
            unit=PriceUnit.HOUR,
            market=self.market,
            region=self.region,
            zone=self.zone if self.region is not None else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HourlyRates:
    """What an hour of a worker costs, and where that is known from."""

    rates: Amounts
    #: None: a flat price of the settings.
    list_price: Price | None
    on_demand_price: Price | None
    commitment: Commitment | None = None

    @property
    def source(self) -> str:
        """Return in words who said the price, and when."""
        if self.list_price is None:
            return "settings"
        return f"{self.list_price.source} {self.list_price.as_of:%Y-%m-%dT%H:%M:%SZ} {self.list_price.origin}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateStep:
    """Rates per hour that hold from `from_us` microseconds after a worker's start."""

    from_us: int
    rates: Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCard:
    """All that decides what a worker costs an hour."""

    book: PriceBook
    currency: str
    #: The price of a machine of which nothing is known.
    flat_micros_per_hour: int
    discounts: Sequence[Discount] = ()
    commitments: Sequence[Commitment] = ()

    def hourly_rates(self, offer: Offer, at: datetime, *, committed_workers: int = 0) -> HourlyRates:
        """Return what an hour of that offer costs at that moment.

        `committed_workers` is how many workers commitments that fit this offer cover already.

        Raises:
            PriceUnknownError: Instance type and provider are known, and their price is not.
        """
        item = offer.item
        if item is None:
            flat = self.flat_micros_per_hour if offer.fixed_micros_per_hour is None else offer.fixed_micros_per_hour
            return HourlyRates(rates=Amounts.cost(flat), list_price=None, on_demand_price=None)
        price = self.book.price(item, at, self.currency)
        on_demand = self.book.price(replace(item, market=Market.ON_DEMAND), at, self.currency)
        if price is None:
            return self._unpriced(offer, item)
        listed = _micros(price)
        commitment = self._commitment(offer, committed_workers)
        contracted = listed * (_PPM - self._discount_ppm(offer))
        contracted = (contracted + _PPM // 2) // _PPM
        effective, billed = contracted, contracted
        if offer.fixed_micros_per_hour is not None:
            contracted = effective = billed = offer.fixed_micros_per_hour
            commitment = None
        elif commitment is not None:
            effective, billed = commitment.rate_micros_per_hour, 0
        rates = Amounts(
            list_micros=listed,
            contracted_micros=contracted,
            effective_micros=effective,
            billed_micros=billed,
            on_demand_micros=listed if on_demand is None else _micros(on_demand),
        )
        return HourlyRates(rates=rates, list_price=price, on_demand_price=on_demand, commitment=commitment)

    def steps(self, offer: Offer, start: datetime, stop: datetime, *, committed_workers: int = 0) -> list[RateStep]:
        """Return the rates that held from `start` to `stop`, a step for each time that they changed.

        Raises:
            PriceUnknownError: No price is known at `start`, or from some later moment on.
        """
        moments = {start}
        if (item := offer.item) is not None:
            for each in (item, replace(item, market=Market.ON_DEMAND)):
                moments.update(self.book.changes(each, start, stop, self.currency))
        steps: list[RateStep] = []
        for at in sorted(moments):
            rates = self.hourly_rates(offer, at, committed_workers=committed_workers).rates
            if not steps or steps[-1].rates != rates:
                steps.append(RateStep(from_us=(at - start) // _MICROSECOND, rates=rates))
        return steps

    def _unpriced(self, offer: Offer, item: Item) -> HourlyRates:
        if offer.fixed_micros_per_hour is not None:
            return HourlyRates(rates=Amounts.cost(offer.fixed_micros_per_hour), list_price=None, on_demand_price=None)
        where = item.zone or item.region or "any region"
        raise PriceUnknownError(
            f"no price in {self.currency} is known for {item.provider} {item.name} ({item.market}) in {where}",
            hint="`nightrate prices refresh` asks AWS for its own, `nightrate prices set` says any",
        )

    def _commitment(self, offer: Offer, committed_workers: int) -> Commitment | None:
        """Return the first commitment with room for one more worker; earlier ones are filled first."""
        left = committed_workers
        for commitment in self.commitments:
            if commitment.fits(offer):
                if commitment.workers is None or left < commitment.workers:
                    return commitment
                left -= commitment.workers
        return None

    def _discount_ppm(self, offer: Offer) -> int:
        fitting = [discount for discount in self.discounts if discount.fits(offer)]

        def exactness(discount: Discount) -> tuple[int, bool]:
            return (
                0 if discount.family is None else 1 + (discount.family == offer.instance_type),
                discount.market is not None,
            )

        return max(fitting, key=exactness).discount_ppm if fitting else 0


def family_of(instance_type: str) -> str:
    """Return the family of an instance type: `p6-b200` of `p6-b200.48xlarge`, `a3` of `a3-highgpu-8g`."""
    head, dot, _ = instance_type.partition(".")
    return head if dot else instance_type.partition("-")[0]


def _effective_at(price: Price) -> datetime:
    return price.effective_at


def _precedence(price: Price) -> tuple[bool, int, int]:
    return price.source is not PriceSource.OVERRIDE, -price.item.narrowness, price.source.rank


def _micros(price: Price) -> int:
    assert price.unit_price_picos is not None, "a price that says nothing cannot hold"
    return rate_micros(price.unit_price_picos)
