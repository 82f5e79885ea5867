"""Keeping: accrues what yesterday's objects cost, where the object store bills for them, and what else goes by the day."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from typing import Final

from pipeline.domain.costs.keeping import ObjectPrices
from storage.keeping import KeepingRepository

EVERY_SECONDS: Final = 3600.0
#: Days that were missed are made up for.
_DAYS_BACK: Final = 3
#: Downloads are told of singly until they are long posted.
_EGRESS_KEPT: Final = timedelta(days=30)
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
        also: Sequence[Callable[[date], object]] = (),
        every_seconds: float = 0.0,
    ) -> None:
        """Accrue at `prices` of the time, and `also` days of other things, not sooner than `every_seconds` later."""
        self._repository = repository
        self._prices = prices
        self._currency = currency
        self._now = now
        self._also = also
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
            for accrue in self._also:
                accrue(day)
        self._repository.forget_egress(self._now() - _EGRESS_KEPT)
        self._look_at = time.monotonic() + self._every_seconds
        return False
