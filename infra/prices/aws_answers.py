"""What AWS answers, read into prices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from statistics import median_low
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from pipeline.domain.costs.prices import Item, Market, Price, PriceSource, PriceUnit, picos_of
from pipeline.domain.errors import UsageError
from pipeline.ports.prices import PriceFeedError, PriceQuestion

PROVIDER: Final = "aws"
_CURRENCY: Final = "USD"
_PRICE_LIST: Final = "AWS Price List"
_SPOT_HISTORY: Final = "EC2 spot price history"
_SPOT_MEDIAN: Final = "EC2 spot price history, median of the zones"
_HOURS: Final = "Hrs"


def _in_utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _picos(text: str) -> int:
    try:
        return picos_of(text)
    except UsageError as error:
        raise ValueError(str(error)) from None


_Moment = Annotated[datetime, AfterValidator(_in_utc)]
_Picos = Annotated[int, BeforeValidator(_picos)]


class SpotAnswer(BaseModel):
    """One entry of EC2's spot price history."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    region: str
    instance_type: str = Field(alias="InstanceType")
    zone_name: str = Field(alias="AvailabilityZone")
    zone_id: str | None = Field(default=None, alias="AvailabilityZoneId")
    price_picos: _Picos = Field(alias="SpotPrice")
    at: _Moment = Field(alias="Timestamp")


class _Dimension(BaseModel):
    unit: str
    per_unit: dict[str, _Picos] = Field(alias="pricePerUnit")


class _Terms(BaseModel):
    effective_at: _Moment = Field(alias="effectiveDate")
    dimensions: dict[str, _Dimension] = Field(alias="priceDimensions")
    attributes: dict[str, str] = Field(default_factory=dict, alias="termAttributes")

    @property
    def hourly_picos(self) -> set[int]:
        """Return its prices of an hour."""
        hourly = [each for each in self.dimensions.values() if each.unit == _HOURS and _CURRENCY in each.per_unit]
        return {each.per_unit[_CURRENCY] for each in hourly}


class _Description(BaseModel):
    attributes: dict[str, str] = Field(default_factory=dict)


class _Product(BaseModel):
    product: _Description
    terms: dict[str, dict[str, _Terms]]

    @property
    def is_on_demand(self) -> bool:
        """Whether it is no capacity block, which has prices of its own."""
        return self.product.attributes.get("marketoption", "OnDemand") == "OnDemand"


def spot_prices(answers: Iterable[SpotAnswer], *, since: datetime, now: datetime) -> list[Price]:
    """Return each change of a zone's price, under the zone's id and under the name that this account has for it.

    The region has the median of its zones' prices, for machines of which the zone is not known.
    """
    told = sorted(answers, key=lambda answer: answer.at)
    prices = [
        _price(_spot_item(answer, zone), answer.price_picos, answer.at, now, _SPOT_HISTORY)
        for answer in told
        for zone in dict.fromkeys((answer.zone_id, answer.zone_name))
        if zone
    ]
    # What was in force at `since` is told with the instant that it began at: they all hold from the last of these on.
    complete_at = max((answer.at for answer in told if answer.at <= since), default=since)
    held: dict[str, int] = {}
    medians: dict[datetime, int] = {}
    for answer in told:
        held[answer.zone_name] = answer.price_picos
        if answer.at >= complete_at:
            medians[answer.at] = median_low(held.values())
    if told:
        region = _spot_item(told[0], None)
        prices += [_price(region, picos, at, now, _SPOT_MEDIAN) for at, picos in medians.items()]
    return prices


def products_of(documents: Iterable[str], question: PriceQuestion, *, now: datetime) -> Sequence[Price]:
    """Return the prices per hour, on demand and reserved for a year with nothing paid at the start.

    Raises `PriceFeedError` where the price list names several for the same thing.
    """
    found: dict[Market, dict[int, datetime]] = {Market.ON_DEMAND: {}, Market.RESERVED: {}}
    for document in documents:
        product = _Product.model_validate_json(document)
        if not product.is_on_demand:
            continue
        for market, terms in _terms_of(product):
            for picos in terms.hourly_picos:
                held = found[market].get(picos)
                found[market][picos] = terms.effective_at if held is None else min(held, terms.effective_at)
    prices = []
    for market, by_picos in found.items():
        if len(by_picos) > 1:
            raise PriceFeedError(
                f"the price list names {len(by_picos)} prices for {question.instance_type} ({market}) in {question.region}"
            )
        item = Item(
            provider=PROVIDER,
            name=question.instance_type,
            unit=PriceUnit.HOUR,
            market=market,
            region=question.region,
        )
        prices += [_price(item, picos, at, now, _PRICE_LIST) for picos, at in by_picos.items()]
    return prices


def _terms_of(product: _Product) -> Iterable[tuple[Market, _Terms]]:
    for terms in product.terms.get("OnDemand", {}).values():
        yield Market.ON_DEMAND, terms
    for terms in product.terms.get("Reserved", {}).values():
        wanted = {"LeaseContractLength": "1yr", "PurchaseOption": "No Upfront", "OfferingClass": "standard"}
        if wanted.items() <= terms.attributes.items():
            yield Market.RESERVED, terms


def _spot_item(answer: SpotAnswer, zone: str | None) -> Item:
    return Item(
        provider=PROVIDER,
        name=answer.instance_type,
        unit=PriceUnit.HOUR,
        market=Market.SPOT,
        region=answer.region,
        zone=zone,
    )


def _price(item: Item, picos: int, at: datetime, now: datetime, origin: str) -> Price:
    return Price(
        item=item,
        unit_price_picos=picos,
        currency=_CURRENCY,
        effective_at=at,
        source=PriceSource.REFRESHED,
        as_of=now,
        origin=origin,
    )
