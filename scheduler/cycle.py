"""The scheduler's cycle: settle, route, promise, nominate, order, pack, admit, over one immutable snapshot.

The form is the cycle of Kueue's scheduler: numbered steps, no clock, and everything that entered
leaves with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import numpy as np

from pipeline.domain.ids import BatchId, PackId
from pipeline.domain.reasons import Reason
from pipeline.ports.cycle import CyclePlan, FairTag, PackDraft, PoolView, Snapshot, Standing
from scheduler.accounts import pressing_ordinal
from scheduler.charges import recall, true_up
from scheduler.columns import Integers
from scheduler.cursor import Cursors
from scheduler.fairness import FairQueue
from scheduler.lineup import Lineup
from scheduler.nominate import REFUSALS, refusals_of
from scheduler.outlook import Outlook
from scheduler.packing import pack_next
from scheduler.policy import Policy
from scheduler.prediction.predictions import Predictions
from scheduler.promises import Promises
from scheduler.purses import Purses
from scheduler.routing import Routes

#: When the backlogs of one batch (one per model) have different reasons, the first of these is the
#: batch's: what stops it whole, then what it does, then what a person can change.
_REASONS_BY_PRECEDENCE: Final = (
    Reason.DEADLINE_PASSED,
    Reason.USER_PAUSED,
    Reason.BUDGET_REACHED,
    Reason.PROJECT_BUDGET_REACHED,
    Reason.TENANT_BUDGET_REACHED,
    Reason.RUNNING,
    Reason.NO_WORKER,
    Reason.WORKER_COMING,
    Reason.HELD,
    Reason.QUEUED,
    Reason.ALL_PACKED,
)
#: Those that end a batch come last, and no batch in a cycle has one.
_EVERY_REASON: Final = (*_REASONS_BY_PRECEDENCE, *(set(Reason) - set(_REASONS_BY_PRECEDENCE)))


def decide(
    snapshot: Snapshot, policy: Policy, new_pack_id: Callable[[], PackId], predictions: Predictions | None = None
) -> CyclePlan:
    """Return the packs to create now, and why every batch stands where it stands.

    Equal snapshots and predictions give equal plans but for the pack ids; the order of backlogs and pools is
    ignored. What ended since the last cycle is settled first: predictions learn from it, and the fair tags
    get it as it was.
    """
    predictions = predictions or Predictions()
    lineup = Lineup.of(snapshot.backlogs)
    # 1. Settle: what packs really took.
    for pack in snapshot.ended:
        predictions.learn(pack)
    trued_up = true_up(snapshot.fair_tags, snapshot.ended, policy, lineup.priorities)
    tags = recall(trued_up, lineup, policy, now_us=snapshot.now_us)
    # 2. Route: which variant would run whose rows where, and how long that would take.
    outlook = Outlook(snapshot, Routes.over(snapshot.pools), predictions, policy)
    # 3. Promise: whose deadlines the workers can be held to, and who presses for that.
    promises = Promises(snapshot, lineup, outlook, policy)
    answers = promises.answers()
    # 4. Nominate: who may compete.
    purses = Purses(lineup, outlook, snapshot.budgets)
    refusals = refusals_of(
        lineup,
        outlook,
        now_us=snapshot.now_us,
        can_wait=promises.can_wait(),
        purses=purses,
    )
    # 5. Order: one fair queue per pool, behind who presses.
    # What waits for a promise has none before this cycle's answer is stored.
    is_competing = (refusals < 0) & ~purses.is_waiting & ~lineup.must_promise
    cursors = Cursors(lineup, outlook, purses)
    pressing = {pool.pool: promises.pressing(pool.pool) for pool in snapshot.pools if pool.workers > 0}
    queues: dict[str, FairQueue] = {}
    for pool in sorted(snapshot.pools, key=lambda pool: pool.pool):
        places = np.flatnonzero(is_competing & outlook.is_served(lineup, pool.pool))
        if len(places) and pool.workers > 0:
            queues[pool.pool] = FairQueue(
                pool,
                lineup,
                places,
                cursors,
                tags,
                policy,
                now_us=snapshot.now_us,
                virtual_seconds=snapshot.virtual_seconds,
            )
            queues[pool.pool].press(pressing[pool.pool].places, packs=pressing[pool.pool].packs)
    # 6. Pack, 7. admit: fill packs in that order while the pools have room.
    rooms = {pool.pool: packs_admitted(pool, policy) for pool in snapshot.pools if pool.pool in queues}
    packs = _fill_pools(queues, rooms, outlook, policy, new_pack_id)
    return CyclePlan(
        packs=packs,
        standings=_standings_of(lineup, refusals, cursors),
        pressing=_pressing_of(lineup, [each.places for each in pressing.values() if each.is_dire]),
        promises=answers,
        refused=promises.refused,
        fair_tags=_tags_of(tags, queues),
        settled=tuple(pack.pack_id for pack in snapshot.ended),
        learned=predictions.changed(),
        month=snapshot.month,
        notices=purses.notices(),
    )


def packs_admitted(pool: PoolView, policy: Policy) -> int:
    """Return how many packs the pool has room for.

    The rest of a backlog stays unpublished, however long it is: only what is published is past
    overtaking by a batch that comes later and has the better claim.
    """
    return max(0, pool.workers * policy.packs_ahead_per_worker - pool.packs_waiting)


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


def _standings_of(lineup: Lineup, refusals: Integers, cursors: Cursors) -> tuple[Standing, ...]:
    """Return why batches stand where they stand, of those whose reason is another than before."""
    precedence = {reason: number for number, reason in enumerate(_REASONS_BY_PRECEDENCE)}
    is_running = lineup.rows_in_flight > 0
    is_running[cursors.moved()] = True
    found = np.where(is_running, precedence[Reason.RUNNING], precedence[Reason.QUEUED])
    refused = refusals >= 0
    found[refused] = np.array([precedence[reason] for reason in REFUSALS])[refusals[refused]]
    batch = lineup.batch
    first = np.full(len(lineup), len(precedence))
    np.minimum.at(first, batch, found)
    before = lineup.reasons(_EVERY_REASON)
    changed = np.flatnonzero((batch == np.arange(len(lineup))) & (first != before))
    standings = [
        Standing(batch_id=lineup[place].batch_id, reason=_REASONS_BY_PRECEDENCE[first[place]])
        for place in changed.tolist()
    ]
    return tuple(sorted(standings, key=lambda standing: standing.batch_id))


def _pressing_of(lineup: Lineup, pressing: Iterable[Integers]) -> tuple[tuple[BatchId, float], ...]:
    """Return the batches with packs on their way that must go first, each with the ordinal of their packs."""
    backlogs = {
        place: lineup[place] for places in pressing for place in places[lineup.rows_in_flight[places] > 0].tolist()
    }
    return tuple(sorted({(each.batch_id, pressing_ordinal(each.deadline_at_us)) for each in backlogs.values()}))


def _tags_of(before: Iterable[FairTag], queues: Mapping[str, FairQueue]) -> tuple[FairTag, ...]:
    # A pool that nobody wants or that has no worker just now keeps its memory.
    untouched = tuple(tag for tag in before if tag.pool not in queues)
    return untouched + tuple(tag for queue in queues.values() for tag in queue.tags())
