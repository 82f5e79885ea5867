"""Why a pool is idle, busy or full, whose turn is next, and how many workers it would take."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from pipeline.domain.figures import counted
from pipeline.domain.lifecycle import WorkerState
from pipeline.domain.reasons import PoolReason
from pipeline.ports.cycle import Backlog
from pipeline.ports.explain import Change, Explanation, PoolFacts, Scheduling, Subject, WorkerFacts
from scheduler.explain.forecast import Forecast
from scheduler.explain.turns import Line
from scheduler.explain.words import about, named, packs, verb

_STARTING = frozenset({WorkerState.REQUESTED, WorkerState.BOOTING})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    facts: PoolFacts
    seen: Scheduling
    line: Line | None
    room: int
    workers_wanted: int
    hopeless: int

    @property
    def takers(self) -> list[WorkerFacts]:
        return [worker for worker in self.facts.workers if worker.takes_packs]

    @property
    def competing(self) -> int:
        return 0 if self.line is None else len(self.line.contenders)


def explain_pool(facts: PoolFacts, seen: Scheduling, forecast: Forecast) -> Explanation:
    """Return why the pool runs what it runs, and no more."""
    wanted, hopeless = forecast.workers_wanted(facts.pool)
    case = _Case(
        facts=facts,
        seen=seen,
        line=forecast.line(facts.pool),
        room=forecast.room(facts.pool),
        workers_wanted=wanted,
        hopeless=hopeless,
    )
    reason = reason_of(facts, competing=case.competing, room=case.room, has_leader=seen.has_leader)
    sentence, changes = _told(reason, case)
    return Explanation(
        subject=Subject.POOL,
        subject_id=facts.pool,
        state=f"{counted(len(facts.workers), 'worker')}",
        reason=str(reason),
        sentence=sentence,
        since=_since(reason, facts),
        changes=_merged(changes, _wanted(reason, case)),
        notes=_notes(case),
        figures=_figures(case),
    )


def reason_of(facts: PoolFacts, *, competing: int, room: int, has_leader: bool) -> PoolReason:
    """Return in one word why the pool runs no more than it does."""
    takers = [worker for worker in facts.workers if worker.takes_packs]
    is_busy = facts.leased.packs > 0
    has_work = facts.waiting.packs > 0 or competing > 0
    checks = (
        (PoolReason.NO_WORKERS, not facts.workers),
        (PoolReason.DRAINING, not takers),
        (PoolReason.STARTING, not is_busy and all(worker.state in _STARTING for worker in takers)),
        (PoolReason.FULL, facts.waiting.packs > 0 and all(worker.packs > 0 for worker in takers)),
        (PoolReason.BLOCKED, not has_leader and competing > 0),
        (PoolReason.STRANDED, facts.stranded.packs > 0 and not is_busy and not has_work),
        (
            PoolReason.FILLING,
            has_work and (room > 0 or facts.waiting.packs > 0) and not all(worker.packs for worker in takers),
        ),
        (PoolReason.BUSY, is_busy),
    )
    return next((reason for reason, holds in checks if holds), PoolReason.IDLE)


def _told(reason: PoolReason, case: _Case) -> tuple[str, tuple[Change, ...]]:  # noqa: PLR0911 -- a line for each case there is
    facts = case.facts
    start = Change(sentence=f"a worker of pool {facts.pool}", command=f"nightrate worker --pool {facts.pool}")
    queued = facts.waiting.packs + facts.stranded.packs
    match reason:
        case PoolReason.NO_WORKERS:
            left = f"; {packs(queued)} {verb(queued, 'waits', 'wait')} for one" if queued else ""
            return f"It has no live worker{left}.", (start,)
        case PoolReason.DRAINING:
            leaving = "Its worker was" if len(facts.workers) == 1 else f"All its {len(facts.workers):,} workers were"
            return f"{leaving} told to stop and {verb(len(facts.workers), 'takes', 'take')} nothing new.", (start,)
        case PoolReason.STARTING:
            starting = "Its worker is" if len(case.takers) == 1 else f"Its {len(case.takers):,} workers are"
            return f"{starting} starting.", ()
        case PoolReason.FULL:
            return (
                f"{_every(case)} is busy, and {packs(facts.waiting.packs)} ({about(facts.waiting.seconds)} of work) {verb(facts.waiting.packs, 'waits', 'wait')}{_behind(case)}.",
                (start,),
            )
        case PoolReason.BLOCKED:
            lead = Change(sentence="a scheduler that leads", command="nightrate up")
            return f"No scheduler leads, so the rows of {_batches(case.competing)} are not packed.", (lead,)
        case PoolReason.STRANDED:
            return (
                f"It is idle beside {packs(facts.stranded.packs)} of {named(facts.stranded_variants)}, which none of its workers serves.",
                (start,),
            )
        case PoolReason.FILLING:
            return (
                f"{_idle(case)} about to take a pack: {packs(facts.waiting.packs)} {verb(facts.waiting.packs, 'waits', 'wait')}, {_batches(case.competing)} {verb(case.competing, 'has', 'have')} rows to pack.",
                (),
            )
        case PoolReason.BUSY:
            left = _batches(case.competing)
            rest = (
                f"{left} {verb(case.competing, 'has', 'have')} rows to pack"
                if case.competing
                else "no other work is there for it"
            )
            return f"{_running(case)}; {rest}.", ()
        case PoolReason.IDLE:
            return _told_idle(case)
        case unknown:
            assert_never(unknown)


def _told_idle(case: _Case) -> tuple[str, tuple[Change, ...]]:
    stopped = _stopped(case)
    number = len(case.takers)
    idle = "Its worker is idle" if number == 1 else f"Its {number:,} workers are idle"
    if not stopped:
        return f"{idle}: no batch has rows that may run here.", ()
    resume = tuple(
        Change(sentence=f"why {backlog.batch_id} does not run", command=f"nightrate explain {backlog.batch_id}")
        for backlog in stopped[:3]
    )
    return (
        f"{idle}: {_batches(len(stopped))} {verb(len(stopped), 'has', 'have')} rows but may not run now (paused, held back, or out of budget).",
        resume,
    )


def _stopped(case: _Case) -> list[Backlog]:
    competing = set() if case.line is None else {each.batch_id for each in case.line.contenders}
    served = {variant.partition("@")[0] for worker in case.takers for variant in worker.variants}
    return [
        backlog
        for backlog in case.seen.snapshot.backlogs
        if backlog.batch_id not in competing
        and backlog.model in served
        and any(shard.rows_packed < shard.rows_total for shard in backlog.shards)
    ]


def _wanted(reason: PoolReason, case: _Case) -> tuple[Change, ...]:
    has = len(case.takers)
    if reason is PoolReason.NO_WORKERS or case.workers_wanted <= has:
        return ()
    more = case.workers_wanted - has
    sentence = (
        f"{counted(more, 'more worker')} would meet every deadline that can be met ({case.workers_wanted:,} in all)"
    )
    return (Change(sentence=sentence, command=f"nightrate worker --pool {case.facts.pool}"),)


def _merged(changes: tuple[Change, ...], wanted: tuple[Change, ...]) -> tuple[Change, ...]:
    """Return both, each command once: how many workers are wanted says more than that one more would help."""
    said = {change.command for change in wanted}
    return tuple(change for change in changes if change.command not in said) + wanted


def _batches(number: int) -> str:
    return f"{number:,} {'batch' if number == 1 else 'batches'}"


def _every(case: _Case) -> str:
    number = len(case.takers)
    return "Its worker" if number == 1 else f"Each of its {number:,} workers"


def _idle(case: _Case) -> str:
    number = sum(worker.packs == 0 for worker in case.takers)
    return f"{counted(number, 'idle worker')} {verb(number, 'is', 'are')}"


def _running(case: _Case) -> str:
    number = case.facts.leased.packs
    busy = sum(worker.packs > 0 for worker in case.facts.workers)
    return (
        f"{packs(number)} {verb(number, 'runs', 'run')} on {busy:,} of its {counted(len(case.facts.workers), 'worker')}"
    )


def _behind(case: _Case) -> str:
    return (
        f"; behind {verb(case.facts.waiting.packs, 'it', 'them')}, {_batches(case.competing)} {verb(case.competing, 'has', 'have')} rows to pack"
        if case.competing
        else ""
    )


def _since(reason: PoolReason, facts: PoolFacts) -> datetime | None:  # noqa: PLR0911 -- a line for each case there is
    match reason:
        case PoolReason.NO_WORKERS:
            return facts.last_worker_at
        case PoolReason.STRANDED:
            return facts.stranded.since
        case PoolReason.FULL:
            return facts.waiting.since
        case PoolReason.BUSY | PoolReason.FILLING:
            return facts.leased.since or facts.waiting.since
        case PoolReason.IDLE:
            started = min((worker.started_at for worker in facts.workers), default=None)
            return max((at for at in (facts.last_pack_at, started) if at is not None), default=None)
        case PoolReason.STARTING:
            return min((worker.started_at for worker in facts.workers), default=None)
        case PoolReason.DRAINING | PoolReason.BLOCKED:
            return None
        case unknown:
            assert_never(unknown)


def _notes(case: _Case) -> dict[str, str]:
    facts, notes = case.facts, {}
    served = {variant for worker in case.takers for variant in worker.variants}
    if served:
        notes["serves"] = ", ".join(sorted(served))
    first = None if case.line is None else case.line.first()
    if first is not None:
        notes["next turn"] = f"{first.batch_id} (tier {first.tier}, tenant {first.tenant_id})"
    if case.line is not None and case.line.contenders:
        notes["to pack"] = f"{about(case.line.seconds)} of work of {_batches(case.competing)}"
    if facts.stranded.packs and case.takers:
        notes["stranded"] = (
            f"{packs(facts.stranded.packs)} of {named(facts.stranded_variants)}, which no worker here serves"
        )
    if facts.paused.packs:
        notes["paused"] = f"{packs(facts.paused.packs)} of paused batches"
    if case.hopeless:
        notes["deadlines"] = (
            f"{_batches(case.hopeless)} {verb(case.hopeless, 'is', 'are')} too near its end for any number of workers"
        )
    silent = [worker for worker in facts.workers if worker.silent_seconds > case.seen.silence_seconds]
    if silent:
        notes["silent"] = named(f"{worker.worker_id} ({about(worker.silent_seconds)})" for worker in silent)
    return notes


def _figures(case: _Case) -> dict[str, str | float | datetime | bool | None]:
    facts = case.facts
    first = None if case.line is None else case.line.first()
    return {
        "workers": len(facts.workers),
        "workers_busy": sum(worker.packs > 0 for worker in facts.workers),
        "workers_taking_packs": len(case.takers),
        "workers_wanted": case.workers_wanted,
        "packs_running": facts.leased.packs,
        "packs_waiting": facts.waiting.packs,
        "seconds_waiting": round(facts.waiting.seconds, 3),
        "packs_stranded": facts.stranded.packs,
        "packs_paused": facts.paused.packs,
        "packs_room": case.room,
        "batches_to_pack": case.competing,
        "seconds_to_pack": 0.0 if case.line is None else round(case.line.seconds, 3),
        "next_batch": None if first is None else first.batch_id,
        "next_tier": None if first is None else str(first.tier),
        "next_tenant": None if first is None else first.tenant_id,
        "has_scheduler": case.seen.has_leader,
    }
