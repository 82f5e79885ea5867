"""How many workers the forecast tokens ask for, pool by pool and variant by variant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.ports.demand import Pace, TokenError
from scheduler.forecast.series import QUANTILES, Forecast

_HOUR_SECONDS: Final = 3600
#: Estimated tokens that an estimate is believed for before it has been compared with any.
_PRIOR_TOKENS: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolForecast:
    """Workers of a pool that a variant needs in each hour, so that what comes in an hour is done within one."""

    pool: str
    variant: str
    model: str
    tokens_per_worker_second: float
    #: Of the model's tokens, the share that this pool did with this variant.
    share: float
    #: Whole workers by quantile and hour.
    workers: Mapping[float, Sequence[int]]


def workers_wanted(
    tokens: Mapping[str, Forecast], paces: Sequence[Pace], errors: Sequence[TokenError]
) -> tuple[PoolForecast, ...]:
    """Return the workers that forecasts of estimated tokens, by model, ask for at the paces that were measured.

    Models that nothing ran of are left out: no speed of theirs is known.
    """
    of_model: dict[str, int] = defaultdict(int)
    for pace in paces:
        of_model[pace.model] += pace.tokens
    found = {error.model: error for error in errors}
    return tuple(
        _pool(pace, pace.tokens / of_model[pace.model], tokens[pace.model], _ratio(found.get(pace.model)))
        for pace in paces
        if pace.model in tokens and pace.work_seconds > 0
    )


def _pool(pace: Pace, share: float, tokens: Forecast, ratio: float) -> PoolForecast:
    speed = pace.tokens / pace.work_seconds
    workers = {
        quantile: tuple(int(each) for each in np.ceil(amounts * ratio * share / (speed * _HOUR_SECONDS) - 1e-9))
        for quantile, amounts in tokens.quantiles.items()
    }
    assert tuple(workers) == QUANTILES
    return PoolForecast(
        pool=pace.pool,
        variant=pace.variant,
        model=pace.model,
        tokens_per_worker_second=speed,
        share=share,
        workers=workers,
    )


def _ratio(error: TokenError | None) -> float:
    """Return actual over estimated tokens, drawn to 1 while few are known."""
    if error is None:
        return 1.0
    return (error.actual_tokens + _PRIOR_TOKENS) / (error.estimated_tokens + _PRIOR_TOKENS)
