"""A regular series and a forecast of it: what forecasters take and what they give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.errors import NightrateError

Floats = NDArray[np.float64]

DAY: Final = timedelta(days=1)
HOUR: Final = timedelta(hours=1)
#: Told of each bin; 0.1 and 0.9 bound the 80 % interval, 0.005 and 0.995 the 99 % one.
QUANTILES: Final = (0.005, 0.1, 0.25, 0.5, 0.75, 0.9, 0.995)
#: Fewer observed bins than this tell nothing, however long they are.
_BINS_MIN: Final = 3


class TooLittleHistoryError(NightrateError):
    """There is less than an hour to go by: nothing can be said of what comes."""

    code = "too_little_history"


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Amounts in bins of equal length, one after another; nothing known of a bin is NaN."""

    start: datetime
    step: timedelta
    values: Floats

    def __post_init__(self) -> None:
        """Check what every forecaster relies on."""
        if self.start.tzinfo is None:
            raise ValueError("the start of a series names its time zone")
        if self.step <= timedelta(0) or DAY % self.step:
            raise ValueError(f"bins of {self.step} do not fill a day evenly")
        if self.values.ndim != 1 or bool(np.any(self.values < 0)) or bool(np.any(np.isinf(self.values))):
            raise ValueError("a series is one row of finite amounts of 0 or more, or NaN where a bin is unknown")

    @property
    def bins_per_day(self) -> int:
        """Return how many bins a day has. Days are days of UTC: 24 hours each, whatever clocks do."""
        return DAY // self.step

    @property
    def stop(self) -> datetime:
        """Return the end of the last bin: where a forecast begins."""
        return self.start.astimezone(UTC) + len(self.values) * self.step

    @property
    def observed(self) -> int:
        """Return how many bins are known."""
        return int(np.count_nonzero(~np.isnan(self.values)))

    def checked(self) -> Series:
        """Return the series, or raise `TooLittleHistoryError` where it tells nothing."""
        needed = max(_BINS_MIN, HOUR // self.step)
        if self.observed < needed:
            known = _words(self.observed * self.step)
            raise TooLittleHistoryError(
                f"there are {known} of history; a forecast needs {_words(needed * self.step)} at least",
                hint="history grows by itself while work is submitted",
            )
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What is expected of each coming bin, in the unit of the series."""

    method: str
    start: datetime
    step: timedelta
    #: The method's own figure; where it aims at none other, the median, which has the least absolute error.
    point: Floats
    #: The expectation: sums of it are expectations of sums.
    mean: Floats
    #: Amounts by the share of outcomes that stay at or below them; the same number of bins each.
    quantiles: Mapping[float, Floats]
    #: Possible futures, one a row: how bins vary together, so that sums over bins have quantiles too.
    paths: Floats

    @property
    def median(self) -> Floats:
        """Return the amount that half of the outcomes stay below."""
        return self.quantiles[0.5]

    def total_quantiles(self, shares: tuple[float, ...], bins: slice = slice(None)) -> dict[float, float]:
        """Return quantiles of the sum over bins; the sum of quantiles would be too wide."""
        totals = self.paths[:, bins].sum(axis=1)
        return {share: float(np.quantile(totals, share)) for share in shares}


class Forecaster(Protocol):
    """Looks ahead by a series' own history alone."""

    @property
    def name(self) -> str:
        """Return the method's name."""

    def forecast(self, series: Series, steps: int) -> Forecast:
        """Return what is expected of the next `steps` bins; raises `TooLittleHistoryError`."""


def _words(span: timedelta) -> str:
    minutes = round(span.total_seconds() / 60)
    return f"{minutes} minutes" if span < 2 * HOUR else f"{span.total_seconds() / 3600:.0f} hours"
