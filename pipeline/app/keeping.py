"""Keeping: accrues what yesterday's objects cost, where the object store bills for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from pipeline.domain.costs.keeping import ObjectPrices
from storage.keeping import KeepingRepository

EVERY_SECONDS: Final = 3600.0
#: Days that were missed are made up for.
_DAYS_BACK: Final = 3
#: What was written in the last hour of a day may be told a little later.
_MARGIN: Final = timedelta(hours=1)


class Keeper:
    """Accrues the last days that have ended, each once."""

    def __init__(
        self,
        repository: KeepingRepository,
        prices: Callable[[datetime], ObjectPrices],
        *,
        currency: str,
        now: Callable[[], datetime],
        every_seconds: float = 0.0,
    ) -> None:
        """Accrue at `prices` of the time, not sooner than `every_seconds` after the last time."""
        self._repository = repository
        self._prices = prices
        self._currency = currency
        self._now = now
        self._every_seconds = every_seconds
        self._look_at = time.monotonic()

    def run_once(self) -> bool:
        """Accrue what is to be; there is never more at once."""
        if time.monotonic() < self._look_at:
            return False
        last = (self._now() - _MARGIN).date() - timedelta(days=1)
        for days in reversed(range(_DAYS_BACK)):
            day = last - timedelta(days=days)
            prices = self._prices(datetime.combine(day, datetime.min.time(), self._now().tzinfo))
            if not prices.is_free:
                self._repository.accrue(day, prices, currency=self._currency)
        self._look_at = time.monotonic() + self._every_seconds
        return False
