"""The table of one machine, read for shares of a pool's work."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scheduler.fleet.jobs import Mode
from scheduler.fleet.spot import SpotTables, life_quantile_seconds, survival_of
from scheduler.fleet.survival import BUCKETS, Survival
from tests.scheduler.fleet.fleet_world import HOUR, ON_DEMAND_MICROS, SPOT_MICROS, spot_offer

TABLES = SpotTables(horizon_seconds=4 * HOUR)
TABLE = TABLES.table([spot_offer()], cold_start_seconds=300.0, on_demand_price=float(ON_DEMAND_MICROS))
LEFT = np.array([1800.0, 3600.0, 2 * 3600.0, 4 * 3600.0, 24 * 3600.0])


@pytest.mark.parametrize("is_available", [True, False])
def test_a_share_leaves_time_for_a_start_and_grows_with_the_time_left(is_available: bool) -> None:  # noqa: FBT001
    shares = TABLE.share_seconds(LEFT, is_available=is_available, age_ticks=3)

    assert (shares + 300 <= LEFT).all()
    assert (np.diff(shares) >= 0).all()
    assert shares[-1] > 2 * shares[0]


def test_shares_take_spot_when_it_is_there_wait_when_it_is_not_and_pay_when_time_is_out() -> None:
    def choices(work: np.ndarray, *, is_available: bool) -> list[int]:
        return list(TABLE.choices(LEFT, work, Mode.IDLE, is_available=is_available, age_ticks=1))

    on_spot = TABLE.share_seconds(LEFT, is_available=True, age_ticks=1)
    waiting = TABLE.share_seconds(LEFT, is_available=False, age_ticks=1)
    assert choices(on_spot, is_available=True) == [1] * len(LEFT)
    assert choices(waiting, is_available=False)[2:] == [0, 0, 0]
    assert choices(LEFT - 400, is_available=False) == [2] * len(LEFT)
    assert choices(LEFT + 1, is_available=True) == [2] * len(LEFT)


def test_pools_whose_prices_are_in_the_same_proportion_share_a_table() -> None:
    double = spot_offer("other", rate_micros_per_hour=2 * SPOT_MICROS)

    other = TABLES.table([double], cold_start_seconds=290.0, on_demand_price=2.0 * ON_DEMAND_MICROS)

    assert other.table is TABLE.table
    value = {"is_available": True, "age_ticks": 1}
    assert other.work_value(7200.0, 3600.0, **value) == pytest.approx(2 * TABLE.work_value(7200.0, 3600.0, **value))


def test_an_hour_of_work_is_worth_more_than_spot_and_no_more_than_on_demand_while_there_is_slack() -> None:
    value = TABLE.work_value(4 * 3600.0, 3600.0, is_available=True, age_ticks=1)

    assert SPOT_MICROS < value <= ON_DEMAND_MICROS


def test_what_was_learned_of_an_offer_counts_before_what_it_says_of_itself() -> None:
    brief = Survival(run_hazards=np.full(BUCKETS, 0.5), outage_hazards=np.full(BUCKETS, 0.2))
    tables = SpotTables(horizon_seconds=4 * HOUR, survivals={"spot": brief})

    assert tables.survival(spot_offer()) is brief
    assert tables.survival(spot_offer("other")).left_ticks(1, is_available=True) == pytest.approx(24, rel=0.01)


def test_nine_runs_of_ten_last_as_long_as_is_counted_on() -> None:
    survival = survival_of(10 * 600.0, 600.0)

    # (1 - 1/10) after one tick.
    assert life_quantile_seconds(survival, 1, 600.0) == pytest.approx(600.0)
    assert life_quantile_seconds(survival, 1, 600.0, share=0.5) == pytest.approx(600 * math.log(0.5) / math.log(0.9))
    assert life_quantile_seconds(survival_of(math.inf, 600.0), 1, 600.0) > 7 * 24 * HOUR
