"""Volumes: accrues each day of the disks that the settings name, at the prices that held."""

from __future__ import annotations

import logging
from datetime import date, datetime, timedelta
from typing import Final

from pipeline.app.pricing import rate_card
from pipeline.config import Settings
from pipeline.domain.costs.adjusting import midnight
from pipeline.domain.costs.rate_card import PriceBook
from pipeline.domain.costs.transactions import Transaction
from pipeline.domain.costs.volumes import StoragePrice, Volume, volume_accrual, volume_key
from storage.keeping import KeepingRepository
from storage.prices import PriceRepository

_LOG = logging.getLogger(__name__)

_DAY: Final = timedelta(days=1)


class Volumes:
    """The disks of an installation. A day that was posted stays, whatever settings and prices become."""

    def __init__(self, settings: Settings, repository: KeepingRepository, prices: PriceRepository) -> None:
        """Accrue what the settings name."""
        self._settings = settings
        self._repository = repository
        self._prices = prices

    def accrue(self, day: date) -> int:
        """Post what the day cost; return how many transactions that took. Repeating it changes nothing."""
        kept = {volume_key(each.name, day): each for each in self._settings.rate_card.kept_volumes() if each.has(day)}
        if not kept:
            return 0
        posted = self._repository.posted(kept)
        found = [self._accrual(volume, day) for key, volume in kept.items() if key not in posted]
        return self._repository.post(each for each in found if each is not None)

    def _accrual(self, volume: Volume, day: date) -> Transaction | None:
        since, until = midnight(volume.since), midnight(day) + _DAY
        book = rate_card(self._settings, self._prices, since, until, instance_types=[volume.kind]).book
        currency = self._settings.currency
        prices = _history(book, volume, since, until, currency)
        at_day = book.price(volume.item, midnight(day), currency)
        if at_day is None or not prices:
            _LOG.warning("volume_unpriced", extra={"volume": volume.name, "kind": volume.kind, "day": day.isoformat()})
            return None
        source = f"{at_day.source} {at_day.as_of:%Y-%m-%dT%H:%M:%SZ} {at_day.origin}"
        return volume_accrual(volume, day, prices, currency=currency, source=source)


def _history(book: PriceBook, volume: Volume, since: datetime, until: datetime, currency: str) -> list[StoragePrice]:
    """Return the prices from a moment on, in order; of the time before the first, the first."""
    moments = [since, *book.changes(volume.item, since, until, currency)]
    held = [(at, book.price(volume.item, at, currency)) for at in moments]
    return [
        StoragePrice(effective_at=at, unit_price_picos=price.unit_price_picos)
        for at, price in held
        if price is not None and price.unit_price_picos is not None
    ]
