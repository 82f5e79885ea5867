"""What things cost here: the catalogue, what providers and operators said, and the settings, put together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pipeline.config import Settings
from pipeline.domain.costs import catalogue
from pipeline.domain.costs.prices import Item, Market, Price, PriceSource, PriceUnit
from pipeline.domain.costs.rate_card import HourlyRates, Offer, PriceBook, RateCard
from pipeline.domain.errors import UsageError
from pipeline.ports.prices import PriceFeed, PriceFeedError, PriceQuestion, Refresh
from storage.database import Database
from storage.prices import PriceRepository
from storage.workers import covered_workers

#: Asked again of the time before the last question: histories are told with some delay.
_OVERLAP: Final = timedelta(hours=1)
#: As far back as AWS tells.
HISTORY_MAX: Final = timedelta(days=90)
_ASKED_MARKETS: Final = (Market.ON_DEMAND, Market.SPOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """What came of asking a provider."""

    asked: int
    #: Questions not asked, because their last answer is young enough.
    still_fresh: int
    #: Prices that were news.
    news: int
    failures: tuple[tuple[PriceQuestion, PriceFeedError], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An item, its price as it stands, and what is to come."""

    item: Item
    #: Which may be said of more places than this one. None: there is none yet.
    price: Price | None
    #: When the price was looked up or said the last time.
    confirmed_at: datetime | None
    scheduled: tuple[Price, ...]


def rate_card(
    settings: Settings,
    repository: PriceRepository,
    start: datetime,
    stop: datetime,
    *,
    instance_types: Sequence[str] | None = None,
) -> RateCard:
    """Return the rate card with all prices in force from `start` to `stop`, of those instance types or of everything."""
    said = repository.in_force(start, stop, names=instance_types)
    return card_of(settings, said, instance_types=instance_types)


def card_of(settings: Settings, said: Iterable[Price], *, instance_types: Sequence[str] | None = None) -> RateCard:
    """Return the rate card of the catalogue, the settings, and what was said, of those instance types or of everything."""
    known = catalogue.load().prices
    if instance_types is not None:
        known = tuple(price for price in known if price.item.name in instance_types)
    return RateCard(
        book=PriceBook([*known, *said]),
        currency=settings.currency,
        flat_micros_per_hour=settings.rate_micros_per_hour,
        discounts=settings.rate_card.contracted(),
        commitments=settings.rate_card.committed(),
    )


def rates_here(
    settings: Settings, repository: PriceRepository, now: datetime, *, committed_workers: int = 0
) -> HourlyRates:
    """Return what an hour of a worker of the pool of these settings costs now.

    Where [rate_card.pools] does not say what the pool runs on, that is `rate_per_hour`. `committed_workers` are covered by
    a commitment already.

    Raises:
        PriceUnknownError: It says so, and no price is known of that.
    """
    offer = settings.rate_card.offer_of(settings.pool, settings.market)
    names = [] if offer.instance_type is None else [offer.instance_type]
    card = rate_card(settings, repository, now, now, instance_types=names)
    return card.hourly_rates(offer, now, committed_workers=committed_workers)


def committed_workers(settings: Settings, database: Database, offer: Offer) -> int:
    """Return how many live workers the commitments that fit this offer cover already."""
    fitting = [commitment for commitment in settings.rate_card.committed() if commitment.fits(offer)]
    covered = covered_workers(database) if fitting else ()
    return sum(any(commitment.fits(other) for commitment in fitting) for other in covered)


def import_catalogue(repository: PriceRepository) -> int:
    """Keep the catalogue's prices in the database, for whoever reads them there; returns how many were news."""
    return repository.add(catalogue.load().prices)


def questions(settings: Settings, regions: Sequence[str], instance_types: Sequence[str]) -> list[PriceQuestion]:
    """Return what to ask AWS: of what is named, or else of what the pools of the settings run on.

    Raises `UsageError` where neither says in which region.
    """
    pools = [pool for pool in settings.rate_card.pools.values() if pool.provider == "aws" and pool.region is not None]
    places = {(pool.region, pool.instance_type) for pool in pools}
    regions = list(dict.fromkeys(regions)) or sorted({str(region) for region, _ in places})
    if not regions:
        raise UsageError(
            "it is not said in which region",
            hint="--region us-east-1, or name provider, instance_type and region of a pool in [rate_card.pools]",
        )
    known = sorted(name for provider, name in catalogue.load().hardware if provider == "aws")
    return [
        PriceQuestion(provider="aws", instance_type=instance_type, market=market, region=region)
        for region in regions
        for instance_type in list(dict.fromkeys(instance_types))
        or sorted({str(name) for place, name in places if place == region})
        or known
        for market in _ASKED_MARKETS
    ]


def refresh(
    repository: PriceRepository,
    feed: PriceFeed,
    asked: Iterable[PriceQuestion],
    *,
    now: datetime,
    max_age: timedelta,
    history: timedelta,
) -> Refreshed:
    """Ask what was not asked for longer than `max_age`, and keep the answers; one that fails does not stop the others.

    Spot prices are asked for from the last question on, or as far back as `history` the first time.

    Raises:
        UsageError: Nothing can be asked as things are: no credentials, no rights, no such region.
    """
    wanted = list(asked)
    last = repository.last_asked(sorted({question.instance_type for question in wanted}))
    stale = [question for question in wanted if question not in last or now - last[question] > max_age]
    news, failures = 0, []
    for question in stale:
        before = last.get(question)
        since = max(now - history if before is None else before - _OVERLAP, now - HISTORY_MAX)
        try:
            prices = feed.ask(question, since=since, now=now)
        except PriceFeedError as error:
            failures.append((question, error))
            continue
        news += repository.add_answer(Refresh(question=question, asked_at=now, prices=len(prices)), prices)
    return Refreshed(asked=len(stale), still_fresh=len(wanted) - len(stale), news=news, failures=tuple(failures))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which prices somebody wants to see; None: all."""

    currency: str
    name: str | None = None
    unit: PriceUnit | None = None
    region: str | None = None

    def has(self, price: Price) -> bool:
        """Whether it is one of them."""
        return (
            price.currency == self.currency
            and self.name in {None, price.item.name}
            and self.unit in {None, price.item.unit}
            and self.region in {None, price.item.region}
        )


def standing(
    said: Iterable[Price], now: datetime, wanted: Wanted, *, asked: Mapping[PriceQuestion, datetime] | None = None
) -> list[Standing]:
    """Return what holds now for each item that has a price, those of the catalogue included, and what is scheduled.

    A price that a provider said again is kept once; `asked`, when each question was asked last, tells how old it is.
    """
    book = PriceBook([*catalogue.load().prices, *said])
    by_item: dict[Item, list[Price]] = defaultdict(list)
    for price in book:
        if wanted.has(price):
            by_item[price.item].append(price)
    found = []
    for item in sorted(by_item, key=_order):
        held = book.price(item, now, wanted.currency)
        scheduled = tuple(price for price in by_item[item] if price.effective_at > now)
        if held is not None or scheduled:
            confirmed_at = None if held is None else _confirmed_at(held, asked or {})
            found.append(Standing(item=item, price=held, confirmed_at=confirmed_at, scheduled=scheduled))
    return found


def _confirmed_at(price: Price, asked: Mapping[PriceQuestion, datetime]) -> datetime:
    item = price.item
    if price.source is not PriceSource.REFRESHED or item.region is None:
        return price.as_of
    # Reserved prices are told with those on demand.
    market = Market.SPOT if item.market is Market.SPOT else Market.ON_DEMAND
    question = PriceQuestion(provider=item.provider, instance_type=item.name, market=market, region=item.region)
    return max(price.as_of, asked.get(question, price.as_of))


def _order(item: Item) -> tuple[str, str, str, str, str, str]:
    return item.provider, item.name, item.unit, item.market, item.region or "", item.zone or ""
