"""The scheduler's cycle: route, promise, nominate, order, pack, admit, over one immutable snapshot.

The form is the cycle of Kueue's scheduler: numbered steps, no clock, and everything that entered
leaves with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pipeline.domain.ids import BatchId, PackId
from pipeline.domain.reasons import Reason
from pipeline.ports.cycle import Backlog, CyclePlan, FairTag, PackDraft, PoolView, Snapshot, Standing
from scheduler.cursor import Cursor
from scheduler.fairness import FairQueue, recall
from scheduler.nominate import Nomination, nominate
from scheduler.packing import pack_next
from scheduler.policy import Policy
from scheduler.promises import Promises
from scheduler.routing import Routes

#: A measurement below a token in twenty minutes is a meter that has seen nothing yet; dividing by it
#: would put a batch's fair tag out of reach of everyone else's.
_TOKENS_PER_SECOND_MIN = 0.001

#: When the backlogs of one batch (one per model) have different reasons, the first of these is the
#: batch's: what stops it whole, then what it does, then what a person can change.
_REASONS_BY_PRECEDENCE = (
    Reason.DEADLINE_PASSED,
    Reason.USER_PAUSED,
    Reason.BUDGET_REACHED,
    Reason.RUNNING,
    Reason.NO_WORKER,
    Reason.HELD,
    Reason.QUEUED,
    Reason.ALL_PACKED,
)


def decide(snapshot: Snapshot, policy: Policy, new_pack_id: Callable[[], PackId]) -> CyclePlan:
    """Return the packs to create now, and why every batch stands where it stands.

    Equal snapshots give equal plans but for the pack ids; the order of backlogs and pools is ignored.
    """
    # 1. Route: which variant would run whose rows where.
    routes = Routes.over(snapshot.pools)
    # 2. Promise: whose deadlines the workers can be held to, and who presses for that.
    promises = Promises(snapshot, routes, _measured(snapshot.tokens_per_second), policy)
    answers = promises.answers(snapshot.backlogs)
    # 3. Nominate: who may compete.
    nomination = nominate(snapshot, routes, promises.can_wait)
    # 4. Order: one fair queue per pool, behind who presses.
    tags = recall(snapshot.fair_tags, snapshot.backlogs)
    queues = _queues_of(snapshot, nomination.candidates, routes, tags, policy)
    for pool, queue in queues.items():
        queue.press(promises.pressing(pool))
    # 5. Pack, 6. admit: fill packs in that order while the pools have room.
    rooms = {pool.pool: packs_admitted(pool, policy) for pool in snapshot.pools if pool.pool in queues}
    packs = _fill_pools(queues, rooms, routes, snapshot, policy, new_pack_id)
    return CyclePlan(
        packs=packs,
        standings=_standings_of(nomination, packs),
        promises=answers,
        fair_tags=_tags_of(tags, queues),
    )


def packs_admitted(pool: PoolView, policy: Policy) -> int:
    """Return how many packs the pool has room for.

    The rest of a backlog stays unpublished, however long it is: only what is published is past
    overtaking by a batch that comes later and has the better claim.
    """
    return max(0, pool.workers * policy.packs_ahead_per_worker - pool.packs_waiting)


def _queues_of(
    snapshot: Snapshot, candidates: Iterable[Backlog], routes: Routes, tags: tuple[FairTag, ...], policy: Policy
) -> dict[str, FairQueue]:
    speeds = _measured(snapshot.tokens_per_second)
    # One cursor per backlog for all pools, so that no row goes to two of them.
    cursors = [
        Cursor(backlog=backlog, tokens_per_second=_speed(backlog, routes, speeds, policy)) for backlog in candidates
    ]
    queues: dict[str, FairQueue] = {}
    for pool in sorted(snapshot.pools, key=lambda pool: pool.pool):
        served = [cursor for cursor in cursors if routes.variant_for(cursor.backlog, pool.pool) is not None]
        if served:
            queues[pool.pool] = FairQueue(pool.pool, served, tags, virtual_seconds=snapshot.virtual_seconds)
    return queues


def _speed(backlog: Backlog, routes: Routes, speeds: Mapping[str, float], policy: Policy) -> float:
    """Return the slowest speed of those that may run the backlog: no pool's pack is longer than meant."""
    measured = [speeds[variant] for variant in routes.variants_of(backlog) if variant in speeds]
    return min(measured, default=policy.default_tokens_per_second)


def _fill_pools(
    queues: Mapping[str, FairQueue],
    rooms: Mapping[str, int],
    routes: Routes,
    snapshot: Snapshot,
    policy: Policy,
    new_pack_id: Callable[[], PackId],
) -> tuple[PackDraft, ...]:
    """Fill the pools in rounds, a pack each: pools that share a backlog's model share its rows."""
    measured = _measured(snapshot.tokens_per_second)
    packs: list[PackDraft] = []
    open_pools = list(queues)
    for round_no in range(max(rooms.values(), default=0)):
        for pool in tuple(open_pools):
            pack = None
            if round_no < rooms[pool]:
                pack = pack_next(queues[pool], policy, routes=routes, measured=measured, new_pack_id=new_pack_id)
            if pack is None:
                open_pools.remove(pool)
            else:
                packs.append(pack)
    return tuple(packs)


def _measured(tokens_per_second: Mapping[str, float]) -> dict[str, float]:
    return {variant: speed for variant, speed in tokens_per_second.items() if speed >= _TOKENS_PER_SECOND_MIN}


def _standings_of(nomination: Nomination, packs: Iterable[PackDraft]) -> tuple[Standing, ...]:
    packed = {draft.batch_id for pack in packs for draft in pack.slices}
    reasons: dict[BatchId, set[Reason]] = {}
    for backlog, reason in nomination.refused:
        reasons.setdefault(backlog.batch_id, set()).add(reason)
    for backlog in nomination.candidates:
        is_running = backlog.batch_id in packed or backlog.rows_in_flight > 0
        reasons.setdefault(backlog.batch_id, set()).add(Reason.RUNNING if is_running else Reason.QUEUED)
    return tuple(
        Standing(batch_id=batch_id, reason=next(reason for reason in _REASONS_BY_PRECEDENCE if reason in found))
        for batch_id, found in sorted(reasons.items())
    )


def _tags_of(before: Iterable[FairTag], queues: Mapping[str, FairQueue]) -> tuple[FairTag, ...]:
    # A pool that nobody wants or that has no worker just now keeps its memory.
    untouched = tuple(tag for tag in before if tag.pool not in queues)
    return untouched + tuple(tag for queue in queues.values() for tag in queue.tags())
