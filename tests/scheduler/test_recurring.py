from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.cron import Schedule, parse_cron
from pipeline.domain.limits import FIRING_LATE_SECONDS_MAX, FIRING_TRIES_MAX, FIRINGS_WAITING_MAX
from pipeline.domain.recurring import CatchUp, FiringOutcome
from scheduler.recurring import FiringPlan, next_try_at, plan_firings

NIGHTLY = Schedule(cron=parse_cron("0 2 * * *"), zone=ZoneInfo("Europe/Berlin"))
START = datetime(2026, 3, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def plan(
    now: datetime, catch_up: CatchUp, *, most: int = 10, schedule: Schedule = NIGHTLY, waiting: int = 0
) -> FiringPlan:
    return plan_firings(
        schedule,
        next_at=schedule.next_after(START),
        now=now,
        catch_up=catch_up,
        catch_up_max=most,
        waiting=waiting,
    )


def fired(found: FiringPlan) -> list[datetime]:
    return [each.scheduled_at for each in found.firings if each.outcome is None]


def skipped(found: FiringPlan) -> list[datetime]:
    return [each.scheduled_at for each in found.firings if each.outcome is FiringOutcome.SKIPPED_CATCH_UP]


def come(now: datetime, schedule: Schedule = NIGHTLY) -> list[datetime]:
    return list(takewhile(lambda instant: instant <= now, schedule.upcoming(START)))


def test_nothing_is_due_before_its_time() -> None:
    next_at = NIGHTLY.next_after(START)

    assert plan(next_at - timedelta(microseconds=1), CatchUp.ALL) == FiringPlan(firings=(), next_at=next_at)


@pytest.mark.parametrize("catch_up", CatchUp)
@pytest.mark.parametrize("late_seconds", [0, FIRING_LATE_SECONDS_MAX])
def test_what_comes_on_time_fires_under_every_policy(catch_up: CatchUp, late_seconds: int) -> None:
    at = NIGHTLY.next_after(START)

    found = plan(at + timedelta(seconds=late_seconds), catch_up)

    assert fired(found) == [at]
    assert found.next_at == NIGHTLY.next_after(at)


@pytest.mark.parametrize(("catch_up", "number"), [(CatchUp.NONE, 0), (CatchUp.LAST, 1), (CatchUp.ALL, 3)])
def test_each_policy_makes_up_for_what_it_says(catch_up: CatchUp, number: int) -> None:
    now = START + 5 * DAY
    missed = come(now)

    found = plan(now, catch_up, most=3)

    assert len(missed) == 5
    assert fired(found) == missed[5 - number :]
    assert skipped(found) == missed[: 5 - number]
    assert found.next_at == NIGHTLY.next_after(now)
    assert all(each.reason for each in found.firings if each.outcome)


def test_of_many_missed_the_last_are_named_and_the_rest_counted() -> None:
    every_minute = Schedule(cron=parse_cron("* * * * *"), zone=ZoneInfo("UTC"))

    found = plan(START + timedelta(hours=10, seconds=30), CatchUp.LAST, schedule=every_minute)

    assert len(come(START + timedelta(hours=10), every_minute)) == 600
    assert (len(fired(found)), len(skipped(found))) == (5, 20)
    assert "575 before it" in (found.firings[0].reason or "")


def test_what_finds_too_many_waiting_is_left_out_and_says_so() -> None:
    found = plan(START + 3 * DAY, CatchUp.ALL, waiting=FIRINGS_WAITING_MAX - 2)

    outcomes = [each.outcome for each in found.firings]
    assert outcomes == [None, None, FiringOutcome.SKIPPED_OVERLAP]


def test_a_clock_that_jumps_years_ahead_is_bounded() -> None:
    every_minute = Schedule(cron=parse_cron("* * * * *"), zone=ZoneInfo("Europe/Berlin"))
    now = START + 400 * DAY

    found = plan(now, CatchUp.NONE, schedule=every_minute)

    assert len(found.firings) <= 26
    assert found.next_at == every_minute.next_after(now)


@given(st.lists(st.integers(-3 * 24 * 60, 4 * 24 * 60), max_size=12), st.sampled_from(CatchUp))
def test_however_the_clock_jumps_each_instant_is_planned_once(jumps: list[int], catch_up: CatchUp) -> None:
    now, next_at = START, NIGHTLY.next_after(START)
    planned: list[datetime] = []
    latest = now
    for minutes in jumps:
        now += timedelta(minutes=minutes)
        latest = max(latest, now)
        found = plan_firings(NIGHTLY, next_at=next_at, now=now, catch_up=catch_up, catch_up_max=100)
        planned += [each.scheduled_at for each in found.firings]
        assert found.next_at >= next_at
        next_at = found.next_at

    assert planned == come(latest)


def test_a_try_rests_longer_each_time_and_ends_with_the_window_or_the_count() -> None:
    now, window = START, timedelta(hours=24)
    tries = 1
    rests = []
    while (again_at := next_try_at(tries=tries, scheduled_at=START, window=window, now=now)) is not None:
        rests.append((again_at - now).total_seconds())
        now, tries = again_at, tries + 1

    assert tries == FIRING_TRIES_MAX
    assert rests == sorted(rests)
    assert (rests[0], rests[-1]) == (30, 3600)
    assert (
        next_try_at(tries=1, scheduled_at=START, window=timedelta(minutes=1), now=START + timedelta(seconds=40)) is None
    )
