"""What is forecast of arrivals, from those that have come: total tokens by model, shared among tiers as they came."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Final

import numpy as np

from pipeline.domain.tiers import DEFAULT_WINDOWS, Tier
from pipeline.domain.windows import parse_window
from pipeline.ports.cycle import WorkSize
from pipeline.ports.fleet import ExpectedWork
from scheduler.forecast.profiles import LevelProfile
from scheduler.forecast.series import Floats, Forecaster, Series, TooLittleHistoryError
from scheduler.simulate.arrivals import Arrival
from scheduler.simulate.state import MICROSECONDS

#: Any Monday, midnight: simulations have no date.
_START: Final = datetime(2026, 1, 5, tzinfo=UTC)
_BIN_SECONDS: Final = 3600
_QUANTILES: Final = (0.5, 0.9)
_AMOUNTS: Final = 3


class Expectations:
    """Forecasts at each full hour. They hang on arrivals alone, and so one object may serve many runs."""

    def __init__(self, arrivals: Sequence[Arrival], *, hours: int = 12, method: Forecaster | None = None) -> None:
        """Look ahead for so many hours."""
        self._arrivals = arrivals
        self._hours = hours
        self._method = method or LevelProfile()
        self._made: dict[int, tuple[ExpectedWork, ...]] = {}

    def at(self, seconds: float) -> tuple[ExpectedWork, ...]:
        """Return what is expected after that moment, by what had come before the hour began."""
        hour = int(seconds // _BIN_SECONDS)
        if hour not in self._made:
            self._made[hour] = self._at_hour(hour)
        now_us = round(seconds * MICROSECONDS)
        return tuple(each.rest(now_us) for each in self._made[hour] if each.to_us > now_us)

    @cached_property
    def _bins(self) -> dict[tuple[str, Tier], Floats]:
        """Return rows, input and output tokens by hour, of each model and tier."""
        last = max((arrival.at_seconds for arrival in self._arrivals), default=0.0)
        shape = (int(last // _BIN_SECONDS) + 1, _AMOUNTS)
        found: dict[tuple[str, Tier], Floats] = defaultdict(lambda: np.zeros(shape))
        for arrival in self._arrivals:
            size = arrival.estimated
            found[arrival.model, arrival.tier][int(arrival.at_seconds // _BIN_SECONDS)] += (
                size.rows,
                size.input_tokens,
                size.output_tokens,
            )
        return dict(found)

    @cached_property
    def _windows(self) -> dict[Tier, float]:
        found = {tier: parse_window(window).total_seconds() for tier, window in DEFAULT_WINDOWS.items()}
        for tier in Tier:
            of_tier = [each.window_seconds for each in self._arrivals if each.tier is tier]
            found[tier] = min(of_tier, default=found[tier])
        return found

    def _at_hour(self, hour: int) -> tuple[ExpectedWork, ...]:
        made: list[ExpectedWork] = []
        for model in sorted({model for model, _ in self._bins}):
            history = {tier: _history(bins, hour) for (each, tier), bins in self._bins.items() if each == model}
            made += self._of_model(model, history, hour)
        return tuple(made)

    def _of_model(self, model: str, history: dict[Tier, Floats], hour: int) -> list[ExpectedWork]:
        tokens = sum((bins[:, 1:].sum(axis=1) for bins in history.values()), np.zeros(hour))
        whole = float(tokens.sum())
        if not whole:
            return []
        try:
            ahead = self._method.forecast(
                Series(start=_START, step=timedelta(seconds=_BIN_SECONDS), values=tokens), self._hours
            )
        except TooLittleHistoryError:
            return []
        return [
            ExpectedWork(
                model=model,
                tier=tier,
                from_us=(hour + step) * _BIN_SECONDS * MICROSECONDS,
                to_us=(hour + step + 1) * _BIN_SECONDS * MICROSECONDS,
                window_seconds=self._windows[tier],
                sizes={
                    quantile: _size(bins.sum(axis=0) * (float(ahead.quantiles[quantile][step]) / whole))
                    for quantile in _QUANTILES
                },
            )
            for tier, bins in history.items()
            for step in range(self._hours)
            if bins.any()
        ]


def _history(bins: Floats, hours: int) -> Floats:
    """Return the first `hours` bins; hours after the last arrival are known to have had none."""
    if hours <= len(bins):
        return bins[:hours]
    return np.concatenate([bins, np.zeros((hours - len(bins), _AMOUNTS))])


def _size(amounts: Floats) -> WorkSize:
    rows, inputs, outputs = (max(0.0, float(amount)) for amount in amounts)
    assert math.isfinite(rows + inputs + outputs), "a forecast is finite"
    return WorkSize(rows=rows, input_tokens=inputs, output_tokens=outputs)
