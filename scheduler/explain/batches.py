"""Why a batch stands where it stands, what would change it, and whether it is likely to be done in time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, assert_never

from pipeline.domain.figures import count, counted, money
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.explain import BatchFacts, Change, Explanation, Scheduling, Subject
from scheduler.explain.budgets import over_budget, over_shared_budget
from scheduler.explain.deadlines import Outcome, changes_for, deadline_note, outcome_of
from scheduler.explain.forecast import Forecast, Prospect, Turn
from scheduler.explain.nobody import nobody_serves, some_will_serve
from scheduler.explain.turns import outranked
from scheduler.explain.words import about, clock, named, of_tiers, packs, verb, when

#: The reasons of batches that have not ended, in the order in which they want a person's attention.
WORST_FIRST: Final = (
    Reason.NO_WORKER,
    Reason.WORKER_COMING,
    Reason.BUDGET_REACHED,
    Reason.PROJECT_BUDGET_REACHED,
    Reason.TENANT_BUDGET_REACHED,
    Reason.DEADLINE_PASSED,
    Reason.QUEUED,
    Reason.USER_PAUSED,
    Reason.HELD,
    Reason.RUNNING,
    Reason.ALL_PACKED,
)

#: What starts deciding again.
_SCHEDULER: Final = Change(sentence="a scheduler: `nightrate scheduler`, or a stack of its own", command="nightrate up")

Told = tuple[str, tuple[Change, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """All that there is to tell of one batch."""

    facts: BatchFacts
    seen: Scheduling
    prospect: Prospect | None
    #: Of a contended pool, relative to one another.
    weights: Mapping[Tier, float]

    @property
    def command(self) -> str:
        return f"nightrate change {self.facts.view.batch_id}"

    @property
    def rows_left(self) -> int:
        view = self.facts.view
        distinct = view.rows_total - view.rows_duplicate - view.rows_refused
        return max(0, distinct - view.rows_succeeded - view.rows_errored)


def explain_batch(facts: BatchFacts, seen: Scheduling, forecast: Forecast) -> Explanation:
    """Return why the batch stands where it stands."""
    view = facts.view
    is_open = view.state is BatchState.IN_PROGRESS
    prospect = forecast.batch(view.batch_id) if is_open else None
    case = _Case(facts=facts, seen=seen, prospect=prospect, weights=forecast.tier_weights)
    sentence, changes = _by_state(case)
    outcome = outcome_of(view, case.prospect, seen.now) if is_open else None
    if is_open:
        changes += changes_for(view, case.prospect, outcome, seen.now)
    if not view.state.is_terminal and not seen.has_leader:
        changes = (_SCHEDULER, *changes)
    return Explanation(
        subject=Subject.BATCH,
        subject_id=view.batch_id,
        state=str(view.state),
        reason=str(view.reason or view.state),
        sentence=sentence,
        since=facts.reason_at or view.entered_at.get(view.state),
        changes=_without_repeats(changes),
        notes=_notes(case, outcome),
        figures=_figures(case, outcome),
    )


def _by_state(case: _Case) -> Told:
    view = case.facts.view
    match view.state:
        case BatchState.VALIDATING:
            return f"Its input file is being read and checked{_trouble(case)}.", ()
        case BatchState.CANCELLING:
            return f"It was cancelled, and what is done is being written{_still_running(case)}{_trouble(case)}.", ()
        case BatchState.FINALIZING:
            begun = "Its window ended" if view.reason is Reason.DEADLINE_PASSED else "Every row has a result"
            return f"{begun}; the output files are being written{_still_running(case)}{_trouble(case)}.", ()
        case (
            BatchState.IN_PROGRESS
            | BatchState.FAILED
            | BatchState.COMPLETED
            | BatchState.EXPIRED
            | BatchState.CANCELLED
        ):
            return _by_reason(case, view.reason or Reason.QUEUED)
        case unknown:
            assert_never(unknown)


def _by_reason(case: _Case, reason: Reason) -> Told:  # noqa: C901, PLR0911, PLR0912 -- a line for each reason there is
    match reason:
        case Reason.QUEUED:
            return _queued(case)
        case Reason.RUNNING:
            return _running(case)
        case Reason.NO_WORKER:
            return nobody_serves(case.facts, case.seen)
        case Reason.WORKER_COMING:
            return some_will_serve(case.facts, case.seen)
        case Reason.USER_PAUSED:
            return _paused(case)
        case Reason.HELD:
            return _held(case)
        case Reason.BUDGET_REACHED:
            return over_budget(case.facts, case.prospect, rows_left=case.rows_left)
        case Reason.PROJECT_BUDGET_REACHED | Reason.TENANT_BUDGET_REACHED:
            return over_shared_budget(case.facts, case.seen.snapshot.budgets, rows_left=case.rows_left)
        case Reason.ALL_PACKED:
            return _all_packed(case)
        case Reason.BAD_INPUT | Reason.QUOTA_REACHED | Reason.RESULTS_LOST | Reason.PROMISE_DECLINED:
            return _failed(case)
        case Reason.DEADLINE_PASSED:
            return _expired(case)
        case Reason.USER_CANCELLED:
            return _cancelled(case)
        case Reason.ALL_COMMITTED:
            return _done(case)
        case unknown:
            assert_never(unknown)


# --- before it runs ----------------------------------------------------------------------------


def _queued(case: _Case) -> Told:
    if not case.seen.has_leader:
        return "It waits for a scheduler: none leads, so nothing new is packed.", ()
    if case.prospect is None:
        return "No worker that lives now serves it; the next cycle looks at it.", ()
    turn = case.prospect.turn
    if turn is None:
        return "It was changed just now; the next cycle looks at it.", ()
    where = f"in pool {turn.pool}"
    busy = (
        f"{packs(turn.packs_waiting)} {verb(turn.packs_waiting, 'waits', 'wait')} for {counted(turn.workers, 'worker')}"
    )
    if turn.is_pressing:
        return f"It is next {where}, because its promised deadline is near; {busy}.", ()
    if not turn.before.batches:
        return f"It is next {where}: it gets a pack as soon as there is room; {busy}.", _faster(case, turn)
    claim = (
        f"whose next {about(turn.before.seconds)} of work {verb(turn.before.batches, 'has', 'have')} the better claim"
    )
    own = outranked(turn.before, case.facts.view.priority)
    return f"It waits for its turn {where} behind {of_tiers(turn.before.tiers)}, {claim}{own}; {busy}.", _faster(
        case, turn
    )


def _faster(case: _Case, turn: Turn) -> tuple[Change, ...]:
    """Return what brings a turn sooner: a tier of greater weight, and more workers."""
    view = case.facts.view
    changes = []
    weights = case.weights
    if turn.others and (better := _next_better(view.tier, weights)) is not None:
        times = weights[better] / weights[view.tier]
        changes.append(
            Change(
                sentence=f"tier {better} has {times:g} times the share of {view.tier}",
                command=f"{case.command} --tier {better}",
            )
        )
    if turn.before.highest_priority is not None:
        changes.insert(
            0,
            Change(
                sentence=f"with priority {turn.before.highest_priority} it takes turns with those that go first",
                command=f"{case.command} --priority {turn.before.highest_priority}",
            ),
        )
    changes.append(_more_workers(turn.pool))
    return tuple(changes)


def _more_workers(pool: str) -> Change:
    return Change(sentence=f"another worker in pool {pool}", command=f"nightrate worker --pool {pool}")


def _next_better(tier: Tier, weights: Mapping[Tier, float]) -> Tier | None:
    better = [other for other in Tier if weights[other] > weights[tier]]
    return min(better, key=lambda other: weights[other], default=None)


def _paused(case: _Case) -> Told:
    view, facts = case.facts.view, case.facts
    if view.paused_at is None:
        return "It was resumed just now; the next cycle looks at it.", ()
    resume = Change(sentence="let it go on", command=f"nightrate resume {view.batch_id}")
    left = f"{counted(case.rows_left, 'row')} {verb(case.rows_left, 'is', 'are')} left"
    running = (
        f"; {packs(facts.leased.packs)} still {verb(facts.leased.packs, 'runs', 'run')}" if facts.leased.packs else ""
    )
    return f"Its user paused it; {left}{running}, and its window goes on.", (resume,)


def _held(case: _Case) -> Told:
    view = case.facts.view
    start = Change(sentence="let it start now", command=f"{case.command} --hold-until none")
    if view.hold_until is None or view.hold_until <= case.seen.now:
        return "What held it back is over; the next cycle looks at it.", ()
    until = f"It is held back until {when(view.hold_until, case.seen.now)}"
    start_by = None if case.prospect is None else case.prospect.start_by
    if start_by is not None and start_by < view.hold_until:
        return f"{until}; to be safe for its deadline it starts by {clock(start_by, case.seen.now)} already.", (start,)
    return f"{until}; its deadline leaves time for that.", (start,)


# --- while it runs -----------------------------------------------------------------------------


def _running(case: _Case) -> Told:
    facts = case.facts
    turn = None if case.prospect is None else case.prospect.turn
    beside = ""
    changes: tuple[Change, ...] = ()
    if turn is not None:
        changes = _faster(case, turn)
        if turn.others:
            beside = f"; pool {turn.pool} is shared with {of_tiers(turn.others)}"
    if case.prospect is not None and case.prospect.waits_for_budget:
        beside = "; they may cost all that its budget leaves, so nothing new starts until one has ended"
        changes = (Change(sentence="a higher budget, or none", command=f"{case.command} --max-cost none"),)
    if not facts.leased.packs:
        waiting = facts.waiting.packs
        if not waiting:
            return f"It is about to run: the next cycle packs more of its rows{beside}.", changes
        return f"It is about to run: {packs(waiting)} {verb(waiting, 'waits', 'wait')} for a worker{beside}.", changes
    done = f"{packs(facts.leased.packs)} {verb(facts.leased.packs, 'runs', 'run')} on {named(facts.hosts)}"
    queued = (
        f", {count(facts.waiting.packs)} more {verb(facts.waiting.packs, 'waits', 'wait')}"
        if facts.waiting.packs
        else ""
    )
    return f"It runs: {done}{queued}{beside}.", changes


def _all_packed(case: _Case) -> Told:
    facts = case.facts
    if not facts.leased.packs and not facts.waiting.packs:
        return "All its rows are packed and the last pack has just ended; the next cycle closes the batch.", ()
    parts = []
    if facts.leased.packs:
        parts.append(f"{packs(facts.leased.packs)} {verb(facts.leased.packs, 'runs', 'run')} on {named(facts.hosts)}")
    if facts.waiting.packs:
        parts.append(f"{packs(facts.waiting.packs)} {verb(facts.waiting.packs, 'waits', 'wait')} for a worker")
    return f"All its rows are packed: {' and '.join(parts)}.", ()


def _still_running(case: _Case) -> str:
    number = case.facts.leased.packs
    return (
        f" once {packs(number)} that {verb(number, 'runs', 'run')} still {verb(number, 'has', 'have')} ended"
        if number
        else ""
    )


def _trouble(case: _Case) -> str:
    trouble = case.facts.view.trouble
    return f"; the last try failed ({trouble}), and it is tried again" if trouble else ""


# --- after it ran ------------------------------------------------------------------------------


def _results(case: _Case, sentence: str = "its results are there") -> tuple[Change, ...]:
    view = case.facts.view
    if view.output_file_id is None:
        return ()
    return (Change(sentence=sentence, command=f"nightrate results {view.batch_id}"),)


def _done(case: _Case) -> Told:
    view = case.facts.view
    failed = view.rows_failed if view.rows_failed is not None else view.rows_errored + view.rows_refused
    ok = view.rows_completed if view.rows_completed is not None else view.rows_succeeded
    cost = money(view.cost_micros, view.currency)
    return f"Every row has its result: {count(ok)} ok, {count(failed)} failed, for {cost}.", _results(case)


def _failed(case: _Case) -> Told:
    view = case.facts.view
    listed = Change(sentence="what is wrong, line by line", command=f"nightrate show {view.batch_id}")
    first = view.errors[0] if view.errors else None
    said = "" if first is None else f": {f'line {first.line}: ' if first.line else ''}{first.message.rstrip('.')}"
    if view.reason is Reason.RESULTS_LOST:
        return f"The object store lost what its result files are made from{said}.", (listed,)
    if view.reason is Reason.PROMISE_DECLINED:
        offers = Change(sentence="what could be promised instead", command="nightrate quote FILE")
        return f"It was to run with a promise or not at all{said}; nothing ran and nothing was charged.", (offers,)
    if view.reason is Reason.QUOTA_REACHED:
        plan = Change(
            sentence="what the plan has and what is left of it", command=f"nightrate plans show {view.tenant_id}"
        )
        return f"The tenant's plan has no room for it{said}; nothing ran and nothing was charged.", (plan,)
    number = max(1, view.errors_total)
    wrong = (
        f"{counted(number, 'line')} of its input {verb(number, 'is', 'are')} wrong"
        if number > 1
        else "Its input is wrong"
    )
    return f"{wrong}{said}; nothing ran and nothing was charged.", (
        listed,
        Change(sentence="submit the corrected file", command="nightrate submit FILE"),
    )


def _expired(case: _Case) -> Told:
    view = case.facts.view
    done = count(view.rows_completed if view.rows_completed is not None else view.rows_succeeded)
    sentence = f"Its window ended at {clock(view.deadline_at, case.seen.now)} with {done} of {counted(view.rows_total, 'row')} done."
    again = Change(
        sentence="the rows that did not run, listed in the error file, can be submitted again with a longer window",
        command="nightrate submit FILE --window 24h",
    )
    return sentence, (*_results(case, "what was done is there"), again)


def _cancelled(case: _Case) -> Told:
    view = case.facts.view
    done = count(view.rows_completed if view.rows_completed is not None else view.rows_succeeded)
    return f"Its user cancelled it with {done} of {counted(view.rows_total, 'row')} done.", _results(
        case, "what was done is there"
    )


# --- what else is worth knowing ------------------------------------------------------------------


def _notes(case: _Case, outcome: Outcome | None) -> dict[str, str]:
    view, facts, prospect = case.facts.view, case.facts, case.prospect
    notes: dict[str, str] = {}
    if view.state is not BatchState.IN_PROGRESS:
        return notes
    done = view.rows_succeeded + view.rows_errored
    notes["rows"] = f"{count(done)} of {count(done + case.rows_left)} done"
    if outcome is not None:
        notes["deadline"] = deadline_note(view, prospect, outcome, case.seen.now)
    if prospect is not None and view.reason in {Reason.QUEUED, Reason.RUNNING, Reason.ALL_PACKED}:
        soon, late = (case.seen.now + timedelta(seconds=seconds) for seconds in prospect.finish_seconds)
        guess = "" if prospect.is_measured else "; a guess, for nothing of this model has run here yet"
        notes["ends"] = (
            f"between {clock(soon, case.seen.now)} and {clock(late, case.seen.now)} if nothing else comes: "
            f"{about(prospect.seconds_left)} of work left for {counted(prospect.workers, 'worker')}{guess}"
        )
    if facts.failed_packs and view.reason is not Reason.NO_WORKER:
        last = f"; the last said: {facts.last_error}" if facts.last_error else ""
        notes["retries"] = (
            f"{packs(facts.failed_packs)} failed and {verb(facts.failed_packs, 'runs', 'run')} again{last}"
        )
    if not case.seen.has_leader:
        notes["scheduler"] = "none leads: what is packed runs on, and nothing new is decided"
    return notes


def _figures(case: _Case, outcome: Outcome | None) -> dict[str, str | float | datetime | bool | None]:
    view, facts, prospect = case.facts.view, case.facts, case.prospect
    turn = None if prospect is None else prospect.turn
    soon, late = (None, None) if prospect is None else prospect.finish_seconds
    return {
        "rows_left": case.rows_left,
        "packs_running": facts.leased.packs,
        "packs_waiting": facts.waiting.packs,
        "packs_failed": facts.failed_packs,
        "pool": None if turn is None else turn.pool,
        "workers": 0 if prospect is None else prospect.workers,
        "batches_before": None if turn is None else turn.before.batches,
        "seconds_before": None if turn is None else round(turn.before.seconds, 3),
        "starts_in_seconds": None if turn is None else round(turn.seconds, 3),
        "work_seconds_left": None if prospect is None else round(prospect.seconds_left, 3),
        "ends_in_seconds_soonest": soon and round(soon, 3),
        "ends_in_seconds_latest": late and round(late, 3),
        "deadline_at": view.deadline_at,
        "promise": str(view.promise),
        "deadline_outlook": outcome and str(outcome),
        "promisable_at": None if prospect is None else prospect.promisable_at,
        "hold_until": view.hold_until,
        "cost_micros": view.cost_micros,
        "budget_micros": view.budget_micros,
        "has_scheduler": case.seen.has_leader,
    }


def _without_repeats(changes: tuple[Change, ...]) -> tuple[Change, ...]:
    found: dict[str, Change] = {}
    for change in changes:
        found.setdefault(change.command or change.sentence, change)
    return tuple(found.values())
