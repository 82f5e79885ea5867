"""Bins that hold nothing because something broke: they happened, but tell nothing of the level after them."""

from __future__ import annotations

from typing import Final

import numpy as np

from scheduler.forecast.series import HOUR, Floats, Series

#: What is around a bin: so long before it, and as long after it where that is past.
_AROUND: Final = 3 * HOUR
#: A stop that lasts longer is one that was wanted, and so is one that comes more often.
_SPAN_MAX: Final = HOUR
_SHARE_MAX: Final = 0.05


def without_dropouts(series: Series) -> Floats:
    """Return the values with NaN for each short and rare run of nothing in the midst of plenty."""
    values = series.values
    width = max(1, _AROUND // series.step)
    padded = np.pad(values, width, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * width + 1)
    is_busy = np.count_nonzero(windows > 0, axis=1) > np.count_nonzero(windows == 0, axis=1)
    is_nothing = (values == 0) & is_busy
    runs = _run_lengths(is_nothing)
    is_dropout = is_nothing & (runs <= _SPAN_MAX // series.step)
    if is_nothing.sum() > _SHARE_MAX * is_busy.sum():
        return values
    return np.where(is_dropout, np.nan, values)


def _run_lengths(flags: np.ndarray) -> np.ndarray:
    """Return for each bin how long the run of equal flags is that it is in."""
    edges = np.flatnonzero(np.diff(flags, prepend=not flags[0]))
    lengths = np.diff(edges, append=len(flags))
    return np.repeat(lengths, lengths)
