"""statsforecast's Theta model behind the same interface; installed by the extra `forecast`, imported when it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.domain.errors import UsageError
from scheduler.forecast.features import held
from scheduler.forecast.series import QUANTILES, Floats, Forecast, Series

#: Two-sided intervals by which quantiles are asked for, in percent.
_LEVELS: Final = (50, 80, 99)
_PATHS: Final = 240
_SEED: Final = 20240229


@dataclass(frozen=True, slots=True)
class DynamicTheta:
    """The dynamic optimised Theta model (Fiorucci et al., 2016), seasonal by the day, with its own intervals."""

    name: str = "dynamic_optimized_theta"

    def forecast(self, series: Series, steps: int) -> Forecast:
        """Return what is expected of the next `steps` bins.

        Raises `TooLittleHistoryError`, and `UsageError` where statsforecast is not installed.
        """
        series.checked()
        try:
            from statsforecast.models import DynamicOptimizedTheta
        except ImportError as error:
            raise UsageError(
                "the method dynamic_optimized_theta needs statsforecast", hint="pip install 'nightrate[forecast]'"
            ) from error
        day = series.bins_per_day
        season = day if len(series.values) >= 2 * day else 1
        # Its seasonal test divides by values; none of them is quite nothing.
        values = held(series.values) + 1e-6 * (float(np.nanmean(series.values)) or 1.0)
        found = DynamicOptimizedTheta(season_length=season).forecast(y=values, h=steps, level=list(_LEVELS))
        return _forecast(self.name, series, {name: np.maximum(0.0, np.asarray(each)) for name, each in found.items()})


def _forecast(name: str, series: Series, found: dict[str, Floats]) -> Forecast:
    quantiles = {share: found[_column(share)] for share in QUANTILES}
    shares, amounts = np.array(QUANTILES), np.array(list(quantiles.values()))
    # Each future keeps its place among its like: the widest that sums can be.
    places = np.random.default_rng(_SEED).uniform(shares[0], shares[-1], _PATHS)
    paths = np.array([[np.interp(place, shares, column) for column in amounts.T] for place in places])
    mean = found["mean"]
    return Forecast(
        method=name, start=series.stop, step=series.step, point=mean, mean=mean, quantiles=quantiles, paths=paths
    )


def _column(share: float) -> str:
    if share == 0.5:  # noqa: PLR2004 -- the middle
        return "mean"
    side, percent = ("lo", 1 - 2 * share) if share < 0.5 else ("hi", 2 * share - 1)  # noqa: PLR2004 -- as above
    return f"{side}-{round(percent * 100)}"
