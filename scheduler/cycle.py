"""The scheduler's cycle: settle, route, promise, nominate, order, pack, admit, over one immutable snapshot.

The form is the cycle of Kueue's scheduler: numbered steps, no clock, and everything that entered
leaves with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pipeline.domain.ids import BatchId, PackId
from pipeline.domain.reasons import Reason
from pipeline.ports.cycle import Backlog, CyclePlan, FairTag, PackDraft, PoolView, Snapshot, Standing
from scheduler.cursor import Cursor
from scheduler.fairness import FairQueue, pressing_ordinal, recall, true_up
from scheduler.nominate import Nomination, nominate
from scheduler.outlook import Outlook
from scheduler.packing import pack_next
from scheduler.policy import Policy
from scheduler.prediction.predictions import Predictions
from scheduler.promises import Promises
from scheduler.routing import Routes

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


def decide(
    snapshot: Snapshot, policy: Policy, new_pack_id: Callable[[], PackId], predictions: Predictions | None = None
) -> CyclePlan:
    """Return the packs to create now, and why every batch stands where it stands.

    Equal snapshots and predictions give equal plans but for the pack ids; the order of backlogs and pools is
    ignored. What ended since the last cycle is settled first: predictions learn from it, and the fair tags
    get it as it was.
    """
    predictions = predictions or Predictions()
    # 1. Settle: what packs really took.
    for pack in snapshot.ended:
        predictions.learn(pack)
    tags = recall(true_up(snapshot.fair_tags, snapshot.ended), snapshot.backlogs)
    # 2. Route: which variant would run whose rows where, and how long that would take.
    outlook = Outlook(snapshot, Routes.over(snapshot.pools), predictions, policy)
    # 3. Promise: whose deadlines the workers can be held to, and who presses for that.
    promises = Promises(snapshot, outlook, policy)
    answers = promises.answers(snapshot.backlogs)
    # 4. Nominate: who may compete.
    nomination = nominate(snapshot, outlook.routes, promises.can_wait)
    # 5. Order: one fair queue per pool, behind who presses.
    queues = _queues_of(snapshot, nomination.candidates, outlook, tags)
    pressing = {pool.pool: promises.pressing(pool.pool) for pool in snapshot.pools if pool.workers > 0}
    for pool, queue in queues.items():
        queue.press(claim.batch_id for claim in pressing[pool])
    # 6. Pack, 7. admit: fill packs in that order while the pools have room.
    rooms = {pool.pool: packs_admitted(pool, policy) for pool in snapshot.pools if pool.pool in queues}
    packs = _fill_pools(queues, rooms, outlook, policy, new_pack_id)
    return CyclePlan(
        packs=packs,
        standings=_standings_of(nomination, packs),
        pressing=tuple(
            sorted(
                {
                    (claim.batch_id, pressing_ordinal(claim.deadline_at_us))
                    for pool in pressing.values()
                    for claim in pool
                }
            )
        ),
        promises=answers,
        fair_tags=_tags_of(tags, queues),
        settled=tuple(pack.pack_id for pack in snapshot.ended),
        learned=predictions.changed(),
    )


def packs_admitted(pool: PoolView, policy: Policy) -> int:
    """Return how many packs the pool has room for.

    The rest of a backlog stays unpublished, however long it is: only what is published is past
    overtaking by a batch that comes later and has the better claim.
    """
    return max(0, pool.workers * policy.packs_ahead_per_worker - pool.packs_waiting)


def _queues_of(
    snapshot: Snapshot, candidates: Iterable[Backlog], outlook: Outlook, tags: tuple[FairTag, ...]
) -> dict[str, FairQueue]:
    # One cursor per backlog for all pools, so that no row goes to two of them.
    cursors = [Cursor(backlog=backlog, row_seconds=outlook.row_seconds_of(backlog)) for backlog in candidates]
    queues: dict[str, FairQueue] = {}
    for pool in sorted(snapshot.pools, key=lambda pool: pool.pool):
        served = [cursor for cursor in cursors if outlook.routes.variant_for(cursor.backlog, pool.pool) is not None]
        if served:
            queues[pool.pool] = FairQueue(pool.pool, served, tags, virtual_seconds=snapshot.virtual_seconds)
    return queues


def _fill_pools(
    queues: Mapping[str, FairQueue],
    rooms: Mapping[str, int],
    outlook: Outlook,
    policy: Policy,
    new_pack_id: Callable[[], PackId],
) -> tuple[PackDraft, ...]:
    """Fill the pools in rounds, a pack each: pools that share a backlog's model share its rows."""
    packs: list[PackDraft] = []
    open_pools = list(queues)
    for round_no in range(max(rooms.values(), default=0)):
        for pool in tuple(open_pools):
            pack = None
            if round_no < rooms[pool]:
                pack = pack_next(queues[pool], policy, outlook=outlook, new_pack_id=new_pack_id)
            if pack is None:
                open_pools.remove(pool)
            else:
                packs.append(pack)
    return tuple(packs)


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
