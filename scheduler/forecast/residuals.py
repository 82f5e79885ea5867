"""How far off a method was on a series' own past, and so how far off it may be now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from scheduler.forecast.series import QUANTILES, Floats, Forecast, Series

#: Fewer looks back than this tell little of how far off a method may be.
ORIGINS_MIN: Final = 12
#: Errors are shares of what was expected and so much of the day's mean: proportional by day, bounded in quiet nights.
_OF_MEAN: Final = 0.25
#: Past this little, nothing says how much wider to be.
_SPANS_MIN: Final = 0.5
#: Fixed, so that the same history gives the same forecast.
_SEED: Final = 20240229


@dataclass(frozen=True, slots=True, kw_only=True)
class LookBack:
    """What a method expects now, and what it would have expected at moments of the past."""

    #: Bins at whose ends it looked ahead, in order.
    origins: np.ndarray
    #: By horizon.
    ahead: Floats
    #: By origin and horizon; as much as was known then decides.
    past: Floats
    #: What came; NaN where it has not, or is unknown.
    actual: Floats
    #: Mean of the day before, and how rough it was: of each origin of the past, and of now.
    mean: Floats
    roughness: Floats


def forecast_of(method: str, series: Series, look: LookBack, *, is_point: bool = False) -> Forecast:
    """Return a forecast whose futures are off as the method was off before.

    `is_point` keeps what the method expects as its figure, biased as it may have been.
    """
    # A method errs more in days that are rough, and so errors count by the roughness of theirs.
    scale = (look.past + _OF_MEAN * look.mean[:-1, None]) * look.roughness[:-1, None]
    errors = (look.actual - look.past) / np.where(scale > 0, scale, np.nan)
    if len(look.origins) and look.origins[-1] - look.origins[0] < series.bins_per_day:
        # Moments of part of a day tell of the time that it was, not of what the method is given to.
        errors = errors - _medians(errors)
    steps = len(look.ahead)
    longest = int(np.count_nonzero(np.count_nonzero(~np.isnan(errors), axis=0) >= ORIGINS_MIN))
    if longest == 0:
        errors, longest = _spread(series.values) / look.roughness[-1], 1
    whole = _completed(errors[:, :longest])[:, _columns(steps, longest, series.bins_per_day)]
    first = int(look.origins[0]) if len(look.origins) else 0
    whole = _widened(whole, seen_bins=len(series.values) - first)
    scale_now = (look.ahead + _OF_MEAN * look.mean[-1]) * look.roughness[-1]
    paths = np.maximum(0.0, look.ahead + whole * scale_now)
    found = np.quantile(paths, QUANTILES, axis=0)
    return Forecast(
        method=method,
        start=series.stop,
        step=series.step,
        point=look.ahead if is_point else found[QUANTILES.index(0.5)],
        mean=paths.mean(axis=0),
        quantiles=dict(zip(QUANTILES, found, strict=True)),
        paths=paths,
    )


def _widened(errors: Floats, *, seen_bins: int) -> Floats:
    """Return the errors further from their middle the fewer spans as long as their horizon there were to learn from.

    Of n spans the mean is off by a share of 1/n of the variance, and the variance itself is not known better.
    """
    middle = np.median(errors, axis=0)
    horizons = np.arange(1, errors.shape[1] + 1)
    spans = np.maximum(_SPANS_MIN, seen_bins / horizons - 1)
    return np.asarray(middle + (errors - middle) * np.sqrt(1 + 2 / spans))


def _spread(values: Floats) -> Floats:
    """Return how far known values are from their mean, as a column of errors: all that a short history tells."""
    seen = values[~np.isnan(values)]
    mean = float(seen.mean())
    return np.asarray((seen - mean) / (mean * (1 + _OF_MEAN) or 1.0))[:, None]


def _completed(errors: Floats) -> Floats:
    """Return the errors with those of another origin, at the same horizons, where they are unknown."""
    # Who lends is drawn once for each origin, so that what is borrowed hangs together.
    drawn = np.random.default_rng(_SEED)
    known = ~np.isnan(errors)
    lenders = np.flatnonzero(known.mean(axis=1) >= np.quantile(known.mean(axis=1), 0.75))
    filled = np.where(known, errors, errors[drawn.choice(lenders, size=len(errors))])
    return np.where(np.isnan(filled), _medians(errors), filled)


def _medians(errors: Floats) -> Floats:
    """Return the middle of what is known of each column; 0 where nothing is."""
    return np.array([0.0 if np.isnan(column).all() else np.nanmedian(column) for column in errors.T])


def _columns(steps: int, longest: int, day: int) -> np.ndarray:
    """Return which column of the errors each horizon takes: its own, or one of the last day that was looked at."""
    horizons = np.arange(steps)
    period = min(day, longest)
    return np.where(horizons < longest, horizons, longest - period + (horizons - longest) % period)
