"""What was known at each moment of a series' past: levels, day profiles, and nothing of what came after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np

from scheduler.forecast.series import HOUR, Floats, Series

#: A level is the mean of the last so long, or of the last bin where bins are longer.
_LEVEL_SPANS: Final = (timedelta(0), HOUR / 2, HOUR, 3 * HOUR)
#: Levels are medians, too, over as many bins: one bin that is out of the ordinary is no level.
_MEDIAN_BINS: Final = (3, 6)
#: Neighbours within this time say of a moment of the day what it says itself.
_NEIGHBOURS: Final = HOUR / 2
#: How much a day counts beside the one after it.
_FORGETTING: Final = (0.7, 1.0)
#: Of the usual roughness: what the calmest day is taken to have beside its own.
_CALM: Final = 0.25
_WEEK_DAYS: Final = 7
#: With fewer, a weekday would be told from one other of its name, and nothing would tell whether that helps.
_WEEKS_MIN: Final = 3


@dataclass(frozen=True, slots=True)
class Known:
    """What was known at some origins: one row an origin, one column a horizon."""

    #: Mean of the last day, by origin.
    mean: Floats
    #: How much bins differed from those before them in the last day, as a share of its mean, by origin.
    roughness: Floats
    #: Ways to say what the level is: each by origin.
    levels: Sequence[Floats]
    #: Ways to say what the time of day does: each by origin and horizon. Empty with less than a day.
    profiles: Sequence[Floats]
    #: The same over the time that a level was taken of: by profile and level, each by origin.
    profiles_now: Sequence[Sequence[Floats]]


def known(series: Series, origins: np.ndarray, horizons: np.ndarray) -> Known:
    """Return what was known at the end of each of the bins `origins` of the bins so much later."""
    values, day = series.values, series.bins_per_day
    spans = sorted({max(1, span // series.step) for span in _LEVEL_SPANS})
    levels = [*(_trailing_mean(values, bins) for bins in spans), *(_trailing_median(values, b) for b in _MEDIAN_BINS)]
    level_bins = [*spans, *_MEDIAN_BINS]
    width = min(_NEIGHBOURS // series.step, day // 8)
    made = _profiles(values, day, width)
    mean = _trailing_mean(values, day)[origins]
    columns = []
    nows = []
    for rhythm, profile in made:
        ahead = origins[:, None] + (horizons[None, :] - 1) % rhythm + 1 - rhythm
        # Neighbours are not looked at where they had not come yet.
        then = profile[np.clip(np.minimum(ahead, origins[:, None] - width), 0, None)]
        columns.append(np.where(np.isnan(then), mean[:, None], then))
        before = np.concatenate([np.full(rhythm, np.nan), profile])[: len(values)]
        nows.append([_trailing_mean(before, bins)[origins] for bins in level_bins])
    return Known(
        mean=mean,
        roughness=_roughness(values, day, origins, mean),
        levels=[level[origins] for level in levels],
        profiles=columns,
        profiles_now=nows,
    )


def _roughness(values: Floats, day: int, origins: np.ndarray, mean: Floats) -> Floats:
    steps = _trailing_mean(np.abs(np.diff(values, prepend=values[:1])), day)[origins]
    rough = np.divide(steps, mean, out=np.zeros_like(mean), where=mean > 0)
    # A day in which nothing moved is no promise that nothing will.
    return np.asarray(rough + (_CALM * float(np.median(rough)) or 1.0))


def _profiles(values: Floats, day: int, width: int) -> list[tuple[int, Floats]]:
    """Return for each bin what its time of day held up to it, in several ways, with their rhythms."""
    if len(values) < day + 1:
        return []
    smooth = _smoothed(values, width)
    made = [(day, _recurring_mean(smooth, day, keep)) for keep in _FORGETTING]
    week = _WEEK_DAYS * day
    if len(values) >= _WEEKS_MIN * week:
        made.append((week, _recurring_mean(smooth, week, 1.0)))
    return made


def _smoothed(values: Floats, width: int) -> Floats:
    kernel = np.ones(2 * width + 1)
    sums = np.convolve(np.nan_to_num(values), kernel, "same")
    counts = np.convolve(~np.isnan(values), kernel, "same")
    return _divided(sums, counts)


def _recurring_mean(values: Floats, rhythm: int, keep: float) -> Floats:
    rows = -(-len(values) // rhythm)
    padded = np.full(rows * rhythm, np.nan)
    padded[: len(values)] = values
    total, weight = np.zeros(rhythm), np.zeros(rhythm)
    means = np.empty((rows, rhythm))
    for number, row in enumerate(padded.reshape(rows, rhythm)):
        total = keep * total + np.nan_to_num(row)
        weight = keep * weight + ~np.isnan(row)
        means[number] = _divided(total, weight)
    return means.reshape(-1)[: len(values)]


def _trailing_mean(values: Floats, bins: int) -> Floats:
    sums = np.concatenate([[0.0], np.cumsum(np.nan_to_num(values))])
    counts = np.concatenate([[0], np.cumsum(~np.isnan(values))])
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(0, stop - bins)
    return held(_divided(sums[stop] - sums[start], counts[stop] - counts[start]))


def _trailing_median(values: Floats, bins: int) -> Floats:
    filled = held(values)
    padded = np.concatenate([np.full(bins - 1, filled[0]), filled])
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, bins), axis=1))


def held(values: Floats) -> Floats:
    """Return the values with the last known one in the place of what is unknown."""
    index = np.maximum.accumulate(np.where(np.isnan(values), 0, np.arange(len(values))))
    return np.nan_to_num(values[index])


def _divided(sums: Floats, counts: Floats) -> Floats:
    # Sums over a running total leave a trace below zero where all they sum is 0.
    return np.where(counts > 0, np.maximum(sums, 0.0) / np.maximum(counts, 1e-12), np.nan)
