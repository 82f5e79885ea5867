"""Pack: fill one pack, first from the batch whose turn it is, then from its peers."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.domain.ids import PackId
from pipeline.ports.cycle import PackDraft
from scheduler.accounts import Turn
from scheduler.cursor import Cursor, Cut, Room
from scheduler.fairness import FairQueue
from scheduler.outlook import Outlook
from scheduler.policy import Policy


def pack_next(
    queue: FairQueue, policy: Policy, *, outlook: Outlook, new_pack_id: Callable[[], PackId]
) -> PackDraft | None:
    """Return the pool's next pack, or None when no row is left for it."""
    turn = queue.first()
    if turn is None:
        return None
    backlog = turn.cursor.backlog
    variant = outlook.routes.variant_for(backlog.model, backlog.tier, queue.pool)
    assert variant is not None, "a pool queues what it serves"
    ordinal = queue.begin(turn)
    target = seconds_target(policy, is_measured=outlook.is_measured(variant, queue.pool))
    whole = Room(
        seconds=target,
        rows=policy.pack_rows_max,
        slices=policy.pack_slices_max,
        rows_least=policy.pack_rows_min,
        second_micros=outlook.second_micros(variant, queue.pool),
        fixed_micros=outlook.fixed_micros(variant, queue.pool),
    )
    cuts = _fill(queue, turn, whole, lead_seconds=policy.top_up_lead_seconds)
    seconds = sum(cut.seconds for _, cut in cuts)
    return PackDraft(
        pack_id=new_pack_id(),
        pool=queue.pool,
        model=backlog.model,
        variant=variant,
        endpoint=backlog.endpoint,
        tier=backlog.tier,
        ordinal=ordinal,
        predicted_seconds=seconds,
        slices=tuple(part for cursor, cut in cuts for part in cursor.settled(cut, seconds)),
        unit_costs=outlook.unit_costs(variant, queue.pool),
    )


def seconds_target(policy: Policy, *, is_measured: bool) -> float:
    """Return the predicted seconds of a full pack."""
    return policy.pack_seconds_target if is_measured else min(policy.pack_seconds_target, policy.first_pack_seconds)


def _fill(queue: FairQueue, turn: Turn, whole: Room, *, lead_seconds: float) -> list[tuple[Cursor, Cut]]:
    cut = turn.cursor.take(whole)
    queue.charge(turn, cut.seconds)
    cuts = [(turn.cursor, cut)]
    of_tenants = {turn.cursor.backlog.tenant_id: cut.seconds}
    room = whole.less(cut)
    while cuts[-1][0].is_spent and (peer := queue.peer(turn, lead_seconds=lead_seconds)) is not None:
        cut = peer.cursor.take(room)
        queue.charge(peer, cut.seconds)
        of_tenants[peer.cursor.backlog.tenant_id] = of_tenants.get(peer.cursor.backlog.tenant_id, 0.0) + cut.seconds
        # Where it is not spent, the pack is full: the peer's next row no longer fits.
        cuts.append((peer.cursor, cut))
        room = room.less(cut)
    queue.count(of_tenants)
    return cuts
