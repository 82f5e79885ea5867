"""What a batch's tenant may hear of why it stands where it stands: of itself all, of other tenants and of workers nothing.

An explanation is made for those who run the installation: it counts the batches of others, and names pools, workers and
hosts. Here is told only what is listed, so that what is added to explanations stays with them until it is listed too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from pipeline.domain.lifecycle import BatchState
from pipeline.domain.reasons import Reason
from pipeline.ports.explain import BatchFacts, Change, Explanation, Scheduling
from scheduler.explain.forecast import Forecast, Prospect
from scheduler.explain.turns import outranked
from scheduler.explain.words import packs, verb

#: Reasons of batches that are under way, so that their end can be foreseen.
_MOVING: Final = frozenset({Reason.QUEUED, Reason.RUNNING, Reason.ALL_PACKED})
#: What says nothing of others or of workers.
_NOTES: Final = frozenset({"rows", "deadline"})
_FIGURES: Final = frozenset({
    "rows_left", "packs_running", "packs_waiting", "packs_failed", "work_seconds_left", "ends_in_seconds_soonest",
    "ends_in_seconds_latest", "deadline_at", "promise", "deadline_outlook", "promisable_at", "hold_until", "cost_micros",
    "budget_micros",
})  # fmt: skip
#: What a tenant can do about its batch; the rest is for those who run the workers.
_COMMANDS: Final = tuple(f"nightrate {name} " for name in ("change", "resume", "results", "show", "submit", "quote"))
_SENTENCES: Final[Mapping[BatchState, str]] = {
    BatchState.VALIDATING: "Its input file is being read and checked.",
    BatchState.CANCELLING: "It was cancelled, and what is done is being written.",
    BatchState.FINALIZING: "Its output files are being written.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Eta:
    """When a batch is likely to end, if nothing else comes and no worker goes."""

    #: With every worker to itself, and after all that is queued now.
    earliest: datetime
    latest: datetime

    @property
    def likely(self) -> datetime:
        """Return the middle of the two: what is not known is not weighed."""
        return self.earliest + (self.latest - self.earliest) / 2


def eta_of(facts: BatchFacts, seen: Scheduling, forecast: Forecast) -> Eta | None:
    """Return when a batch is likely to end; None where nothing can be said: it does not run now, or nobody serves it."""
    prospect = _prospect(facts, forecast)
    if prospect is None or facts.view.reason not in _MOVING:
        return None
    soonest, latest = prospect.finish_seconds
    return Eta(earliest=seen.now + timedelta(seconds=soonest), latest=seen.now + timedelta(seconds=latest))


def for_tenant(told: Explanation, facts: BatchFacts, seen: Scheduling, forecast: Forecast) -> Explanation:
    """Return an explanation of a batch as its tenant may hear it."""
    return replace(
        told,
        sentence=_sentence(told, facts, seen, _prospect(facts, forecast)),
        changes=tuple(
            Change(sentence=change.sentence) for change in told.changes if (change.command or "").startswith(_COMMANDS)
        ),
        notes={name: note for name, note in told.notes.items() if name in _NOTES},
        figures={name: figure for name, figure in told.figures.items() if name in _FIGURES},
    )


def _prospect(facts: BatchFacts, forecast: Forecast) -> Prospect | None:
    return forecast.batch(facts.view.batch_id) if facts.view.state is BatchState.IN_PROGRESS else None


def _sentence(told: Explanation, facts: BatchFacts, seen: Scheduling, prospect: Prospect | None) -> str:
    view = facts.view
    if view.state in _SENTENCES:
        return _SENTENCES[view.state]
    match view.reason:
        case Reason.QUEUED:
            return _queued(facts, seen, prospect)
        case Reason.NO_WORKER:
            return "No worker that lives now serves it."
        case Reason.WORKER_COMING:
            return "No worker serves it now; the fleet starts some when that pays, and in time."
        case Reason.RUNNING | Reason.ALL_PACKED:
            return _under_way(facts)
        case _:
            return told.sentence


def _queued(facts: BatchFacts, seen: Scheduling, prospect: Prospect | None) -> str:
    if not seen.has_leader:
        return "It waits for the scheduler, which is away."
    turn = None if prospect is None else prospect.turn
    if turn is None:
        return "The next cycle of the scheduler looks at it."
    if turn.is_pressing:
        return "It is next, because its promised deadline is near."
    return f"It waits for its turn{outranked(turn.before, facts.view.priority)}."


def _under_way(facts: BatchFacts) -> str:
    running, waiting = facts.leased.packs, facts.waiting.packs
    begun = "All its rows are packed" if facts.view.reason is Reason.ALL_PACKED else "It runs"
    parts = [
        *([f"{packs(running)} {verb(running, 'runs', 'run')}"] if running else []),
        *([f"{packs(waiting)} {verb(waiting, 'waits', 'wait')}"] if waiting else []),
    ]
    return f"{begun}: {' and '.join(parts)}." if parts else f"{begun}; the next cycle of the scheduler looks at it."
