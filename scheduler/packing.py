"""Pack: fill one pack, first from the batch whose turn it is, then from its peers."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.domain.ids import PackId
from pipeline.ports.cycle import PackDraft, SliceDraft
from scheduler.accounts import Turn
from scheduler.cursor import Room
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
    slices, seconds = _fill(queue, turn, policy, target, second_micros=outlook.second_micros(variant, queue.pool))
    return PackDraft(
        pack_id=new_pack_id(),
        pool=queue.pool,
        model=backlog.model,
        variant=variant,
        endpoint=backlog.endpoint,
        tier=backlog.tier,
        ordinal=ordinal,
        predicted_seconds=seconds,
        slices=slices,
        unit_costs=outlook.unit_costs(variant, queue.pool),
    )


def seconds_target(policy: Policy, *, is_measured: bool) -> float:
    """Return the predicted seconds of a full pack."""
    return policy.pack_seconds_target if is_measured else min(policy.pack_seconds_target, policy.first_pack_seconds)


def _fill(
    queue: FairQueue, turn: Turn, policy: Policy, target: float, *, second_micros: float
) -> tuple[tuple[SliceDraft, ...], float]:
    room = Room(
        seconds=target,
        rows=policy.pack_rows_max,
        slices=policy.pack_slices_max,
        rows_least=policy.pack_rows_min,
        second_micros=second_micros,
    )
    cut = turn.cursor.take(room)
    queue.charge(turn, cut.seconds)
    slices = list(cut.slices)
    seconds = cut.seconds
    if not turn.cursor.is_spent:
        queue.count({turn.cursor.backlog.tenant_id: cut.seconds})
        return tuple(slices), seconds
    of_tenants = {turn.cursor.backlog.tenant_id: cut.seconds}
    rows = cut.rows
    while (peer := queue.peer(turn, lead_seconds=policy.top_up_lead_seconds)) is not None:
        room = Room(
            seconds=target - seconds,
            rows=policy.pack_rows_max - rows,
            slices=policy.pack_slices_max - len(slices),
            rows_least=policy.pack_rows_min - rows,
            second_micros=second_micros,
        )
        cut = peer.cursor.take(room)
        queue.charge(peer, cut.seconds)
        of_tenants[peer.cursor.backlog.tenant_id] = of_tenants.get(peer.cursor.backlog.tenant_id, 0.0) + cut.seconds
        slices += cut.slices
        seconds += cut.seconds
        rows += cut.rows
        if not peer.cursor.is_spent:
            # The pack is full: the peer's next row no longer fits.
            break
    queue.count(of_tenants)
    return tuple(slices), seconds
