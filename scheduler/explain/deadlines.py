"""Whether a batch is likely to be done in time, what was promised of that, and what would help."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from pipeline.domain.limits import WINDOW_SECONDS_MAX
from pipeline.domain.promises import Promise
from pipeline.domain.reasons import Reason
from pipeline.ports.batches import BatchView
from pipeline.ports.explain import Change
from scheduler.explain.forecast import Prospect
from scheduler.explain.words import clock, instant, when

#: Added to a deadline that could be promised now, because it is asked about later.
_TYPING: Final = timedelta(minutes=2)
#: Reasons of batches that compete for workers or have them.
_MOVING: Final = frozenset({Reason.QUEUED, Reason.RUNNING, Reason.ALL_PACKED})


class Outcome(StrEnum):
    """What is likely to become of a deadline, if nothing comes and no worker goes."""

    LIKELY = "likely"
    AT_RISK = "at_risk"
    UNLIKELY = "unlikely"
    #: It does not run now, so that it cannot be told.
    UNKNOWN = "unknown"


def outcome_of(view: BatchView, prospect: Prospect | None, now: datetime) -> Outcome:
    """Return what is likely to become of the batch's deadline."""
    if prospect is None or view.reason not in _MOVING:
        return Outcome.UNKNOWN
    soonest, latest = prospect.finish_seconds
    left = (view.deadline_at - now).total_seconds()
    if latest <= left:
        return Outcome.LIKELY
    return Outcome.UNLIKELY if soonest > left else Outcome.AT_RISK


def deadline_note(view: BatchView, prospect: Prospect | None, outcome: Outcome, now: datetime) -> str:
    """Return what is to be said of the deadline, in one sentence without its full stop."""
    likely = {
        Outcome.LIKELY: "; likely met",
        Outcome.AT_RISK: "; at risk as the queue stands",
        Outcome.UNLIKELY: "; not to be met as the queue stands",
        Outcome.UNKNOWN: "",
    }[outcome]
    return f"{when(view.deadline_at, now)}; {_promise(view, prospect, now)}{likely}"


def changes_for(
    view: BatchView, prospect: Prospect | None, outcome: Outcome | None, now: datetime
) -> tuple[Change, ...]:
    """Return what would have a deadline promised that is not."""
    at = _askable(prospect, now)
    is_wanted = view.promise is Promise.DECLINED or outcome in {Outcome.AT_RISK, Outcome.UNLIKELY}
    if view.promise is Promise.MADE or not is_wanted or at is None:
        return ()
    if at <= view.deadline_at:
        sentence, at = "asked again, its deadline would be promised now", view.deadline_at
    else:
        sentence = "a deadline that can be promised"
    return (Change(sentence=sentence, command=f"nightrate change {view.batch_id} --deadline {instant(at)}"),)


def _promise(view: BatchView, prospect: Prospect | None, now: datetime) -> str:  # noqa: PLR0911 -- a line for each case there is
    match view.promise:
        case Promise.MADE:
            if view.paused_at is not None:
                return "promised, but nothing is kept for it while it is paused"
            if prospect is None:
                return "promised, but no live worker can keep that now"
            return "promised, so it goes before all others when time gets short"
        case Promise.DECLINED:
            at = None if prospect is None else prospect.promisable_at
            if at is None:
                return "not promised"
            if at <= view.deadline_at:
                return "not promised, though it could be by now"
            return f"not promised: the earliest that could be is {clock(at, now)}"
        case Promise.PENDING:
            if view.paused_at is not None:
                return "not promised yet: a paused batch is not asked about"
            if prospect is None:
                return "not promised yet: no worker could keep it"
            return "not promised yet: the next cycle answers"


def _askable(prospect: Prospect | None, now: datetime) -> datetime | None:
    """Return the promisable deadline to the full minute, late enough to be typed; None where none can be asked for."""
    if prospect is None or prospect.promisable_at is None:
        return None
    at = (prospect.promisable_at + _TYPING).replace(second=0, microsecond=0)
    return at if at - now < timedelta(seconds=WINDOW_SECONDS_MAX) else None
