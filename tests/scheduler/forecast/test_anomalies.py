"""Few false alarms, and none missed that matters."""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from scheduler.forecast.anomalies import Anomaly, anomalies
from scheduler.forecast.profiles import LevelProfile
from scheduler.forecast.series import HOUR, Floats
from tests.scheduler.forecast.test_forecasts import hourly

DAYS = 22
SEEDS = range(24)


def noisy(seed: int, *, spread: float = 0.05) -> Floats:
    drawn = np.random.default_rng(seed)
    level = np.zeros(24 * DAYS)
    for index in range(1, len(level)):
        level[index] = 0.9 * level[index - 1] + spread * drawn.standard_normal()
    return 100 * np.exp(level + 0.6 * np.sin(2 * np.pi * np.arange(len(level)) / 24))


def found(values: Floats) -> list[Anomaly]:
    return anomalies(LevelProfile(), hourly(values), looked_at=24)


def test_days_as_ever_raise_hardly_an_alarm() -> None:
    alarmed = sum(bool(found(noisy(seed))) for seed in SEEDS)

    assert alarmed <= 2


def test_a_doubled_rate_is_noticed() -> None:
    noticed = 0
    for seed in SEEDS:
        values = noisy(seed)
        values[-12:] *= 2
        noticed += any(each.is_above and each.start >= hourly(values).stop - 12 * HOUR for each in found(values))

    assert noticed >= len(SEEDS) - 2


def test_a_day_that_doubled_is_told_as_a_day_with_its_size() -> None:
    values = noisy(3)
    values[-24:] *= 2

    day = found(values)[-1]

    assert day.length == timedelta(days=1)
    assert day.actual == values[-24:].sum()
    assert day.low <= day.expected <= day.high < day.actual
    assert 1.5 < day.actual / day.expected < 2.6


def test_a_day_without_anything_is_noticed() -> None:
    values = noisy(4)
    values[-24:] = 0

    assert found(values)
    assert not any(each.is_above for each in found(values))


def test_what_never_moved_may_move_a_little() -> None:
    values = np.full(24 * DAYS, 100.0)
    values[-5] = 110

    assert found(values) == []


def test_what_is_unknown_raises_no_alarm() -> None:
    values = noisy(5)
    values[-10:-4] = np.nan

    assert found(values) == []
