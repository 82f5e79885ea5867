"""Why no live worker runs a batch: none lives, none serves its model, or what serves it may not run its tier."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.domain.figures import counted
from pipeline.domain.gates import GateVerdict
from pipeline.domain.lifecycle import WorkerState
from pipeline.domain.tiers import Tier
from pipeline.ports.explain import BatchFacts, Candidate, Change, Scheduling, WorkerFacts
from scheduler.explain.words import named, verb

_COMING = frozenset({WorkerState.REQUESTED, WorkerState.BOOTING})


def nobody_serves(facts: BatchFacts, seen: Scheduling) -> tuple[str, tuple[Change, ...]]:
    """Return who lives and why they do not run it, and what would."""
    view = facts.view
    model = ", ".join(view.models) or "its model"
    workers = [worker for pool in seen.pools for worker in pool.workers if worker.takes_packs]
    if not workers:
        return f"No worker is alive, so nothing can run {model}.", _start(has_leader=seen.has_leader)
    served = {variant for worker in workers for variant in worker.variants}
    if served & set(view.models):
        return f"A worker that serves {model} has just come; the next cycle looks at it.", ()
    if facts.candidates:
        return _not_accepted(facts, model)
    number = len(workers)
    tried = f" A worker that tried it said: {facts.last_error}." if facts.last_error else ""
    return (
        f"None of the {counted(number, 'live worker')} serves {model}; they serve {_served(workers)}.{tried}"
        if number > 1
        else f"The only live worker does not serve {model}; it serves {_served(workers)}.{tried}",
        (
            Change(
                sentence=f"a worker that can load {model}",
                command="nightrate worker",
            ),
            Change(sentence="which models are known, and of what", command="nightrate models list"),
        ),
    )


def some_will_serve(facts: BatchFacts, seen: Scheduling) -> tuple[str, tuple[Change, ...]]:
    """Return whether workers are on their way to a batch that none serves, and how to see why or why not."""
    model = ", ".join(facts.view.models) or "its model"
    coming = [worker for pool in seen.pools for worker in pool.workers if worker.state in _COMING]
    look = Change(sentence="what the fleet is to have, and why", command="nightrate fleet")
    if coming:
        return (
            f"No worker serves {model} now; {counted(len(coming), 'worker')} {verb(len(coming), 'is', 'are')} starting.",
            (look,),
        )
    return f"No worker serves {model} now; the fleet starts some when that pays, and in time for the deadline.", (look,)


def _start(*, has_leader: bool) -> tuple[Change, ...]:
    if not has_leader:
        return (Change(sentence="start scheduler and workers", command="nightrate up"),)
    # A second `up` leaves the workers of the first as they are.
    return (
        Change(sentence="start a worker", command="nightrate worker"),
        Change(
            sentence="or the stack of this machine again, with workers",
            command="nightrate down && nightrate up --workers 1",
        ),
    )


def _served(workers: Iterable[WorkerFacts]) -> str:
    by_pool: dict[str, set[str]] = {}
    for worker in workers:
        by_pool.setdefault(worker.pool, set()).update(worker.variants)
    return "; ".join(f"{named(variants) or 'nothing yet'} (pool {pool})" for pool, variants in sorted(by_pool.items()))


def _not_accepted(facts: BatchFacts, model: str) -> tuple[str, tuple[Change, ...]]:
    view = facts.view
    nearest = min(facts.candidates, key=lambda each: (_rank(each.verdict), each.variant))
    said = {
        None: f"was not qualified for tier {view.tier} yet",
        GateVerdict.UNDECIDED: f"was tried for tier {view.tier} without a result either way",
        GateVerdict.REJECTED: f"was rejected for tier {view.tier}",
    }.get(nearest.verdict, f"may not run tier {view.tier}")
    where = f"pool {', '.join(nearest.pools)}"
    changes = []
    if nearest.verdict is not GateVerdict.REJECTED:
        changes.append(
            Change(
                sentence="let the gate compare it with its reference",
                command=f"nightrate models qualify {nearest.variant}",
            )
        )
    changes.append(
        Change(
            sentence="or allow it by hand",
            command=f'nightrate models allow {nearest.variant} --tier {view.tier} --why "…"',
        )
    )
    changes += _other_tier(nearest, view.batch_id)
    changes.append(Change(sentence=f"or a worker that serves {model} itself", command="nightrate worker"))
    return f"No live worker serves {model} itself, and {nearest.variant} ({where}) {said}.", tuple(changes)


def _other_tier(candidate: Candidate, batch_id: str) -> list[Change]:
    accepted = [tier for tier in Tier if tier in candidate.tiers]
    if not accepted:
        return []
    return [
        Change(
            sentence=f"or the batch in a tier that {candidate.variant} was accepted for",
            command=f"nightrate change {batch_id} --tier {accepted[0]}",
        )
    ]


def _rank(verdict: GateVerdict | None) -> int:
    # What is nearest to being allowed first.
    return {None: 0, GateVerdict.UNDECIDED: 1}.get(verdict, 2)
