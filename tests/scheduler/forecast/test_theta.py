"""The method that an extra brings: told of where it is missing, and put into our form where it is there."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from pipeline.domain.errors import UsageError
from scheduler.forecast.series import QUANTILES, Floats
from scheduler.forecast.theta import DynamicTheta
from tests.scheduler.forecast.test_forecasts import days, hourly, is_sound


class Told:
    """Stands for statsforecast's model: a mean, and bounds so far from it as their level says."""

    def __init__(self, season_length: int) -> None:
        self.season_length = season_length

    def forecast(self, y: Floats, h: int, level: list[int]) -> dict[str, Floats]:
        assert (y > 0).all()
        mean = np.full(h, float(self.season_length))
        return {
            "mean": mean,
            **{f"{side}-{each}": mean + sign * each for each in level for side, sign in (("lo", -1), ("hi", 1))},
        }


def test_without_statsforecast_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "statsforecast", None)
    monkeypatch.setitem(sys.modules, "statsforecast.models", None)

    with pytest.raises(UsageError, match=r"nightrate\[forecast\]"):
        DynamicTheta().forecast(hourly(days(3)), 5)


def test_its_intervals_become_quantiles_that_are_not_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    models = ModuleType("statsforecast.models")
    models.DynamicOptimizedTheta = Told  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, "statsforecast", ModuleType("statsforecast"))
    monkeypatch.setitem(sys.modules, "statsforecast.models", models)
    values = days(3)
    values[5] = np.nan
    values[6] = 0

    found = DynamicTheta().forecast(hourly(values), 5)

    assert is_sound(found, 5)
    assert [found.quantiles[share][0] for share in QUANTILES] == [0, 0, 0, 24, 74, 104, 123]
    np.testing.assert_array_equal(found.point, np.full(5, 24.0))
