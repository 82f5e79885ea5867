"""What is to arrive in the next hours, as the fleet's policy is told of it: forecasts, in rows and tokens by tier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from pipeline.app.forecasting import series_of
from pipeline.domain.tiers import Tier
from pipeline.domain.windows import parse_window
from pipeline.ports.cycle import WorkSize
from pipeline.ports.demand import Breakdown, Composition
from pipeline.ports.fleet import ExpectedWork
from scheduler.forecast.profiles import LevelProfile
from scheduler.forecast.series import HOUR, Series, TooLittleHistoryError
from storage.demand import DemandRepository

#: How far ahead: further than any start takes.
_HOURS_AHEAD: Final = 3
_HISTORY: Final = timedelta(days=28)
#: What a model's tokens are made of is as it was in this time.
_RECENT: Final = timedelta(days=7)
_QUANTILES: Final = (0.5, 0.9)
#: A day at least: before, what came is told by nothing but its own last hours.
_HOURS_MIN: Final = 24


class Expectations:
    """What is expected to arrive, forecast anew once an hour."""

    def __init__(self, demand: DemandRepository, window_of: Callable[[Tier], str]) -> None:
        """Read from `demand`; rows are due `window_of` their tier after they came."""
        self._demand = demand
        self._window_of = window_of
        self._hour: datetime | None = None
        self._known: tuple[ExpectedWork, ...] = ()

    def at(self, now: datetime) -> tuple[ExpectedWork, ...]:
        """Return what is expected from the hour of `now` on; nothing while there is no day of history."""
        hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        if hour != self._hour:
            self._known = self._forecast(hour)
            self._hour = hour
        now_us = round(now.timestamp() * 1e6)
        return tuple(each.rest(now_us) for each in self._known if each.to_us > now_us)

    def _forecast(self, hour: datetime) -> tuple[ExpectedWork, ...]:
        since = hour - _HISTORY
        arrivals = self._demand.arrivals(since, hour, by=Breakdown.MODEL)
        compositions = self._demand.compositions(hour - _RECENT, hour)
        found: list[ExpectedWork] = []
        for model in sorted({each.model for each in compositions}):
            series = series_of([each for each in arrivals if each.group == model], hour)
            if len(series.values) >= _HOURS_MIN:
                found += self._of_model(series, hour, [each for each in compositions if each.model == model])
        return tuple(found)

    def _of_model(self, series: Series, hour: datetime, parts: Sequence[Composition]) -> list[ExpectedWork]:
        try:
            forecast = LevelProfile().forecast(series, _HOURS_AHEAD)
        except TooLittleHistoryError:
            return []
        whole = sum(part.input_tokens + part.output_tokens for part in parts)
        found = []
        for step in range(_HOURS_AHEAD if whole else 0):
            begins = hour + step * HOUR
            for part in parts:
                # So many tokens of the model, split as they lately were.
                scales = {quantile: float(forecast.quantiles[quantile][step]) / whole for quantile in _QUANTILES}
                found.append(
                    ExpectedWork(
                        model=part.model,
                        tier=part.tier,
                        from_us=round(begins.timestamp() * 1e6),
                        to_us=round((begins + HOUR).timestamp() * 1e6),
                        window_seconds=parse_window(self._window_of(part.tier)).total_seconds(),
                        sizes={
                            quantile: WorkSize(
                                rows=part.rows, input_tokens=part.input_tokens, output_tokens=part.output_tokens
                            ).times(scale)
                            for quantile, scale in scales.items()
                        },
                    )
                )
        return found
