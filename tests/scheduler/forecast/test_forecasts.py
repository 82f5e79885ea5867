"""Properties that forecasts have whatever the series, and what they make of series that are known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.forecast.naive import LastValue, SeasonalNaive
from scheduler.forecast.profiles import LevelProfile
from scheduler.forecast.series import HOUR, QUANTILES, Floats, Forecast, Forecaster, Series, TooLittleHistoryError

START = datetime(2026, 3, 1, tzinfo=UTC)
TEN_MINUTES = timedelta(minutes=10)
OURS = LevelProfile()
ALL: tuple[Forecaster, ...] = (OURS, LastValue(), SeasonalNaive())
SHAPE = 1 + 0.6 * np.sin(2 * np.pi * np.arange(24) / 24)


def hourly(values: Floats, *, start: datetime = START) -> Series:
    return Series(start=start, step=HOUR, values=np.asarray(values, dtype=float))


def days(count: int, *, noise: float = 0.1, seed: int = 0) -> Floats:
    drawn = np.random.default_rng(seed)
    return 100 * np.tile(SHAPE, count) * np.exp(noise * drawn.standard_normal(24 * count))


def is_sound(forecast: Forecast, steps: int) -> bool:
    rows = np.array([forecast.quantiles[share] for share in QUANTILES])
    figures = [rows, forecast.mean[None], forecast.point[None], forecast.paths]
    return (
        rows.shape == (len(QUANTILES), steps)
        and all(bool(np.isfinite(each).all()) and bool((each >= 0).all()) for each in figures)
        and bool((np.diff(rows, axis=0) >= 0).all())
    )


known_or_not = st.one_of(
    st.just(0.0), st.just(float("nan")), st.floats(0, 1e9, allow_subnormal=False).map(lambda x: round(x, 3))
)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(known_or_not, min_size=4, max_size=130), steps=st.integers(1, 60), which=st.integers(0, 2))
def test_whatever_came_amounts_are_finite_and_not_negative_and_quantiles_in_order(
    values: list[float], steps: int, which: int
) -> None:
    series = hourly(np.array([1.0, 2.0, 3.0, *values]))

    assert is_sound(ALL[which].forecast(series, steps), steps)


@settings(max_examples=20, deadline=None)
@given(scale=st.sampled_from([1e-6, 1e-3, 7.0, 1e3, 1e9]), count=st.integers(1, 6), seed=st.integers(0, 99))
def test_in_another_unit_everything_is_the_same_in_that_unit(scale: float, count: int, seed: int) -> None:
    values = days(count, noise=0.3, seed=seed)

    for method in ALL:
        once, scaled = (method.forecast(hourly(each), 24) for each in (values, scale * values))
        np.testing.assert_allclose(scaled.point, scale * once.point, rtol=1e-6)
        np.testing.assert_allclose(scaled.paths, scale * once.paths, rtol=1e-6, atol=1e-9 * scale)


def test_the_same_history_gives_the_same_forecast() -> None:
    first, again = (OURS.forecast(hourly(days(9)), 48) for _ in range(2))

    np.testing.assert_array_equal(first.paths, again.paths)


def test_a_day_that_repeats_is_foreseen_better_than_by_last_value() -> None:
    errors = np.zeros(len(ALL))
    for seed in range(6):
        values = days(15, seed=seed)
        told = [method.forecast(hourly(values[:-24]), 24).point for method in ALL]
        errors += [np.abs(each - values[-24:]).mean() / 600 for each in told]

    ours, last, seasonal = errors
    assert ours < 0.3 * last
    assert ours < 0.9 * seasonal
    assert ours < 0.1


def test_a_level_that_jumped_is_taken_on() -> None:
    values = days(15)
    values[-24:] *= 3

    found = OURS.forecast(hourly(values), 6).point

    assert found.sum() > 2 * days(15)[:6].sum()


def test_nights_without_anything_stay_empty() -> None:
    night = np.where(np.arange(24) < 8, 0.0, 100.0)
    found = OURS.forecast(hourly(np.tile(night, 14)), 24)

    assert found.point[:8].max() < 5
    assert found.point[8:].min() > 90


def test_nothing_but_nothing_foresees_nothing() -> None:
    for method in ALL:
        found = method.forecast(hourly(np.zeros(24 * 9)), 24)
        assert is_sound(found, 24)
        assert found.mean.max() == 0


def test_what_is_unknown_changes_little() -> None:
    values = days(15)
    holes = values.copy()
    holes[np.random.default_rng(1).choice(len(values) - 1, 60, replace=False)] = np.nan
    holes[100:130] = np.nan

    whole, some = (OURS.forecast(hourly(each), 24).point for each in (values, holes))

    assert np.abs(whole - some).sum() < 0.15 * whole.sum()


def test_a_short_stop_is_no_level() -> None:
    values = np.repeat(days(9, noise=0.02), 6)
    values[-2:] = 0
    series = Series(start=START, step=TEN_MINUTES, values=values)

    assert OURS.forecast(series, 6).point.min() > 50


def test_a_stop_that_lasts_is_taken_for_what_it_is() -> None:
    values = np.repeat(days(9, noise=0.02), 6)
    values[-60:] = 0
    series = Series(start=START, step=TEN_MINUTES, values=values)

    assert OURS.forecast(series, 3).point.max() < 35


def test_weekdays_are_told_apart_once_history_is_long_enough() -> None:
    week = np.concatenate([np.tile(100 * SHAPE, 5), np.tile(20 * SHAPE, 2)])
    values = np.tile(week, 6) * np.exp(0.05 * np.random.default_rng(2).standard_normal(24 * 42))

    # The last hours are a Friday's, and a Saturday comes.
    friday = values[: -2 * 24]
    found = OURS.forecast(hourly(friday), 24).point

    assert found.sum() < 0.5 * friday[-24:].sum()


def test_clocks_that_change_move_no_profile() -> None:
    # Berlin's went forward on 29 March 2026.
    there = datetime(2026, 3, 20, 1, tzinfo=ZoneInfo("Europe/Berlin"))
    values = days(12)

    local, utc = (OURS.forecast(hourly(values, start=at), 24) for at in (there, there.astimezone(UTC)))

    np.testing.assert_array_equal(local.point, utc.point)
    assert local.start == utc.start == there.astimezone(UTC) + timedelta(days=12)


@pytest.mark.parametrize("bins", [0, 3, 5])
def test_with_less_than_an_hour_it_says_that_it_cannot(bins: int) -> None:
    series = Series(start=START, step=TEN_MINUTES, values=np.full(bins, 5.0))

    for method in ALL:
        with pytest.raises(TooLittleHistoryError, match=r"60 minutes at least|0 minutes of history"):
            method.forecast(series, 6)


def test_what_is_unknown_is_no_history() -> None:
    with pytest.raises(TooLittleHistoryError):
        OURS.forecast(hourly(np.full(100, np.nan)), 6)


@pytest.mark.parametrize("hours", [3, 6, 12, 23])
def test_with_less_than_a_day_it_is_a_level_with_a_spread(hours: int) -> None:
    found = OURS.forecast(hourly(days(1)[:hours]), 24)

    assert is_sound(found, 24)
    assert np.ptp(found.mean[-6:]) < 0.5 * found.mean[-6:].mean()
    assert found.quantiles[0.9][-1] > found.quantiles[0.1][-1]


def test_a_month_ahead_of_little_history_is_sound() -> None:
    assert is_sound(OURS.forecast(hourly(days(3)), 744), 744)


def test_intervals_hold_about_as_often_as_they_say() -> None:
    inside = []
    for seed in range(12):
        drawn = np.random.default_rng(seed)
        level = np.zeros(24 * 22)
        for index in range(1, len(level)):
            level[index] = 0.9 * level[index - 1] + 0.1 * drawn.standard_normal()
        values = 100 * np.tile(SHAPE, 22) * np.exp(level)
        found, actual = OURS.forecast(hourly(values[:-24]), 24), values[-24:]
        inside.append(((found.quantiles[0.1] <= actual) & (actual <= found.quantiles[0.9])).mean())

    assert 0.65 < np.mean(inside) < 0.95


def test_a_sums_interval_is_narrower_than_the_sum_of_intervals() -> None:
    found = OURS.forecast(hourly(days(15, noise=0.3)), 24)
    totals = found.total_quantiles((0.1, 0.9))

    assert totals[0.9] - totals[0.1] < 0.8 * (found.quantiles[0.9] - found.quantiles[0.1]).sum()


def test_the_naive_methods_say_what_they_say() -> None:
    values = days(9)

    np.testing.assert_array_equal(LastValue().forecast(hourly(values), 24).point, np.full(24, values[-1]))
    np.testing.assert_array_equal(SeasonalNaive().forecast(hourly(values), 48).point, np.tile(values[-24:], 2))


@pytest.mark.parametrize(
    ("step", "values"),
    [(timedelta(minutes=7), [1.0]), (HOUR, [-1.0]), (HOUR, [float("inf")]), (HOUR, [[1.0]])],
)
def test_what_is_no_series_is_refused(step: timedelta, values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"bins|series"):
        Series(start=START, step=step, values=np.array(values))
