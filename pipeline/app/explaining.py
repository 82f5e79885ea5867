"""Explanations: facts from the store, sentences from the scheduler; what commands and the API show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, assert_never

from pipeline.app.policies import policy_of
from pipeline.app.stack import Stack
from pipeline.domain.errors import UsageError
from pipeline.domain.ids import BatchId
from pipeline.domain.reasons import SENTENCES
from pipeline.ports.explain import (
    AttemptFacts,
    BatchFacts,
    Decided,
    Explained,
    OverviewExplained,
    Past,
    Scheduling,
    Subject,
)
from scheduler.explain.batches import WORST_FIRST, explain_batch
from scheduler.explain.forecast import Forecast
from scheduler.explain.packs import explain_pack
from scheduler.explain.pools import explain_pool
from scheduler.explain.tenants import Eta, eta_of, for_tenant
from storage.facts import FactsRepository

_ID: Final = re.compile(r"(?P<prefix>[a-z]+)_[0-9a-zA-Z_-]+")
#: What else has an id, and what shows it.
_OTHERS: Final = {
    "wrk": "`nightrate status` shows workers, `nightrate explain POOL` what theirs does",
    "rec": "`nightrate recurring show NAME` shows a recurring batch",
    "file": "`nightrate list` shows the batches made of files",
}


def subject_of(given: str) -> Subject:
    """Return what an id or name is of, by its form; raises `UsageError` for an id that nothing is told of."""
    found = _ID.fullmatch(given)
    match found and found["prefix"]:
        case "batch":
            return Subject.BATCH
        case "pack":
            return Subject.PACK
        case str(prefix) if prefix in _OTHERS:
            raise UsageError(f"{given} is no batch, pack or pool", hint=_OTHERS[prefix])
        case _:
            return Subject.POOL


def explain(stack: Stack, given: str, *, with_history: bool = False) -> Explained:
    """Explain a batch, a pack or a pool; raises `NotFoundError` for one that is not there."""
    facts = _facts(stack)
    policy = policy_of(stack.settings)
    subject = subject_of(given)
    match subject:
        case Subject.BATCH:
            batch, seen = facts.batch(given)
            told = explain_batch(batch, seen, Forecast(seen, policy))
            decided = facts.decisions(given) if with_history else ()
            past = _batch_past(decided, _end_of(batch, seen))
            return Explained(now=seen.now, explanation=told, packs=batch.packs, history=past)
        case Subject.PACK:
            pack, seen = facts.pack(given)
            past = tuple(map(_attempt_past, pack.attempts)) if with_history else ()
            return Explained(now=seen.now, explanation=explain_pack(pack, seen), history=past)
        case Subject.POOL:
            if with_history:
                raise UsageError("a pool has no history", hint="--history tells that of a batch or a pack")
            pool, seen = facts.pool(given)
            told = explain_pool(pool, seen, Forecast(seen, policy))
            return Explained(now=seen.now, explanation=told, packs=pool.packs)
        case unknown:
            assert_never(unknown)


def explain_to_tenant(stack: Stack, batch_id: BatchId, *, with_history: bool = False) -> Explained:
    """Explain a batch as its tenant may hear it: nothing of other tenants, of workers or of pools."""
    facts = _facts(stack)
    batch, seen = facts.batch(batch_id)
    forecast = Forecast(seen, policy_of(stack.settings))
    told = for_tenant(explain_batch(batch, seen, forecast), batch, seen, forecast)
    decided = facts.decisions(batch_id) if with_history else ()
    return Explained(now=seen.now, explanation=told, history=_batch_past(decided, _end_of(batch, seen)))


def eta(stack: Stack, batch_id: BatchId) -> Eta | None:
    """Return when a batch is likely to end; None where nothing can be said."""
    batch, seen = _facts(stack).batch(batch_id)
    return eta_of(batch, seen, Forecast(seen, policy_of(stack.settings)))


def explain_all(stack: Stack, *, limit: int) -> OverviewExplained:
    """Explain every pool, and the `limit` batches that most want a person's attention."""
    batches, total, seen = _facts(stack).unfinished(worst_first=WORST_FIRST, limit=limit)
    forecast = Forecast(seen, policy_of(stack.settings))
    return OverviewExplained(
        now=seen.now,
        has_leader=seen.has_leader,
        leader=seen.leader,
        pools=tuple(explain_pool(pool, seen, forecast) for pool in seen.pools),
        batches=tuple(explain_batch(batch, seen, forecast) for batch in batches),
        batches_total=total,
    )


def _facts(stack: Stack) -> FactsRepository:
    return FactsRepository(stack.database, lease_for=timedelta(seconds=stack.settings.lease_seconds))


def _end_of(batch: BatchFacts, seen: Scheduling) -> datetime:
    state = batch.view.state
    return batch.view.entered_at[state] if state.is_terminal else seen.now


def _batch_past(decided: Sequence[Decided], end: datetime) -> tuple[Past, ...]:
    # The last one holds until now, or held until the batch ended.
    ends = [each.decided_at for each in decided[1:]] + [end]
    return tuple(
        Past(what=str(each.reason), sentence=SENTENCES[each.reason], since=each.decided_at, until=until)
        for each, until in zip(decided, ends, strict=False)
    )


def _attempt_past(attempt: AttemptFacts) -> Past:
    who = "the scheduler" if attempt.worker_id is None else f"{attempt.worker_id} on {attempt.host}"
    said = f": {attempt.error}" if attempt.error else ""
    return Past(
        what=str(attempt.outcome or "running"),
        sentence=f"Attempt {attempt.lease_token} by {who}, {attempt.rows_asked:,} rows{said}",
        since=attempt.started_at,
        until=attempt.ended_at,
    )
