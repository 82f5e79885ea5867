"""Looking ahead: tokens, cost and workers of the hours to come, the month's end, and what was unlike its forecast."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from pipeline.app.fleet_forecast import PoolForecast, workers_wanted
from pipeline.ports.access import Scope
from pipeline.ports.demand import Breakdown, HourlyAmount
from scheduler.forecast.anomalies import Anomaly, anomalies
from scheduler.forecast.profiles import LevelProfile
from scheduler.forecast.series import HOUR, Forecast, Forecaster, Series, TooLittleHistoryError
from storage.demand import DemandRepository

#: How far back is looked: eight weeks, so that weekdays can be told apart.
HISTORY: Final = timedelta(days=56)
#: Speeds and errors of estimates are of as late as this.
_RECENT: Final = timedelta(days=7)
_EXPLAINED: Final = timedelta(days=8)
HOURS_MAX: Final = 24 * 7
_DAY_HOURS: Final = 24
#: Groups that are forecast by themselves, the largest first; what is left is forecast together.
_GROUPS_MAX: Final = 10
REST: Final = "(others)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """What is expected of one thing; None of a forecast where there is too little history, and `why` says so."""

    #: None: the whole.
    group: str | None
    forecast: Forecast | None
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthEnd:
    """What the calendar month, in UTC, will have cost; micro-units."""

    stop: datetime
    spent_micros: int
    #: 10th, 50th and 90th percentile of the whole month's cost; None where there is too little history.
    low_micros: int | None
    median_micros: int | None
    high_micros: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Oddity:
    """Something unlike what had been forecast, and why, in words."""

    #: `tokens` or `cost`.
    what: str
    anomaly: Anomaly
    #: The group that differs most from its usual, and by how much of the whole difference.
    group: str | None
    share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """All that can be said of the time to come."""

    now: datetime
    start: datetime
    hours: int
    by: Breakdown | None
    currency: str
    #: The whole first, then each group; micro-units for cost.
    tokens: Sequence[Ahead]
    cost: Sequence[Ahead]
    #: Of the whole system alone; empty for a tenant.
    pools: Sequence[PoolForecast]
    month: MonthEnd
    oddities: Sequence[Oddity]


def look_ahead(
    demand: DemandRepository,
    *,
    now: datetime,
    hours: int,
    currency: str,
    by: Breakdown | None = None,
    scope: Scope | None = None,
    forecaster: Forecaster | None = None,
) -> Outlook:
    """Return the forecast from the last full hour before `now` on, of the whole system or of what `scope` sees."""
    assert 1 <= hours <= HOURS_MAX
    method = forecaster or LevelProfile()
    until = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    since = until - HISTORY
    apart = by or Breakdown.MODEL
    arrivals = demand.arrivals(since, until, by=apart, scope=scope)
    costs = demand.costs(since, until, currency=currency, scope=scope)
    # To explain the last day, the week before it is enough; shares of work are the dearest to read.
    shared_since = since if by else until - _EXPLAINED
    costs_apart = demand.costs(shared_since, until, currency=currency, by=apart, scope=scope)
    tokens_all, cost_all = series_of(arrivals, until), series_of(costs, until)
    recent = until - _RECENT
    pools = () if scope is not None else _pools(demand, method, arrivals, apart, recent, until, hours, since)
    return Outlook(
        now=now,
        start=until,
        hours=hours,
        by=by,
        currency=currency,
        tokens=_aheads(method, tokens_all, arrivals if by else (), until, hours),
        cost=_aheads(method, cost_all, costs_apart if by else (), until, hours),
        pools=pools,
        month=_month_end(method, cost_all, until),
        oddities=(
            *_oddities("tokens", method, tokens_all, arrivals, until),
            *_oddities("cost", method, cost_all, costs_apart, until),
        ),
    )


def series_of(amounts: Iterable[HourlyAmount], until: datetime) -> Series:
    """Return hourly sums from the first hour that has any until `until`; an hour without had nothing."""
    sums: dict[datetime, float] = defaultdict(float)
    for each in amounts:
        sums[each.at] += each.amount
    start = min(sums, default=until)
    values = np.zeros(max(0, (until - start) // HOUR))
    for at, amount in sums.items():
        values[(at - start) // HOUR] = amount
    return Series(start=start, step=HOUR, values=values)


def _pools(
    demand: DemandRepository,
    method: Forecaster,
    arrivals: Sequence[HourlyAmount],
    apart: Breakdown,
    recent: datetime,
    until: datetime,
    hours: int,
    since: datetime,
) -> tuple[PoolForecast, ...]:
    by_model = arrivals if apart is Breakdown.MODEL else demand.arrivals(since, until, by=Breakdown.MODEL)
    forecasts = {
        ahead.group: ahead.forecast
        for ahead in _aheads(method, None, by_model, until, hours)
        if ahead.group is not None and ahead.forecast is not None
    }
    return workers_wanted(forecasts, demand.paces(recent), demand.token_errors(recent))


def _aheads(
    method: Forecaster, whole: Series | None, amounts: Sequence[HourlyAmount], until: datetime, hours: int
) -> tuple[Ahead, ...]:
    groups = _groups(amounts)
    wanted: list[tuple[str | None, Series]] = [] if whole is None else [(None, whole)]
    # A group's own hours begin where the whole's do: before it came, it asked for nothing.
    start = min((each.at for each in amounts), default=until)
    for group, own in groups.items():
        first = HourlyAmount(group=group, at=start, amount=0.0)
        wanted.append((group, series_of([first, *own], until)))
    return tuple(_ahead(method, group, series, hours) for group, series in wanted)


def _ahead(method: Forecaster, group: str | None, series: Series, hours: int) -> Ahead:
    try:
        return Ahead(group=group, forecast=method.forecast(series, hours))
    except TooLittleHistoryError as error:
        return Ahead(group=group, forecast=None, why=error.message)


def _groups(amounts: Sequence[HourlyAmount]) -> Mapping[str, list[HourlyAmount]]:
    """Return the amounts by group, the largest first; what is past the most that are told apart is one group."""
    totals: dict[str, float] = defaultdict(float)
    for each in amounts:
        totals[each.group or REST] += each.amount
    named = sorted(totals, key=lambda group: (-totals[group], group))[:_GROUPS_MAX]
    found: dict[str, list[HourlyAmount]] = {group: [] for group in named}
    for each in amounts:
        group = each.group or REST
        found.setdefault(group if group in found else REST, []).append(each)
    return found


def _month_end(method: Forecaster, cost: Series, until: datetime) -> MonthEnd:
    first = until.replace(day=1, hour=0)
    stop = (first + timedelta(days=32)).replace(day=1)
    spent = cost.values[max(0, (first - cost.start) // HOUR) :].sum() if first > cost.start else cost.values.sum()
    steps = (stop - until) // HOUR
    try:
        rest = method.forecast(cost, steps).total_quantiles((0.1, 0.5, 0.9))
    except TooLittleHistoryError:
        low = median = high = None
    else:
        low, median, high = (round(spent + rest[share]) for share in (0.1, 0.5, 0.9))
    return MonthEnd(stop=stop, spent_micros=round(float(spent)), low_micros=low, median_micros=median, high_micros=high)


def _oddities(
    what: str, method: Forecaster, series: Series, amounts: Sequence[HourlyAmount], until: datetime
) -> tuple[Oddity, ...]:
    # Who has a day of history at least has hours to compare with.
    if len(series.values) < 2 * _DAY_HOURS:
        return ()
    found = anomalies(method, series, looked_at=_DAY_HOURS)
    return tuple(_explained(what, each, amounts, until) for each in found)


def _explained(what: str, anomaly: Anomaly, amounts: Sequence[HourlyAmount], until: datetime) -> Oddity:
    """Name the group that differs most, in the anomaly's direction, from the same hours of the seven days before."""
    stop = anomaly.start + anomaly.length
    days = [timedelta(days=day) for day in range(1, 8)]
    seen = max(1, sum(1 for day in days if anomaly.start - day >= min((a.at for a in amounts), default=until)))
    changes: dict[str, float] = defaultdict(float)
    for each in amounts:
        group = each.group or REST
        if anomaly.start <= each.at < stop:
            changes[group] += each.amount
        elif any(anomaly.start <= each.at + day < stop for day in days):
            changes[group] -= each.amount / seen
    whole = anomaly.actual - anomaly.expected
    if not changes or whole == 0:
        return Oddity(what=what, anomaly=anomaly, group=None, share=None)
    group = max(changes, key=lambda name: changes[name] * np.sign(whole))
    share = float(np.clip(changes[group] / whole, 0.0, 1.0))
    return Oddity(what=what, anomaly=anomaly, group=group if share > 0 else None, share=share or None)
