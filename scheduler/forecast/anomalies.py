"""What was unlike what had been forecast: few alarms, each with its size."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from scheduler.forecast.series import Floats, Forecast, Forecaster, Series

#: Of days as forecast, so many stay within the band with every bin of theirs.
_QUIET_SHARE: Final = 0.99
#: Beyond the band by this share of its half width: a band from few days is less sure than it looks.
_MARGIN: Final = 0.25
#: Of the expected mean: smaller differences interest nobody, however sure they are.
_SIZE_MIN: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """A span that held more or less than it would in all but one of a hundred cases."""

    start: datetime
    length: timedelta
    actual: float
    expected: float
    #: Ends of what had been forecast, at 99 %.
    low: float
    high: float

    @property
    def is_above(self) -> bool:
        """Return whether there was more than expected."""
        return self.actual > self.expected


def anomalies(forecaster: Forecaster, series: Series, *, looked_at: int) -> list[Anomaly]:
    """Return what stands out of the last `looked_at` bins, forecast from what was before them, the first bin first.

    The whole comes last, where its sum stands out. Raises `TooLittleHistoryError` where there is too little before them.
    """
    before = Series(start=series.start, step=series.step, values=series.values[:-looked_at])
    forecast = forecaster.forecast(before, looked_at)
    actual = series.values[-looked_at:]
    low, high = _band(forecast)
    size = _SIZE_MIN * max(float(forecast.mean.mean()), 1e-9)
    stands_out = ((actual > high) | (actual < low)) & (np.abs(actual - forecast.median) > size)
    found = [
        Anomaly(
            start=forecast.start + int(index) * series.step,
            length=series.step,
            actual=float(actual[index]),
            expected=float(forecast.median[index]),
            low=float(low[index]),
            high=float(high[index]),
        )
        for index in np.flatnonzero(stands_out)
    ]
    whole = _whole(forecast, actual)
    return found if whole is None else [*found, whole]


def _band(forecast: Forecast) -> tuple[Floats, Floats]:
    """Return bounds that all bins together stay within, as often as one bin stays within its own."""
    middle = forecast.median
    above = np.maximum(forecast.quantiles[0.9] - middle, 1e-12)
    below = np.maximum(middle - forecast.quantiles[0.1], 1e-12)
    up = ((forecast.paths - middle) / above).max(axis=1)
    down = ((middle - forecast.paths) / below).max(axis=1)
    most = (1 + _MARGIN) * float(np.quantile(np.maximum(up, down), _QUIET_SHARE))
    low = np.minimum(forecast.quantiles[0.005], middle - most * below)
    return np.maximum(0.0, low), np.maximum(forecast.quantiles[0.995], middle + most * above)


def _whole(forecast: Forecast, actual: Floats) -> Anomaly | None:
    if bool(np.isnan(actual).any()):
        return None
    totals = forecast.total_quantiles((0.005, 0.5, 0.995))
    margin = _MARGIN * (totals[0.995] - totals[0.005]) / 2
    low, high = max(0.0, totals[0.005] - margin), totals[0.995] + margin
    total = float(actual.sum())
    if low <= total <= high or abs(total - totals[0.5]) <= _SIZE_MIN * totals[0.5]:
        return None
    return Anomaly(
        start=forecast.start,
        length=len(actual) * forecast.step,
        actual=total,
        expected=totals[0.5],
        low=low,
        high=high,
    )
