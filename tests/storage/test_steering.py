from __future__ import annotations

from datetime import timedelta

import pytest

from pipeline.domain.errors import ConflictError, NotFoundError
from pipeline.domain.ids import BatchId
from pipeline.domain.lifecycle import AttemptOutcome
from pipeline.domain.promises import Promise
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import Steering
from pipeline.ports.cycle import CyclePlan, WorkSize
from tests.storage.world import World


def shard_of(world: World, batch_id: BatchId) -> int:
    (shard_id,) = world.shard_ids(batch_id)
    return shard_id


def waiting(world: World) -> int:
    return sum(pool.packs_waiting for pool in world.cycles.snapshot().pools)


def test_only_what_is_named_changes(shared: World) -> None:
    batch = shared.admit(2)
    before = shared.batches.get(batch)
    sooner = before.deadline_at - timedelta(hours=3)

    shared.batches.steer(batch, Steering(tier=Tier.BULK))
    shared.batches.steer(batch, Steering(budget_micros=5))
    after = shared.batches.steer(batch, Steering(deadline_at=sooner, hold_until=before.created_at))

    assert (after.tier, after.budget_micros, after.deadline_at, after.hold_until, after.paused_at) == (
        Tier.BULK, 5, sooner, before.created_at, None,
    )  # fmt: skip
    assert shared.batches.steer(batch, Steering(budget_micros=None, hold_until=None)).budget_micros is None
    assert shared.batches.get(batch).hold_until is None


def test_a_pause_is_said_at_once_and_recorded_once(shared: World) -> None:
    batch = shared.admit(2)

    first = shared.batches.steer(batch, Steering(is_paused=True))
    second = shared.batches.steer(batch, Steering(is_paused=True))

    assert first.reason is Reason.USER_PAUSED
    assert first.paused_at == second.paused_at is not None
    said = shared.scalars("SELECT reason FROM decisions WHERE batch_id = :id ORDER BY id", id=batch)
    assert said == ["queued", "user_paused"]
    assert shared.batches.steer(batch, Steering(is_paused=False)).paused_at is None


def test_what_has_ended_cannot_be_changed(shared: World) -> None:
    batch = shared.admit(2)
    shared.batches.cancel(batch)

    with pytest.raises(ConflictError, match="status 'cancelling'"):
        shared.batches.steer(batch, Steering(is_paused=True))
    assert shared.batches.get(batch).paused_at is None
    with pytest.raises(NotFoundError):
        shared.batches.steer("batch_none", Steering(is_paused=True))


def test_a_paused_batch_alone_in_its_pack_is_not_leased(world: World) -> None:
    paused, other = world.admit(2), world.admit(2)
    world.pack((paused, shard_of(world, paused), 0, 2), ordinal=0.0)
    world.pack((other, shard_of(world, other), 0, 2), ordinal=1.0)
    world.batches.steer(paused, Steering(is_paused=True))
    worker = world.worker()

    assert waiting(world) == 1
    lease = world.lease(worker)
    assert {part.batch_id for part in lease.slices} == {other}
    assert world.packs.lease(worker, pool="local", variants=["echo"]) is None
    hinted = world.cycles.due_hints(again_after=timedelta(0))
    assert hinted == []

    world.batches.steer(paused, Steering(is_paused=False))
    assert {part.batch_id for part in world.lease(worker).slices} == {paused}


def test_a_paused_batch_goes_along_in_a_pack_it_shares(world: World) -> None:
    paused, other = world.admit(2), world.admit(2)
    world.pack((paused, shard_of(world, paused), 0, 2), (other, shard_of(world, other), 0, 2))
    world.batches.steer(paused, Steering(is_paused=True))

    assert waiting(world) == 0  # there is no worker yet
    lease = world.lease(world.worker())

    assert {part.batch_id for part in lease.slices} == {paused, other}


def test_a_pack_that_runs_finishes_though_its_batch_is_paused(world: World) -> None:
    batch = world.admit(2)
    world.pack((batch, shard_of(world, batch), 0, 2))
    worker = world.worker()
    lease = world.lease(worker)
    world.batches.steer(batch, Steering(is_paused=True))

    world.packs.commit(worker, world.work(worker, lease, (batch, shard_of(world, batch), ((0, 2),), 8)))
    world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.SUCCEEDED)

    assert world.batches.get(batch).rows_succeeded == 2


def test_a_paused_batch_can_be_cancelled_and_its_pack_goes(world: World) -> None:
    batch = world.admit(2)
    world.pack((batch, shard_of(world, batch), 0, 2))
    world.batches.steer(batch, Steering(is_paused=True))

    world.batches.cancel(batch)
    world.advance()

    assert world.scalars("SELECT state FROM packs") == ["discarded"]


def test_an_answer_to_old_terms_is_dropped_and_a_nearer_deadline_is_asked_about_again(world: World) -> None:
    batch = world.admit(2)
    made = CyclePlan(packs=(), standings=(), promises=((batch, Promise.MADE),))
    world.cycles.dispatch(world.leadership.epoch, made)
    deadline = world.batches.get(batch).deadline_at

    later = world.batches.steer(batch, Steering(deadline_at=deadline + timedelta(hours=1)))
    nearer = world.batches.steer(batch, Steering(deadline_at=deadline))
    assert (later.promise, nearer.promise) == (Promise.MADE, Promise.PENDING)
    world.cycles.dispatch(
        world.leadership.epoch, CyclePlan(packs=(), standings=(), promises=((batch, Promise.DECLINED),))
    )
    world.cycles.dispatch(world.leadership.epoch, made)

    assert world.batches.get(batch).promise is Promise.DECLINED


def test_the_snapshot_tells_the_cycle_all_of_it(world: World) -> None:
    batch = world.admit(4)
    hold_until = world.batches.get(batch).created_at + timedelta(hours=1)
    world.batches.steer(batch, Steering(is_paused=True, hold_until=hold_until))
    world.finish_rows(world.admit(2), world.worker())

    (backlog,) = world.cycles.snapshot().backlogs

    assert (backlog.is_paused, backlog.promise) == (True, Promise.PENDING)
    assert backlog.hold_until_us == round(hold_until.timestamp() * 1e6)
    assert backlog.left == WorkSize(rows=4, input_tokens=40, output_tokens=40)


def test_a_retried_submit_finds_its_batch_though_its_terms_were_changed(shared: World) -> None:
    submission = shared.submission(key="nightly-1")
    batch = shared.batches.submit(submission)
    shared.batches.steer(batch.batch_id, Steering(tier=Tier.URGENT, budget_micros=7))

    assert shared.batches.submit(submission).batch_id == batch.batch_id


def test_labels_and_metadata_are_replaced_or_removed(shared: World) -> None:
    batch = shared.admit(2)

    given = shared.batches.steer(batch, Steering(labels={"team": "a"}, metadata={"who": "me"}, priority=3))
    kept = shared.batches.steer(batch, Steering(tier=Tier.BULK))
    removed = shared.batches.steer(batch, Steering(labels=None, metadata=None))

    assert (given.labels, given.metadata, given.priority) == ({"team": "a"}, {"who": "me"}, 3)
    assert (kept.labels, kept.metadata, kept.priority) == ({"team": "a"}, {"who": "me"}, 3)
    assert (removed.labels, removed.metadata) == (None, None)


def test_a_deadline_that_has_passed_is_refused(shared: World) -> None:
    batch = shared.admit(2)
    before = shared.batches.get(batch)

    with pytest.raises(ConflictError, match="has passed"):
        shared.batches.steer(batch, Steering(deadline_at=before.created_at - timedelta(days=1), tier=Tier.BULK))

    assert shared.batches.get(batch) == before
