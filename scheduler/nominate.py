"""Nominate: which backlogs may have packs at all, and why the others may not."""

from __future__ import annotations

from collections.abc import Callable, Container
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


def nominate(snapshot: Snapshot, routes: Routes, can_wait: Callable[[Backlog], bool]) -> Nomination:
    """Return who competes and who may not; what is held back competes once it cannot wait."""
    candidates: list[Backlog] = []
    refused: list[tuple[Backlog, Reason]] = []
    for backlog in snapshot.backlogs:
        reason = refusal_of(backlog, served=routes.served, now_us=snapshot.now_us, can_wait=can_wait)
        if reason is None:
            candidates.append(backlog)
        else:
            refused.append((backlog, reason))
    return Nomination(candidates=tuple(candidates), refused=tuple(refused))


def refusal_of(
    backlog: Backlog, *, served: Container[tuple[str, Tier]], now_us: int, can_wait: Callable[[Backlog], bool]
) -> Reason | None:
    """Return why this backlog may have no pack now, or None when it may."""
    is_spent = backlog.budget_micros is not None and backlog.spent_micros >= backlog.budget_micros
    is_early = backlog.hold_until_us is not None and now_us < backlog.hold_until_us
    # The first that holds is told: what ends it, what its user can change, what its platform can.
    checks = (
        # Workers drop rows of an overdue batch anyway, so a pack of them is waste.
        (Reason.DEADLINE_PASSED, is_overdue(backlog.deadline_at_us, now_us=now_us)),
        (Reason.USER_PAUSED, backlog.is_paused),
        (Reason.BUDGET_REACHED, is_spent),
        # What is packed waits for a worker too.
        (Reason.NO_WORKER, (backlog.model, backlog.tier) not in served),
        (Reason.ALL_PACKED, all(shard.rows_packed >= shard.rows_total for shard in backlog.shards)),
        (Reason.HELD, is_early and can_wait(backlog)),
    )
    return next((reason for reason, holds in checks if holds), None)
