"""A forecast as one JSON document, for the API and the command line alike; money in decimal amounts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from pipeline.app.fleet_forecast import PoolForecast
from pipeline.app.forecasting import Ahead, MonthEnd, Oddity, Outlook
from pipeline.domain.figures import count, money
from pipeline.domain.money import amount
from scheduler.forecast.series import HOUR

Document = dict[str, object]
Written = Callable[[float], object]

#: Told of each hour, by name.
TOLD: Final = (("p10", 0.1), ("p50", 0.5), ("p90", 0.9))


def outlook_document(outlook: Outlook) -> Document:
    """Return all that is foreseen."""
    return {
        "object": "organization.forecast",
        "start": outlook.start.isoformat(),
        "hours": outlook.hours,
        "by": outlook.by and str(outlook.by),
        "currency": outlook.currency,
        "tokens": [_ahead_document(each, round) for each in outlook.tokens],
        "cost": [_ahead_document(each, _amount) for each in outlook.cost],
        "workers": [_pool_document(each, outlook.start) for each in outlook.pools],
        "month_end": _month_document(outlook.month),
        "anomalies": [_oddity_document(each, outlook.currency) for each in outlook.oddities],
    }


def sentence_of(oddity: Oddity, currency: str) -> str:
    """Return what stands out, by how much, and what it comes from, in words."""
    found = oddity.anomaly

    def said(value: float) -> str:
        return money(round(value), currency) if oddity.what == "cost" else f"{count(round(value))} tokens"

    when = f"{found.start:%Y-%m-%d %H:%M}Z"
    span = f"the hour from {when}" if found.length == HOUR else f"the {found.length // HOUR} hours from {when}"
    times = f", {found.actual / found.expected:.1f} times what was expected" if found.expected > 0 else ""
    subject = "Cost" if oddity.what == "cost" else "Demand"
    text = (
        f"{subject} in {span}: {said(found.actual)}, where {said(found.low)} to {said(found.high)} was forecast{times}."
    )
    if oddity.group is None or oddity.share is None:
        return text
    direction = "more" if found.is_above else "less"
    return f"{text} {oddity.share:.0%} of the difference is {direction} of {oddity.group} than in the week before."


def _amount(micros: float) -> str:
    return amount(round(micros))


def _ahead_document(ahead: Ahead, written: Written) -> Document:
    forecast = ahead.forecast
    told: list[Document] = []
    if forecast is not None:
        told = [
            {
                "start": (forecast.start + index * forecast.step).isoformat(),
                "mean": written(float(forecast.mean[index])),
                **{name: written(float(forecast.quantiles[share][index])) for name, share in TOLD},
            }
            for index in range(len(forecast.mean))
        ]
    totals = None if forecast is None else forecast.total_quantiles(tuple(share for _, share in TOLD))
    return {
        "group": ahead.group,
        "method": None if forecast is None else forecast.method,
        "trouble": ahead.why,
        "total": totals and {name: written(totals[share]) for name, share in TOLD},
        "hours": told,
    }


def _pool_document(pool: PoolForecast, start: datetime) -> Document:
    hours = len(pool.workers[0.5])
    return {
        "pool": pool.pool,
        "variant": pool.variant,
        "model": pool.model,
        "tokens_per_worker_second": round(pool.tokens_per_worker_second, 3),
        "share": round(pool.share, 4),
        "hours": [
            {
                "start": (start + index * HOUR).isoformat(),
                **{name: pool.workers[share][index] for name, share in TOLD},
            }
            for index in range(hours)
        ],
    }


def _month_document(month: MonthEnd) -> Document:
    def said(micros: int | None) -> str | None:
        return None if micros is None else amount(micros)

    return {
        "stop": month.stop.isoformat(),
        "spent": amount(month.spent_micros),
        "p10": said(month.low_micros),
        "p50": said(month.median_micros),
        "p90": said(month.high_micros),
    }


def _oddity_document(oddity: Oddity, currency: str) -> Document:
    found = oddity.anomaly
    written: Written = _amount if oddity.what == "cost" else round
    return {
        "what": oddity.what,
        "start": found.start.isoformat(),
        "hours": found.length // HOUR,
        "actual": written(found.actual),
        "expected": written(found.expected),
        "low": written(found.low),
        "high": written(found.high),
        "group": oddity.group,
        "sentence": sentence_of(oddity, currency),
    }
