"""Who knows what providers bill: the one place that connects settlements to prices and rules."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from pipeline.app.pricing import rate_card
from pipeline.app.stack import Stack, objects_url_of
from pipeline.config import Settings
from pipeline.domain.costs import billing
from pipeline.domain.costs.adjusting import midnight
from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.costs.bills import BillSource, WorkerLife
from pipeline.domain.costs.keeping import ObjectPrices
from pipeline.domain.costs.prices import Item, Market, Price, PriceUnit
from pipeline.domain.costs.rate_card import Offer, PriceUnknownError, RateCard, RateStep
from pipeline.domain.lifecycle import WorkerEnd
from storage.prices import PriceRepository

#: Lives are nearly all of a few days and a few kinds of machines.
_CARDS_MAX: Final = 64
_DAY: Final = timedelta(days=1)
_NOT_COVERED: Final = 2**31


def bills_of(stack: Stack) -> BillSource:
    """Return the bills of this installation's workers."""
    return PricedBills(stack.settings, PriceRepository(stack.database))


def object_prices_at(stack: Stack, at: datetime) -> ObjectPrices:
    """Return what the object store bills at that moment: AWS's prices for S3, in the one region that the pools are in."""
    settings = stack.settings
    regions = {pool.region for pool in settings.rate_card.pools.values() if pool.region is not None}
    if not objects_url_of(settings).startswith("s3://") or settings.s3_endpoint_url or len(regions) != 1:
        return ObjectPrices()
    names = ("s3_standard", "s3_standard.put", "s3_standard.get", "internet")
    book = rate_card(settings, PriceRepository(stack.database), at, at, instance_types=names).book
    (region,) = regions

    def price(name: str, unit: PriceUnit) -> Price | None:
        return book.price(Item(provider="aws", name=name, unit=unit, region=region), at, settings.currency)

    kept = price(names[0], PriceUnit.GB_MONTH)
    put, get = (price(name, PriceUnit.REQUEST) for name in names[1:3])
    return ObjectPrices(
        gb_month_picos=_picos(kept),
        put_picos=_picos(put),
        get_picos=_picos(get),
        egress_picos=_picos(price(names[3], PriceUnit.GB)),
        source=None if kept is None else f"{kept.source} {kept.as_of:%Y-%m-%dT%H:%M:%SZ} {kept.origin}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedBill:
    """A bill of `pipeline.domain.costs.billing`, in the journal's amounts."""

    bill: billing.Bill
    source: str | None

    @property
    def rule(self) -> str:
        """Return the name of the rule that it is by."""
        return self.bill.rule.name

    def between(self, start_us: int, stop_us: int) -> Amounts:
        """Return the cost of a span."""
        return self.bill.between(start_us, stop_us)

    @property
    def rounding(self) -> Amounts:
        """Return what is billed for the rest of the last second or hour begun."""
        return self.bill.parts.rounding

    @property
    def minimum(self) -> Amounts:
        """Return what is billed for what was not used of the least that is billed."""
        return self.bill.parts.minimum


class PricedBills:
    """Bills by the history of prices and the rules of providers.

    A machine that no price is known of, whose pool has a fixed one, or that was registered in another currency than the
    settings' is billed at the rates it was registered with.
    Contracts have no dates: those of the settings hold for all that is looked at.
    """

    def __init__(self, settings: Settings, prices: PriceRepository) -> None:
        """Bill by the settings and those prices."""
        self._settings = settings
        self._prices = prices
        self._revision = -1
        self._cards: dict[tuple[str, datetime, datetime], RateCard] = {}

    def revision(self) -> int:
        """Return a number that is another one once any price is; from then on that price counts."""
        found = self._prices.revision()
        if found != self._revision:
            self._revision = found
            self._cards.clear()
        return found

    @property
    def is_of_prices(self) -> bool:
        """Say that it is."""
        return True

    def bill(self, life: WorkerLife) -> PricedBill:
        """Return the bill of that life."""
        steps, source = self._steps(life)
        lived = billing.Life(
            length_us=life.metered_until_us,
            market=Market(life.market),
            was_interrupted=life.end_cause is WorkerEnd.INTERRUPTED,
        )
        # By what it was registered with: a pool may be another provider's by now.
        rule = self._settings.rate_card.billing_rule_of(life.pool, life.provider)
        return PricedBill(bill=billing.Bill(lived, steps, rule), source=source)

    def _steps(self, life: WorkerLife) -> tuple[list[RateStep], str | None]:
        registered = [RateStep(from_us=0, rates=life.rates)]
        pool = self._settings.rate_card.pools.get(life.pool)
        is_fixed = pool is not None and pool.rate_per_hour is not None
        is_foreign = life.currency != self._settings.currency
        if life.provider is None or life.instance_type is None or is_fixed or is_foreign:
            return registered, None
        offer = Offer(
            market=Market(life.market),
            provider=life.provider,
            instance_type=life.instance_type,
            region=life.region,
            zone=life.zone,
        )
        # One that a commitment covered when it came stays covered.
        committed = 0 if life.rates.billed_micros == 0 < life.rates.effective_micros else _NOT_COVERED
        card = self._card(life.instance_type, life.started_at, life.stopped_at)
        try:
            steps = card.steps(offer, life.started_at, life.stopped_at, committed_workers=committed)
            source = card.hourly_rates(offer, life.started_at, committed_workers=committed).source
        except PriceUnknownError:
            return registered, None
        return steps, source

    def _card(self, instance_type: str, start: datetime, stop: datetime) -> RateCard:
        """Return the prices of those days."""
        first, last = midnight(start.astimezone(UTC).date()), midnight(stop.astimezone(UTC).date()) + _DAY
        key = instance_type, first, last
        card = self._cards.get(key)
        if card is None:
            if len(self._cards) >= _CARDS_MAX:
                self._cards.clear()
            card = rate_card(self._settings, self._prices, first, last, instance_types=[instance_type])
            self._cards[key] = card
        return card


def _picos(price: Price | None) -> int:
    return 0 if price is None or price.unit_price_picos is None else price.unit_price_picos


def bucket_of(objects_url: str) -> str | None:
    """Return the bucket that objects are in, as bills name it; None where they are in none."""
    url = urlsplit(objects_url)
    return url.netloc or None if url.scheme == "s3" else None
