"""Which firings of a recurring batch are due, which are left out, and when a failed one is tried again: decisions alone."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pipeline.domain.cron import Schedule
from pipeline.domain.limits import (
    CATCH_UP_MAX,
    FIRING_DAYS_BACK_MAX,
    FIRING_LATE_SECONDS_MAX,
    FIRING_TRIES_MAX,
    FIRINGS_SKIPPED_LISTED_MAX,
    FIRINGS_WAITING_MAX,
)
from pipeline.domain.recurring import CatchUp, FiringOutcome

_LATE_MAX: Final = timedelta(seconds=FIRING_LATE_SECONDS_MAX)
_BACK_MAX: Final = timedelta(days=FIRING_DAYS_BACK_MAX)
_PAUSE_SECONDS: Final = 30
_PAUSE_SECONDS_MAX: Final = 3600
_DOUBLINGS_MAX: Final = 16
_KEPT_MAX: Final = CATCH_UP_MAX + FIRINGS_SKIPPED_LISTED_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFiring:
    """One firing that has come; without an outcome it is to be fired."""

    scheduled_at: datetime
    outcome: FiringOutcome | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FiringPlan:
    """What has come since the last look, in order, and when the next one comes."""

    firings: tuple[PlannedFiring, ...]
    next_at: datetime


def plan_firings(
    schedule: Schedule, *, next_at: datetime, now: datetime, catch_up: CatchUp, catch_up_max: int, waiting: int = 0
) -> FiringPlan:
    """Return the firings from `next_at` until `now`, and the first one after them.

    All of it follows from the time a firing was to come at, never from the time somebody looked: however late, early or
    often that is, no instant is planned twice. A clock that was put back (`now` before `next_at`) has nothing to fire.

    Args:
        schedule: When it fires.
        next_at: The first firing that was not planned yet.
        now: The time of the look.
        catch_up: Which of those that come late are fired.
        catch_up_max: How many late ones are, at most, under `CatchUp.ALL`.
        waiting: Firings planned earlier that wait for their turn; with new ones they are `FIRINGS_WAITING_MAX` at most.
    """
    if next_at > now:
        return FiringPlan(firings=(), next_at=next_at)
    start = max(next_at, now - _BACK_MAX)
    come: deque[datetime] = deque(maxlen=_KEPT_MAX)
    total = 0
    for instant in schedule.upcoming(start - timedelta(microseconds=1)):
        if instant > now:
            break
        come.append(instant)
        total += 1
    else:
        # A calendar that has ended: there is nothing to wait for.
        instant = datetime.max.replace(tzinfo=now.tzinfo)
    fired = _fired(list(come), now, catch_up, catch_up_max)
    firings = [_skipped(at) for at in come if at not in fired][-FIRINGS_SKIPPED_LISTED_MAX:]
    unlisted = total - len(fired) - len(firings)
    if unlisted:
        firings[0] = _skipped(firings[0].scheduled_at, before=unlisted)
    free = max(0, FIRINGS_WAITING_MAX - waiting)
    firings += [PlannedFiring(scheduled_at=at) for at in fired[:free]]
    firings += [_crowded_out(at) for at in fired[free:]]
    return FiringPlan(firings=tuple(sorted(firings, key=lambda each: each.scheduled_at)), next_at=instant)


def next_try_at(*, tries: int, scheduled_at: datetime, window: timedelta, now: datetime) -> datetime | None:
    """Return when a firing that could not be fired is tried again, or None when it is given up.

    It is tried `FIRING_TRIES_MAX` times, each time after a rest twice as long, an hour at most, and not once its window has
    passed, counted from the time it was to fire at.
    """
    if tries >= FIRING_TRIES_MAX:
        return None
    again_at = now + pause_after(tries)
    return None if again_at >= scheduled_at + window else again_at


def pause_after(tries: int) -> timedelta:
    """Return how long what failed `tries` times in a row rests."""
    assert tries > 0
    return timedelta(seconds=min(_PAUSE_SECONDS << min(tries - 1, _DOUBLINGS_MAX), _PAUSE_SECONDS_MAX))


def _fired(come: list[datetime], now: datetime, catch_up: CatchUp, catch_up_max: int) -> list[datetime]:
    on_time = [at for at in come if now - at <= _LATE_MAX]
    late = come[: len(come) - len(on_time)]
    match catch_up:
        case CatchUp.NONE:
            return on_time
        case CatchUp.LAST:
            return on_time or late[-1:]
        case CatchUp.ALL:
            return late[-catch_up_max:] + on_time


def _skipped(at: datetime, *, before: int = 0) -> PlannedFiring:
    reason = "Nobody was there to fire it, and its policy is not to make up for it."
    if before:
        reason += f" So it was with {before:,} before it."
    return PlannedFiring(scheduled_at=at, outcome=FiringOutcome.SKIPPED_CATCH_UP, reason=reason)


def _crowded_out(at: datetime) -> PlannedFiring:
    reason = f"{FIRINGS_WAITING_MAX} firings were waiting already."
    return PlannedFiring(scheduled_at=at, outcome=FiringOutcome.SKIPPED_OVERLAP, reason=reason)
