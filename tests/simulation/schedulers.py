"""The scheduler process, the fleet and the people who cancel, as generators."""

from __future__ import annotations

from pipeline.domain.errors import ConflictError, LeaseLostError
from pipeline.domain.ids import PackId, PartId
from pipeline.domain.lifecycle import AttemptOutcome
from pipeline.domain.ranges import count_rows
from pipeline.ports.packs import PackLease, PartDraft, ShardRows, WorkCommit
from tests.simulation.actors import Worker
from tests.simulation.world import Steps, World


def rescuer(world: World) -> Steps:
    """Return to the queue what the dead left, convict, and seal what was withdrawn."""
    store, rng = world.store, world.rng
    while True:
        yield world.plan.rescue_us
        # Neither order of these two may matter.
        if world.plan.workers_first:
            yield from _declare_lost(world)
        for pack_id, lease_token in store.expired():
            yield rng.randrange(1, 800)
            _rescue(world, pack_id, lease_token)
        if not world.plan.workers_first:
            yield from _declare_lost(world)
        for pack_id in store.held():
            yield rng.randrange(1, 100)
            yield from _convict(world, pack_id)
        for batch in store.batches.values():
            if batch.is_withdrawn and not batch.is_sealed and store.seal(batch.batch_id):
                world.note("sealed", batch.batch_id)


def _declare_lost(world: World) -> Steps:
    for worker_id in world.store.silent():
        yield world.rng.randrange(1, 1_500)
        if world.store.declare_lost(worker_id):
            world.note("worker_lost", worker_id)
            world.publish()


def _rescue(world: World, pack_id: PackId, lease_token: int) -> None:
    store = world.store
    pack = store.packs[pack_id]
    is_alive = pack.lease_expires_at >= store.now_us
    token = pack.lease_token
    packs_before = len(store.packs)
    if not store.rescue_pack(pack_id, lease_token):
        world.note("rescue_late", pack_id)
        return
    world.note("rescued", f"{pack_id} {lease_token}")
    if is_alive:
        world.violate("live_lease", f"{pack_id} token {token} was rescued alive")
    if token != lease_token:
        world.violate("wrong_lease", f"{pack_id} token {token} was rescued for {lease_token}")
    if len(store.packs) > packs_before:
        world.note("bisected_by_rescue", pack_id)
    world.publish()


def _convict(world: World, pack_id: PackId) -> Steps:
    """Commit an error result for the one row that brings every attempt down."""
    store = world.store
    lease = store.lease_held(pack_id)
    if lease is None:
        return
    part = _error_part(world, lease)
    world.say("convictor leases", pack_id, lease.lease_token)
    yield 50
    world.put(part.object_key, part.sha256)
    yield world.linger()
    commit = WorkCommit(pack_id=pack_id, lease_token=lease.lease_token, parts=(part,), interval=None)
    try:
        store.commit(None, commit)
        world.check_commit(None, commit)
        yield 50
        store.finish(pack_id, lease.lease_token, AttemptOutcome.SUCCEEDED)
    except LeaseLostError:
        world.note("convictor_fenced", pack_id)
    except ConflictError as error:
        world.violate("refused", f"convictor: {error}")
    else:
        world.note("convicted", pack_id)


def _error_part(world: World, lease: PackLease) -> PartDraft:
    rows = tuple(
        ShardRows(shard_id=piece.shard_id, ranges=piece.ranges, rows_succeeded=0, rows_errored=count_rows(piece.ranges))
        for piece in lease.slices
    )
    name = f"{lease.pack_id}-{lease.lease_token}-error"
    return PartDraft(
        part_id=PartId(f"part_{world.next_id():04d}"),
        batch_id=lease.slices[0].batch_id,
        object_key=name,
        sha256=f"convictor/{world.next_id()}",
        size_bytes=1,
        shards=rows,
        input_tokens=0,
        output_tokens=0,
    )


def dispatcher(world: World) -> Steps:
    """Create the packs at the times drawn."""
    for at_us, draft in world.plan.dispatches:
        yield max(0, at_us - world.store.now_us)
        world.store.dispatch(draft)
        world.events_pending -= 1
        world.publish()


def canceller(world: World) -> Steps:
    """Withdraw batches at the times drawn."""
    for at_us, batch_id in world.plan.withdrawals:
        yield max(0, at_us - world.store.now_us)
        world.store.withdraw(batch_id)
        world.note("withdrawn", batch_id)
        world.events_pending -= 1


def fleet(world: World) -> Steps:
    """Keep enough workers alive, and take some away with a notice."""
    plan, rng = world.plan, world.rng
    while not world.is_winding_down:
        while len(world.alive) < plan.workers:
            Worker(world)
        yield 1_500
        if world.store.now_us < plan.heal_at_us:
            for worker in world.alive:
                if not worker.is_preempted and rng.random() < plan.preempt_rate:
                    world.start(worker.preempt(rng.randrange(plan.grace_us)))
