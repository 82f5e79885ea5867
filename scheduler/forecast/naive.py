"""What forecasts are measured against: the last value, and the same time of the day before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from scheduler.forecast.features import held, known
from scheduler.forecast.residuals import LookBack, forecast_of
from scheduler.forecast.series import Floats, Forecast, Series

_ORIGINS_MAX: Final = 240


@dataclass(frozen=True, slots=True)
class LastValue:
    """All that comes is as the last known bin."""

    name: str = "last_value"

    def forecast(self, series: Series, steps: int) -> Forecast:
        """Return the last value for each of the next `steps` bins; raises `TooLittleHistoryError`."""
        return _shifted(self.name, series.checked(), steps, rhythm=1)


@dataclass(frozen=True, slots=True)
class SeasonalNaive:
    """All that comes is as it was a day before; with less than a day, as the last known bin."""

    name: str = "seasonal_naive"

    def forecast(self, series: Series, steps: int) -> Forecast:
        """Return the day before's values for the next `steps` bins; raises `TooLittleHistoryError`."""
        rhythm = series.bins_per_day
        return _shifted(self.name, series.checked(), steps, rhythm=rhythm if len(series.values) >= rhythm else 1)


def _shifted(name: str, series: Series, steps: int, *, rhythm: int) -> Forecast:
    last = len(series.values) - 1
    first = min(rhythm, last)
    past = np.unique(np.linspace(first, last - 1, _ORIGINS_MAX).astype(int)) if first < last else np.array([], int)
    origins, horizons = np.append(past, last), np.arange(1, steps + 1)
    values = held(series.values)
    ahead = values[np.maximum(0, origins[:, None] + (horizons[None, :] - 1) % rhythm + 1 - rhythm)]
    at = known(series, origins, horizons[:1])
    look = LookBack(
        origins=past,
        ahead=ahead[-1],
        past=ahead[:-1],
        actual=came(series.values, past, horizons),
        mean=at.mean,
        roughness=at.roughness,
    )
    return forecast_of(name, series, look, is_point=True)


def came(values: Floats, origins: np.ndarray, horizons: np.ndarray) -> Floats:
    """Return what came after each origin; NaN where it has not yet."""
    coming = origins[:, None] + horizons[None, :]
    last = len(values) - 1
    return np.where(coming <= last, values[np.minimum(coming, last)], np.nan)
