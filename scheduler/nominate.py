"""Nominate: which backlogs may have packs at all, and why the others may not."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Backlog, Snapshot
from scheduler.deadlines import is_overdue
from scheduler.routing import Routes


@dataclass(frozen=True, slots=True, kw_only=True)
class Nomination:
    """The backlogs that compete in this cycle, and the ones left out with their reason."""

    candidates: tuple[Backlog, ...]
    refused: tuple[tuple[Backlog, Reason], ...]


def nominate(snapshot: Snapshot, routes: Routes) -> Nomination:
    """Return who competes and who may not."""
    candidates: list[Backlog] = []
    refused: list[tuple[Backlog, Reason]] = []
    for backlog in snapshot.backlogs:
        reason = refusal_of(backlog, served=routes.served, now_us=snapshot.now_us)
        if reason is None:
            candidates.append(backlog)
        else:
            refused.append((backlog, reason))
    return Nomination(candidates=tuple(candidates), refused=tuple(refused))


def refusal_of(backlog: Backlog, *, served: Container[tuple[str, Tier]], now_us: int) -> Reason | None:
    """Return why this backlog may have no pack now, or None when it may."""
    if is_overdue(backlog.deadline_at_us, now_us=now_us):
        # Workers drop rows of an overdue batch anyway, so a pack of them is waste.
        return Reason.DEADLINE_PASSED
    if backlog.budget_micros is not None and backlog.spent_micros >= backlog.budget_micros:
        return Reason.BUDGET_REACHED
    if (backlog.model, backlog.tier) not in served:
        # First: what is packed waits for a worker too.
        return Reason.NO_WORKER
    if all(shard.rows_packed >= shard.rows_total for shard in backlog.shards):
        return Reason.ALL_PACKED
    return None
