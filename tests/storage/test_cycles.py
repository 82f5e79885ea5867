from __future__ import annotations

from datetime import timedelta

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ConflictError, NotLeaderError
from pipeline.domain.ids import DEFAULT_TENANT, BatchId, WorkerId, new_pack_id, new_worker_id
from pipeline.domain.lifecycle import AttemptOutcome, WorkerState
from pipeline.domain.reasons import Reason
from pipeline.domain.retry import Verdict
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import Admitted
from pipeline.ports.cycle import PRESSING_ORDINAL_MAX, CyclePlan, FairTag, PackDraft, SliceDraft, Standing
from pipeline.ports.packs import WorkerRegistration
from scheduler.cycle import decide
from scheduler.policy import Policy
from storage.cycles import CycleRepository, Leadership
from tests.services import connect, eventually
from tests.storage.world import LEASE, World

AGAIN = timedelta(minutes=5)


def draft(
    *rows: tuple[BatchId, int, int, int], pool: str = "local", model: str = "echo", ordinal: float = 0.0
) -> PackDraft:
    return PackDraft(
        pack_id=new_pack_id(),
        pool=pool,
        model=model,
        variant=model,
        endpoint=Endpoint.CHAT_COMPLETIONS,
        tier=Tier.STANDARD,
        ordinal=ordinal,
        predicted_seconds=1.0,
        slices=tuple(
            SliceDraft(batch_id=batch_id, shard_id=shard_id, row_start=start, row_stop=stop)
            for batch_id, shard_id, start, stop in rows
        ),
    )


def dispatch(world: World, *packs: PackDraft, **standings: tuple[BatchId, Reason]) -> None:
    plan = CyclePlan(
        packs=packs, standings=tuple(Standing(batch_id=batch, reason=reason) for batch, reason in standings.values())
    )
    world.cycles.dispatch(world.leadership.epoch, plan)


def register(world: World, *, pool: str, models: tuple[str, ...]) -> WorkerId:
    worker_id = new_worker_id()
    world.workers.register(
        WorkerRegistration(
            worker_id=worker_id,
            pool=pool,
            market="spot",
            host="h",
            pid=1,
            variants=dict.fromkeys(models, ""),
            rate_micros_per_hour=3_600_000,
            currency="USD",
        )
    )
    return worker_id


def kill_leader(world: World) -> None:
    with connect(world.database.url) as connection:
        connection.execute(
            """
            SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
             WHERE locktype = 'advisory' AND datname = current_database()"""
        )


# --- leading ----------------------------------------------------------------------------------


def test_a_second_scheduler_stands_by_until_the_first_ones_session_is_gone(world: World) -> None:
    first = world.leadership
    assert first.is_held()
    assert Leadership.stand(world.database, "second") is None

    kill_leader(world)

    assert [first.is_held() for _ in range(3)] == [False] * 3
    with elected(world, "second") as second:
        assert second.is_held()
        assert second.epoch == first.epoch + 1
        assert world.scalars("SELECT holder FROM leadership") == ["second"]
        # A session that is gone does not come back, whatever the pool does.
        assert not first.is_held()
    with elected(world, "third") as third:
        assert third.epoch == first.epoch + 2


def elected(world: World, holder: str) -> Leadership:
    found: list[Leadership] = []

    def stand() -> bool:
        leadership = Leadership.stand(world.database, holder)
        found.extend([leadership] if leadership else [])
        return bool(found)

    # The server notices a closed session a moment later.
    eventually(stand)
    return found[0]


def test_nothing_that_a_deposed_scheduler_writes_is_taken(world: World) -> None:
    batch = world.admit(4)
    (shard,) = world.shard_ids(batch)
    pack = world.pack((batch, shard, 0, 1))
    world.lease(world.worker())
    world.expire(pack)
    world.overdue(batch)
    old = world.leadership.epoch
    world.execute("UPDATE leadership SET epoch = epoch + 1")

    for write in (
        lambda: world.cycles.dispatch(old, CyclePlan(packs=(draft((batch, shard, 1, 4)),), standings=())),
        lambda: world.cycles.dispatch(
            old, CyclePlan(packs=(), standings=(Standing(batch_id=batch, reason=Reason.RUNNING),))
        ),
        lambda: world.cycles.advance_batches(old),
        lambda: world.cycles.rescue(old),
    ):
        with pytest.raises(NotLeaderError):
            write()
    assert world.scalars("SELECT count(*) FROM packs") == [1]
    assert world.scalars("SELECT state FROM packs") == ["leased"]
    assert world.scalars("SELECT state || reason FROM batches") == ["in_progressqueued"]


# --- the snapshot -----------------------------------------------------------------------------


def test_a_snapshot_has_every_batch_with_rows_to_run_and_what_it_spent(world: World) -> None:
    half, packed, _, withdrawn = world.admit(3, 2), world.admit(1), world.submit(), world.admit(1)
    first, second = world.shard_ids(half)
    world.pack((half, first, 0, 3), ordinal=2.5)
    world.pack((packed, world.shard_ids(packed)[0], 0, 1), ordinal=3.5)
    world.batches.cancel(withdrawn)
    worker = world.worker()
    lease = world.lease(worker)
    world.packs.commit(worker, world.work(worker, lease, (half, first, ((0, 1),), 500), duration_us=2_000_000))

    snapshot = world.cycles.snapshot()

    backlog, all_packed = snapshot.backlogs
    assert (all_packed.batch_id, all_packed.model, all_packed.shards) == (packed, "echo", ())
    assert all_packed.rows_in_flight == 1
    assert (backlog.batch_id, backlog.model, backlog.tier) == (half, "echo", Tier.STANDARD)
    assert (backlog.rows_in_flight, backlog.spent_micros, backlog.budget_micros) == (2, 2000, None)
    (shard,) = backlog.shards
    assert (shard.shard_id, shard.shard_no, shard.rows_packed, shard.rows_total) == (second, 1, 0, 2)
    assert (shard.input_tokens, shard.output_tokens) == (20, 20)
    assert backlog.deadline_at_us - backlog.created_at_us == 86_400_000_000
    assert abs(snapshot.now_us - backlog.created_at_us) < 600_000_000
    assert snapshot.tokens_per_second == {"echo": 250.0}
    assert snapshot.virtual_seconds == 3.5


def test_a_snapshot_of_nothing_is_empty(world: World) -> None:
    snapshot = world.cycles.snapshot()

    assert (snapshot.backlogs, snapshot.pools, snapshot.fair_tags) == ((), (), ())
    assert (snapshot.tokens_per_second, snapshot.virtual_seconds) == ({}, 0.0)


def test_pools_and_models_are_kept_apart(world: World) -> None:
    chat, embed = world.admit(4, model="chat"), world.admit(4, model="embed")
    (chat_shard,), (embed_shard,) = world.shard_ids(chat), world.shard_ids(embed)
    both = register(world, pool="gpu", models=("chat", "embed"))
    register(world, pool="gpu", models=("chat",))
    cheap = register(world, pool="cpu", models=("embed",))
    draining, ended = register(world, pool="cpu", models=("chat",)), register(world, pool="cpu", models=("chat",))
    world.workers.enter(draining, WorkerState.READY)
    world.workers.enter(draining, WorkerState.DRAINING)
    world.workers.enter(ended, WorkerState.STOPPED)
    dispatch(
        world,
        draft((chat, chat_shard, 0, 2), pool="gpu", model="chat"),
        draft((embed, embed_shard, 0, 2), pool="gpu", model="embed"),
        draft((embed, embed_shard, 2, 3), pool="cpu", model="embed"),
    )

    snapshot = world.cycles.snapshot()
    assert {(one.batch_id, one.model) for one in snapshot.backlogs} == {(chat, "chat"), (embed, "embed")}
    assert [
        (pool.pool, pool.workers, {serving.variant for serving in pool.servings}, pool.packs_waiting)
        for pool in snapshot.pools
    ] == [
        ("cpu", 1, {"embed"}, 1),
        ("gpu", 2, {"chat", "embed"}, 2),
    ]
    lease = world.packs.lease(cheap, pool="cpu", variants=["embed"])
    assert lease is not None
    assert lease.model == "embed"
    assert world.packs.lease(cheap, pool="cpu", variants=["embed"]) is None
    assert world.packs.lease(both, pool="gpu", variants=["embed"]) is not None
    assert world.packs.lease(both, pool="gpu", variants=["embed"]) is None
    world.workers.tell_to_stop("gpu")
    assert [pool.pool for pool in world.cycles.snapshot().pools] == ["cpu"]


def test_the_fair_queues_memory_comes_back_as_it_was_written(world: World) -> None:
    batch = world.admit(4)
    (shard,) = world.shard_ids(batch)
    tags = (
        FairTag(pool="local", path=(), start_seconds=0.0, virtual_seconds=1.5),
        FairTag(pool="local", path=("standard", "tnt_default", batch), start_seconds=0.25, virtual_seconds=1e9 + 0.1),
    )
    plan = CyclePlan(packs=(draft((batch, shard, 0, 1)),), standings=(), fair_tags=tags)

    world.cycles.dispatch(world.leadership.epoch, plan)
    # A cycle that publishes nothing has nothing new to remember.
    world.cycles.dispatch(world.leadership.epoch, CyclePlan(packs=(), standings=()))

    assert world.cycles.snapshot().fair_tags == tags


def test_packs_of_tenants_with_a_limit_and_packs_that_press_are_counted(world: World) -> None:
    batch = world.admit(10)
    (shard,) = world.shard_ids(batch)
    worker = world.worker()
    world.pack((batch, shard, 0, 2), ordinal=PRESSING_ORDINAL_MAX - 1)
    world.pack((batch, shard, 2, 4))
    world.execute("UPDATE pack_slices SET predicted_seconds = 1")
    world.lease(worker)

    (plain,) = world.cycles.snapshot().pools
    (counted,) = CycleRepository(world.database, silence=LEASE, limited=[DEFAULT_TENANT]).snapshot().pools

    assert (plain.packs_pressing, plain.packs_of_tenants) == (1, {})
    assert counted.packs_of_tenants == {DEFAULT_TENANT: 2.0}


# --- dispatching ------------------------------------------------------------------------------


def test_a_plan_the_world_has_moved_past_is_refused_whole(world: World) -> None:
    batch, withdrawn = world.admit(4), world.admit(4)
    (shard,), (gone,) = world.shard_ids(batch), world.shard_ids(withdrawn)
    dispatch(world, draft((batch, shard, 0, 2)))
    world.batches.cancel(withdrawn)

    with pytest.raises(ConflictError, match="packed since"):
        dispatch(world, draft((batch, shard, 0, 4)), a=(batch, Reason.RUNNING))
    with pytest.raises(ConflictError, match="not packed in order"):
        dispatch(world, draft((batch, shard, 2, 3)), draft((batch, shard, 0, 4)), a=(batch, Reason.RUNNING))
    with pytest.raises(ConflictError, match="withdrawn since"):
        dispatch(world, draft((batch, shard, 2, 3), (withdrawn, gone, 0, 4)), a=(batch, Reason.RUNNING))

    assert world.scalars("SELECT count(*) FROM packs") == [1]
    assert world.scalars("SELECT rows_packed FROM shards ORDER BY id") == [2, 0]
    assert world.scalars("SELECT reason FROM batches WHERE id = :id", id=batch) == ["queued"]


def test_a_standing_is_decided_once_for_each_change_of_reason(world: World) -> None:
    batch, withdrawn = world.admit(1), world.admit(1)
    world.batches.cancel(withdrawn)

    for reason in (Reason.QUEUED, Reason.NO_WORKER, Reason.NO_WORKER, Reason.RUNNING, Reason.RUNNING):
        dispatch(world, a=(batch, reason), b=(withdrawn, reason))

    story = "SELECT reason || ' ' || coalesce(epoch::text, '-') FROM decisions WHERE batch_id = :id ORDER BY id"
    epoch = world.leadership.epoch
    assert world.scalars(story, id=batch) == ["queued -", f"no_worker {epoch}", f"running {epoch}"]
    assert world.scalars(story, id=withdrawn) == ["queued -", "user_cancelled -"]


# --- advancing --------------------------------------------------------------------------------


def test_batches_advance_when_done_overdue_or_without_a_row_to_run(world: World) -> None:
    done, overdue, running, late_but_done = (world.admit(2) for _ in range(4))
    worker = world.worker()
    world.finish_rows(done, worker)
    world.finish_rows(late_but_done, worker)
    world.overdue(overdue)
    world.overdue(late_but_done)
    refused = world.submit()
    world.batches.admit(
        refused, Admitted(rows_total=3, rows_duplicate=0, rows_refused=3, shards=(), rosters=(), refusals=None)
    )

    assert world.advance() == 4
    assert world.advance() == 0

    views = {batch: world.batches.get(batch) for batch in (done, overdue, running, late_but_done, refused.batch_id)}
    assert [(view.state.value, view.reason) for view in views.values()] == [
        ("finalizing", Reason.ALL_COMMITTED),
        ("finalizing", Reason.DEADLINE_PASSED),
        ("in_progress", Reason.QUEUED),
        ("finalizing", Reason.ALL_COMMITTED),
        ("finalizing", Reason.ALL_COMMITTED),
    ]
    last = "SELECT reason FROM decisions WHERE batch_id = :id ORDER BY id DESC LIMIT 1"
    assert world.scalars(last, id=overdue) == ["deadline_passed"]


def test_waiting_packs_without_rows_are_discarded_and_shared_ones_stay(world: World) -> None:
    kept, gone = world.admit(2), world.admit(6)
    (kept_shard,), (gone_shard,) = world.shard_ids(kept), world.shard_ids(gone)
    running, half_done, mine, shared = (
        draft((gone, gone_shard, 0, 2), ordinal=0),
        draft((kept, kept_shard, 0, 1), (gone, gone_shard, 2, 3), ordinal=1),
        draft((gone, gone_shard, 3, 4), ordinal=2),
        draft((kept, kept_shard, 1, 2), (gone, gone_shard, 4, 6), ordinal=3),
    )
    dispatch(world, running, half_done, mine, shared)
    worker = world.worker()
    world.lease(worker)
    lease = world.lease(worker)
    world.packs.commit(worker, world.work(worker, lease, (kept, kept_shard, ((0, 1),), 8)))
    assert world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.PREEMPTED) is Verdict.RETRY
    world.batches.cancel(gone)

    world.advance()

    states = dict(zip(world.scalars("SELECT id FROM packs"), world.scalars("SELECT state FROM packs"), strict=True))
    assert states == {
        running.pack_id: "leased",
        half_done.pack_id: "discarded",
        mine.pack_id: "discarded",
        shared.pack_id: "ready",
    }
    assert world.lease(worker).pack_id == shared.pack_id


def test_a_lease_passes_over_packs_that_a_cancel_has_just_emptied(world: World) -> None:
    gone, kept = world.admit(2), world.admit(1)
    (gone_shard,) = world.shard_ids(gone)
    emptied = [world.pack((gone, gone_shard, row, row + 1), ordinal=row) for row in range(2)]
    pack = world.pack((kept, world.shard_ids(kept)[0], 0, 1), ordinal=9)
    world.batches.cancel(gone)
    worker = world.worker()

    assert world.lease(worker).pack_id == pack
    assert world.packs.lease(worker, pool="local", variants=["echo"]) is None
    assert world.scalars("SELECT id FROM packs WHERE state = 'discarded' ORDER BY id") == emptied
    assert world.scalars("SELECT count(*) FROM attempts") == [1]


# --- hints ------------------------------------------------------------------------------------


def test_a_waiting_pack_is_hinted_once_then_again_after_a_while(world: World) -> None:
    batch = world.admit(4)
    (shard,) = world.shard_ids(batch)
    first, second, third, resting = (world.pack((batch, shard, row, row + 1), ordinal=row) for row in range(4))
    world.execute("UPDATE packs SET available_at = now() + interval '1 h' WHERE id = :id", id=resting)
    worker = world.worker()
    lease = world.lease(worker)

    assert lease.pack_id == first
    assert sorted(world.cycles.due_hints(again_after=AGAIN)) == [(second, "local"), (third, "local")]
    assert world.cycles.due_hints(again_after=AGAIN) == []
    world.execute("UPDATE packs SET hinted_at = hinted_at - interval '6 min' WHERE id = :id", id=third)
    assert world.cycles.due_hints(again_after=AGAIN) == [(third, "local")]
    # A pack that is handed back is news at once.
    world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.PREEMPTED)
    assert world.cycles.due_hints(again_after=AGAIN) == [(first, "local")]


def test_packs_no_live_worker_can_serve_leave_the_room_to_others(world: World) -> None:
    batch = world.admit(10)
    (shard,) = world.shard_ids(batch)
    world.pack((batch, shard, 0, 5))
    world.pack((batch, shard, 5, 10))
    world.execute("UPDATE packs SET model = 'gone', variant = 'gone'")
    world.worker()

    (pool,) = world.cycles.snapshot().pools

    assert pool.packs_waiting == 0


def test_a_batch_whose_packs_lost_their_last_worker_says_so(world: World) -> None:
    batch = world.admit(1)
    world.pack((batch, world.shard_ids(batch)[0], 0, 1))
    plan = decide(world.cycles.snapshot(), Policy(), new_pack_id)

    assert plan.standings == (Standing(batch_id=batch, reason=Reason.NO_WORKER),)


def test_waiting_packs_of_a_batch_that_presses_go_first(world: World) -> None:
    calm, pressing = world.admit(2), world.admit(2)
    first = world.pack((calm, *world.shard_ids(calm), 0, 2), ordinal=1.0)
    second = world.pack((pressing, *world.shard_ids(pressing), 0, 2), ordinal=2.0)

    plan = CyclePlan(packs=(), standings=(), pressing=((pressing, -5.0),))
    world.cycles.dispatch(world.leadership.epoch, plan)

    worker = world.worker()
    assert [world.lease(worker).pack_id for _ in range(2)] == [second, first]
