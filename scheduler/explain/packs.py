"""Why a pack stands where it stands, on whom it runs, and why it was tried again."""

from __future__ import annotations

from datetime import datetime
from typing import Final, assert_never

from pipeline.domain.figures import count, counted
from pipeline.domain.lifecycle import AttemptOutcome, PackState
from pipeline.domain.limits import PACK_FAILURES_BEFORE_BISECT, PACK_UNREAD_BEFORE_CONVICTED
from pipeline.domain.reasons import PackReason
from pipeline.ports.explain import (
    AttemptFacts,
    Change,
    Explanation,
    PackFacts,
    PoolFacts,
    Scheduling,
    Subject,
    WorkerFacts,
)
from scheduler.explain.words import about, clock, named, packs, verb

_WENT_WRONG: Final = {
    AttemptOutcome.FAILED: "failed",
    AttemptOutcome.LEASE_LOST: "was lost with its worker",
    AttemptOutcome.PREEMPTED: "was handed back by its worker",
    AttemptOutcome.UNREAD: "could not read its rows",
    AttemptOutcome.CANCELLED: "was cancelled",
    AttemptOutcome.SUCCEEDED: "committed its rows",
}
assert set(_WENT_WRONG) == set(AttemptOutcome)


def explain_pack(facts: PackFacts, seen: Scheduling) -> Explanation:
    """Return why the pack stands where it stands."""
    pool = next((each for each in seen.pools if each.pool == facts.pool), None)
    worker = _holder(facts, pool)
    reason = reason_of(facts, pool, worker, seen)
    sentence, changes = _told(reason, facts, pool, worker, seen.now)
    return Explanation(
        subject=Subject.PACK,
        subject_id=facts.pack_id,
        state=str(facts.state),
        reason=str(reason),
        sentence=sentence,
        since=_since(facts),
        changes=changes,
        notes=_notes(facts),
        figures=_figures(facts, worker, seen.now),
    )


def reason_of(facts: PackFacts, pool: PoolFacts | None, worker: WorkerFacts | None, seen: Scheduling) -> PackReason:
    """Return why the pack stands where it stands, in one word."""
    match facts.state:
        case PackState.COMMITTED:
            return PackReason.COMMITTED
        case PackState.DISCARDED:
            return PackReason.BISECTED if facts.children else PackReason.DISCARDED
        case PackState.LEASED:
            is_silent = worker is not None and worker.silent_seconds > seen.silence_seconds
            return PackReason.WORKER_SILENT if is_silent else PackReason.RUNNING
        case PackState.READY | PackState.RETRYABLE:
            return _waits_for(facts, pool, seen.now)
        case unknown:
            assert_never(unknown)


def _waits_for(facts: PackFacts, pool: PoolFacts | None, now: datetime) -> PackReason:
    live = [share for share in facts.shares if share.is_live]
    checks = (
        (PackReason.CONVICTED, facts.is_convicted),
        (PackReason.WITHDRAWN, not live),
        (PackReason.PAUSED, bool(live) and all(share.is_paused for share in live)),
        (PackReason.NO_WORKER, not _able(facts, pool)),
        (PackReason.RESTING, facts.available_at > now),
        (PackReason.IN_LINE, facts.ahead.packs > 0),
    )
    return next((reason for reason, holds in checks if holds), PackReason.NEXT)


def _told(  # noqa: C901, PLR0911 -- a line for each case there is
    reason: PackReason, facts: PackFacts, pool: PoolFacts | None, worker: WorkerFacts | None, now: datetime
) -> tuple[str, tuple[Change, ...]]:
    more = Change(sentence=f"another worker in pool {facts.pool}", command=f"nightrate worker --pool {facts.pool}")
    able = _able(facts, pool)
    serving = f"of pool {facts.pool} that {verb(len(able), 'serves', 'serve')} {facts.variant}"
    workers = f"the only worker {serving}" if len(able) == 1 else f"the {count(len(able))} workers {serving}"
    match reason:
        case PackReason.NEXT:
            return f"It is next in pool {facts.pool}, as soon as there is room on {workers}.", (more,)
        case PackReason.IN_LINE:
            line = f"{packs(facts.ahead.packs)} ({about(facts.ahead.seconds)} of work)"
            return f"It waits in line behind {line} for {workers}.", (more,)
        case PackReason.RESTING:
            return (
                f"Its last attempt came to nothing, so it rests until {clock(facts.available_at, now)} and runs again.",
                (),
            )
        case PackReason.NO_WORKER:
            return _nobody(facts, pool)
        case PackReason.PAUSED:
            resume = tuple(
                Change(sentence="let its batch go on", command=f"nightrate resume {share.batch_id}")
                for share in facts.shares
                if share.is_paused
            )
            return "All its rows are of paused batches, so no worker takes it.", resume
        case PackReason.WITHDRAWN:
            return "All its batches have ended or were cancelled; the next cycle discards it.", ()
        case PackReason.CONVICTED:
            return f"{_verdict(facts)}; the scheduler gives its rows an error in a moment.", ()
        case PackReason.RUNNING | PackReason.WORKER_SILENT:
            return _running(facts, worker, now, is_silent=reason is PackReason.WORKER_SILENT)
        case PackReason.COMMITTED:
            return f"All its rows have a result; {_took(facts)}.", ()
        case PackReason.BISECTED:
            return (
                f"It failed and was split in two to find the request at fault: {' and '.join(facts.children)}.",
                tuple(
                    Change(sentence="what became of that half", command=f"nightrate explain {child}")
                    for child in facts.children
                ),
            )
        case PackReason.DISCARDED:
            return "Its batches had ended or were cancelled before it ran.", ()
        case unknown:
            assert_never(unknown)


def _able(facts: PackFacts, pool: PoolFacts | None) -> list[WorkerFacts]:
    workers = () if pool is None else pool.workers
    return [worker for worker in workers if worker.takes_packs and facts.variant in worker.variants]


def _holder(facts: PackFacts, pool: PoolFacts | None) -> WorkerFacts | None:
    workers = () if pool is None else pool.workers
    return next((worker for worker in workers if worker.worker_id == facts.worker_id), None)


def _nobody(facts: PackFacts, pool: PoolFacts | None) -> tuple[str, tuple[Change, ...]]:
    workers = [] if pool is None else [worker for worker in pool.workers if worker.takes_packs]
    start = Change(
        sentence=f"a worker of pool {facts.pool} that serves {facts.variant}",
        command=f"nightrate worker --pool {facts.pool}",
    )
    if not workers:
        return f"Pool {facts.pool} has no live worker.", (start,)
    served = sorted({variant for worker in workers for variant in worker.variants})
    number = len(workers)
    nobody = f"No live worker of pool {facts.pool} serves {facts.variant}"
    return (
        f"{nobody}; {verb(number, 'its only one serves', f'its {number:,} serve')} {named(served) or 'nothing yet'}.",
        (start,),
    )


def _running(
    facts: PackFacts, worker: WorkerFacts | None, now: datetime, *, is_silent: bool
) -> tuple[str, tuple[Change, ...]]:
    attempt = facts.attempts[-1] if facts.attempts else None
    since = 0.0 if attempt is None else (now - attempt.started_at).total_seconds()
    on = "the scheduler" if facts.worker_id is None else str(facts.worker_id)
    where = "" if worker is None else f" (pool {worker.pool}, host {worker.host})"
    sentence = f"It has run on {on}{where} for {about(since)} of a predicted {about(facts.predicted_seconds)}"
    if is_silent and worker is not None and facts.lease_expires_at is not None:
        lapse = clock(facts.lease_expires_at, now)
        return (
            f"{sentence}, but that worker has been silent for {about(worker.silent_seconds)}; at {lapse} its lease ends and it runs again.",
            (),
        )
    return f"{sentence}.", ()


def _verdict(facts: PackFacts) -> str:
    last = _last_wrong(facts)
    said = f" ({last.error})" if last is not None and last.error else ""
    if facts.unreads >= PACK_UNREAD_BEFORE_CONVICTED:
        return f"Its rows could not be read {count(facts.unreads)} times{said}"
    return f"Its one request brought every attempt down{said}"


def _took(facts: PackFacts) -> str:
    attempt = facts.attempts[-1] if facts.attempts else None
    if attempt is None or attempt.ended_at is None:
        return f"predicted were {about(facts.predicted_seconds)}"
    seconds = (attempt.ended_at - attempt.started_at).total_seconds()
    where = f" on {attempt.host}" if attempt.host else ""
    return f"its last attempt took {about(seconds)}{where}, predicted were {about(facts.predicted_seconds)}"


def _last_wrong(facts: PackFacts) -> AttemptFacts | None:
    wrong = [each for each in facts.attempts if each.outcome not in {None, AttemptOutcome.SUCCEEDED}]
    return wrong[-1] if wrong else None


def _since(facts: PackFacts) -> datetime:
    match facts.state:
        case PackState.READY:
            return facts.created_at
        case PackState.LEASED:
            return facts.attempts[-1].started_at if facts.attempts else facts.created_at
        case PackState.RETRYABLE:
            ended = facts.attempts[-1].ended_at if facts.attempts else None
            return ended or facts.created_at
        case PackState.COMMITTED | PackState.DISCARDED:
            return facts.ended_at or facts.created_at
        case unknown:
            assert_never(unknown)


def _notes(facts: PackFacts) -> dict[str, str]:
    rows = sum(share.rows for share in facts.shares)
    notes = {
        "runs": f"{counted(rows, 'row')} on {facts.variant}, tier {facts.tier}, pool {facts.pool}; {count(facts.rows_done)} done"
    }
    batches = [
        f"{share.batch_id} ({counted(share.rows, 'row')}{', paused' if share.is_paused else ''})"
        for share in facts.shares
    ]
    if batches:
        notes["batches"] = ", ".join(batches)
    last = _last_wrong(facts)
    if last is not None and last.outcome is not None:
        said = f": {last.error}" if last.error else ""
        notes["retried"] = (
            f"attempt {last.lease_token} of {len(facts.attempts)} {_WENT_WRONG[last.outcome]}{said}{_next_step(facts)}"
        )
    if facts.parent_id is not None:
        notes["half of"] = f"{facts.parent_id}, which failed"
    return notes


def _next_step(facts: PackFacts) -> str:
    """Return what another failure would bring about."""
    if facts.state.is_terminal or facts.is_convicted:
        return ""
    if facts.failures and not facts.is_suspect and facts.failures < PACK_FAILURES_BEFORE_BISECT:
        return "; failing once more, it is split in two to find the request at fault"
    if facts.is_suspect:
        return "; its rows failed together before, so it is split in two again if it fails"
    return ""


def _figures(
    facts: PackFacts, worker: WorkerFacts | None, now: datetime
) -> dict[str, str | float | datetime | bool | None]:
    attempt = facts.attempts[-1] if facts.attempts else None
    is_running = facts.state is PackState.LEASED and attempt is not None
    return {
        "pool": facts.pool,
        "variant": facts.variant,
        "tier": str(facts.tier),
        "rows": sum(share.rows for share in facts.shares),
        "rows_done": facts.rows_done,
        "attempts": len(facts.attempts),
        "failures": facts.failures,
        "unreads": facts.unreads,
        "packs_ahead": facts.ahead.packs,
        "seconds_ahead": round(facts.ahead.seconds, 3),
        "predicted_seconds": round(facts.predicted_seconds, 3),
        "running_seconds": round((now - attempt.started_at).total_seconds(), 3) if is_running and attempt else None,
        "worker": facts.worker_id,
        "host": None if worker is None else worker.host,
        "available_at": facts.available_at,
        "lease_expires_at": facts.lease_expires_at,
    }
