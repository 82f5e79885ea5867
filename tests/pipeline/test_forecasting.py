"""The whole way from seeded tables to a forecast of tokens, cost, workers and the month's end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from pipeline.app.fleet_forecast import workers_wanted
from pipeline.app.forecast_documents import outlook_document, sentence_of
from pipeline.app.forecasting import Outlook, look_ahead, series_of
from pipeline.domain.ids import TenantId
from pipeline.ports.access import Scope
from pipeline.ports.demand import Breakdown, HourlyAmount, Pace, TokenError
from scheduler.forecast.profiles import LevelProfile
from scheduler.forecast.series import HOUR, Series
from storage.database import Database
from storage.demand import DemandRepository
from tests.storage.history import RATE, write_hours

#: A Sunday in the middle of a month, some minutes past the hour.
NOW = datetime(2026, 3, 15, 12, 20, tzinfo=UTC)
UNTIL = NOW.replace(minute=0)
THEIRS = Scope(tenant_id=TenantId("tnt_other"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.close()


def tokens_of(days: int, *, level: float = 100_000, seed: int = 0) -> list[int]:
    hours = np.arange(24 * days)
    noise = np.random.default_rng(seed).standard_normal(len(hours))
    return [int(each) for each in level * (1 + 0.5 * np.sin(2 * np.pi * hours / 24)) * np.exp(0.05 * noise)]


def looked(database: Database, *, by: Breakdown | None = None, scope: Scope | None = None, hours: int = 24) -> Outlook:
    demand = DemandRepository(database)
    return look_ahead(demand, now=NOW, hours=hours, currency="USD", by=by, scope=scope)


def test_tokens_cost_workers_and_the_month_are_foreseen(database: Database) -> None:
    tokens = tokens_of(14)
    write_hours(database, UNTIL - timedelta(days=14), tokens)

    outlook = looked(database)

    told = outlook.tokens[0].forecast
    assert told is not None
    assert told.start == UNTIL
    assert told.total_quantiles((0.5,))[0.5] == pytest.approx(sum(tokens[-24:]), rel=0.1)
    cost = outlook.cost[0].forecast
    assert cost is not None
    assert cost.mean == pytest.approx(np.full(24, RATE), rel=0.01)
    (pool,) = outlook.pools
    # One worker did an hour's tokens in half an hour, whatever they were.
    assert (pool.pool, pool.variant, pool.share) == ("local", "echo", 1.0)
    assert set(pool.workers[0.5]) == {1}
    hours = 24 * 31
    assert outlook.month.spent_micros == (14 * 24 + 12) * RATE - 12 * RATE
    assert outlook.month.median_micros == pytest.approx((hours - 12) * RATE, rel=0.01)
    assert outlook.month.stop == datetime(2026, 4, 1, tzinfo=UTC)
    assert outlook.oddities == ()


def test_groups_are_foreseen_beside_the_whole(database: Database) -> None:
    write_hours(database, UNTIL - timedelta(days=9), tokens_of(9))
    write_hours(
        database,
        UNTIL - timedelta(days=5),
        tokens_of(5, level=20_000),
        tenant_id="tnt_other",
        project_id="p2",
        tier="bulk",
    )

    outlook = looked(database, by=Breakdown.TENANT)

    assert [each.group for each in outlook.tokens] == [None, "tnt_default", "tnt_other"]
    assert {each.group for each in outlook.cost} == {None, "tnt_default", "tnt_other"}
    totals = [each.forecast.mean.sum() for each in outlook.tokens if each.forecast is not None]
    assert totals[1] + totals[2] == pytest.approx(totals[0], rel=0.1)


def test_a_tenant_sees_its_own_and_no_workers(database: Database) -> None:
    write_hours(database, UNTIL - timedelta(days=9), tokens_of(9, level=10_000_000))
    write_hours(database, UNTIL - timedelta(days=9), tokens_of(9, level=100), tenant_id="tnt_other", project_id="p2")

    outlook = looked(database, scope=THEIRS)

    told = outlook.tokens[0].forecast
    assert told is not None
    assert told.quantiles[0.995].max() < 1000
    assert outlook.pools == ()
    # Half of each hour was work, for twice its cost; that its worker idled is no tenant's.
    assert outlook.month.spent_micros == 9 * 24 * RATE


def test_without_history_it_says_that_it_cannot(database: Database) -> None:
    outlook = looked(database, by=Breakdown.MODEL)

    assert [each.forecast for each in (*outlook.tokens, *outlook.cost)] == [None, None]
    assert outlook.tokens[0].why == "there are 0 minutes of history; a forecast needs 3 hours at least"
    assert (outlook.month.spent_micros, outlook.month.median_micros) == (0, None)
    document = outlook_document(outlook)
    assert document["anomalies"] == document["workers"] == []


def test_a_rush_is_told_with_its_size_and_who_it_comes_from(database: Database) -> None:
    usual = tokens_of(14)
    rush = [0] * 13 * 24 + [0] * 18 + [300_000] * 6
    write_hours(database, UNTIL - timedelta(days=14), usual)
    write_hours(database, UNTIL - timedelta(days=14), rush, model="chat", tenant_id="tnt_other", project_id="p2")

    outlook = looked(database)

    tokens = [each for each in outlook.oddities if each.what == "tokens"]
    assert tokens[-1].anomaly.length == timedelta(days=1)
    assert {each.group for each in tokens} == {"chat"}
    first = sentence_of(tokens[0], "USD")
    assert first.startswith("Demand in the hour from 2026-03-15 06:00Z: ")
    assert "times what was expected" in first
    assert first.endswith("is more of chat than in the week before.")


def test_an_hour_without_a_batch_had_none_and_the_last_one_counts() -> None:
    def at(hours: int, amount: float) -> HourlyAmount:
        return HourlyAmount(group=None, at=UNTIL - hours * HOUR, amount=amount)

    series = series_of([at(5, 2.0), at(2, 3.0), at(5, 1.0)], UNTIL)

    assert (series.start, series.values.tolist()) == (UNTIL - 5 * HOUR, [3.0, 0.0, 0.0, 3.0, 0.0])


def test_workers_are_whole_and_share_a_models_tokens_as_they_did() -> None:
    series = Series(start=UNTIL - timedelta(days=3), step=HOUR, values=np.full(72, 7_200_000.0))
    forecast = LevelProfile().forecast(series, 2)
    paces = [
        Pace(pool="a", variant="m@int8", model="m", tokens=3_000_000, work_seconds=3_000),
        Pace(pool="b", variant="m", model="m", tokens=1_000_000, work_seconds=2_000),
        Pace(pool="b", variant="x", model="x", tokens=1, work_seconds=1),
    ]
    # Intake thought of twice what came, of very many tokens.
    errors = [TokenError(model="m", estimated_tokens=2 * 10**12, actual_tokens=10**12)]

    first, second = workers_wanted({"m": forecast}, paces, errors)

    # 3.6 M tokens an hour come: 2.7 M at 1,000 tokens/s, 0.9 M at 500.
    assert (first.share, first.workers[0.5]) == (0.75, (1, 1))
    assert (second.share, second.workers[0.5]) == (0.25, (1, 1))
    (alone, _) = workers_wanted({"m": forecast}, paces[:2], [])
    assert alone.workers[0.5] == (2, 2)
