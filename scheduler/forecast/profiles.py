"""The day's profile and a level that decays to it: how much of each, by horizon, is what would have been best so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from scheduler.forecast.dropouts import without_dropouts
from scheduler.forecast.features import Known, known
from scheduler.forecast.naive import came
from scheduler.forecast.residuals import ORIGINS_MIN, LookBack, forecast_of
from scheduler.forecast.series import Floats, Forecast, Series

#: How much of what the level is beside what it should be is carried on; how much of the profile is believed.
_CARRIED: Final = np.linspace(0.0, 1.0, 6)
_BELIEVED: Final = np.linspace(0.0, 1.0, 6)
#: Moments of the past that are forecast from, and horizons at which that is looked at.
_ORIGINS_MAX: Final = 480
_KNOTS: Final = 12
#: So many of the best are averaged: which one is best is partly luck.
_BLENDED: Final = 8
#: Of the mean: what a ratio of levels is taken above, so that quiet nights tell nothing of days.
_FLOOR: Final = 0.05


@dataclass(frozen=True, slots=True)
class LevelProfile:
    """Forecasts a level that decays, by horizon, to the profile of the day or the week."""

    name: str = "level_profile"

    def forecast(self, series: Series, steps: int) -> Forecast:
        """Return what is expected of the next `steps` bins; raises `TooLittleHistoryError`."""
        series.checked()
        values, day = series.values, series.bins_per_day
        last = len(values) - 1
        first = _first_origin(len(values), day)
        past = np.unique(np.linspace(first, last - 1, _ORIGINS_MAX).astype(int)) if first < last else np.array([], int)
        horizons = np.arange(1, steps + 1)
        at = known(replace(series, values=without_dropouts(series)), np.append(past, last), horizons)
        actual = came(values, past, horizons)
        floor = _FLOOR * float(np.nanmean(values)) or 1.0
        knots = _knots(steps, last - first)
        weights = _weights(at, actual, knots, floor)
        ahead = np.zeros((len(past) + 1, steps))
        for blend, weight in weights.items():
            by_horizon = np.interp(horizons, knots + 1, weight)
            columns = np.flatnonzero(by_horizon)
            ahead[:, columns] += by_horizon[columns] * _ahead(blend, at, columns, floor)
        return forecast_of(
            self.name,
            series,
            LookBack(
                origins=past, ahead=ahead[-1], past=ahead[:-1], actual=actual, mean=at.mean, roughness=at.roughness
            ),
        )


@dataclass(frozen=True, slots=True)
class _Blend:
    is_ratio: bool
    profile: int | None
    level: int
    believed: float
    carried: float


def _first_origin(bins: int, day: int) -> int:
    if bins >= 4 * day:
        return 2 * day
    return day if bins >= day + 2 * ORIGINS_MIN else min(2, bins - 1)


def _knots(steps: int, longest: int) -> np.ndarray:
    """Return the columns at which blends are chosen: dense where the level still counts."""
    # Beyond what the past can tell of, what held at the longest horizon holds.
    most = max(1, min(steps, longest - ORIGINS_MIN))
    return np.unique(np.geomspace(1, most, _KNOTS).round().astype(int)) - 1


def _blends(at: Known) -> Iterator[_Blend]:
    for level in range(len(at.levels)):
        for carried in _CARRIED:
            yield _Blend(False, None, level, 0.0, carried)
    for profile in range(len(at.profiles)):
        for level in range(len(at.levels)):
            for believed in _BELIEVED[1:]:
                for carried in _CARRIED:
                    yield _Blend(False, profile, level, believed, carried)
                    yield _Blend(True, profile, level, believed, carried)


def _ahead(blend: _Blend, at: Known, columns: np.ndarray, floor: float) -> Floats:
    mean = at.mean[:, None]
    level = at.levels[blend.level][:, None]
    now = base = mean
    if blend.profile is not None:
        seen = at.profiles_now[blend.profile][blend.level][:, None]
        then = at.profiles[blend.profile][:, columns]
        now = mean + blend.believed * (seen - mean)
        base = mean + blend.believed * (then - mean)
    if blend.is_ratio:
        return np.asarray(base * ((level + floor) / (now + floor)) ** blend.carried)
    return np.asarray(np.broadcast_to(np.maximum(0.0, base + blend.carried * (level - now)), (len(mean), len(columns))))


def _weights(at: Known, actual: Floats, knots: np.ndarray, floor: float) -> dict[_Blend, Floats]:
    """Return how much each blend counts at each knot, by how it would have done at the origins of the past."""
    blends = list(_blends(at))
    wanted = actual[:, knots]
    if len(wanted) < ORIGINS_MIN:
        return {_Blend(False, None, 0, 0.0, 0.5): np.ones(len(knots))}
    # By the root, so that a few moments that nobody could foresee do not decide; by the day's mean, so that each counts.
    is_known = ~np.isnan(wanted)
    share = np.where(is_known, 1 / (at.mean[:-1, None] + floor), 0.0)
    filled = np.where(is_known, wanted, 0.0)
    errors = np.array(
        [np.sqrt(np.abs(_ahead(blend, at, knots, floor)[:-1] - filled) * share).sum(axis=0) for blend in blends]
    )
    weights = np.zeros((len(blends), len(knots)))
    for column in range(len(knots)):
        weights[np.argsort(errors[:, column], kind="stable")[:_BLENDED], column] = 1 / _BLENDED
    return {blends[row]: weights[row] for row in np.flatnonzero(weights.any(axis=1))}
