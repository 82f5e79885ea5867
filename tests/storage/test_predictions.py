from __future__ import annotations

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import NotLeaderError
from pipeline.domain.ids import BatchId, PackId, WorkerId, new_pack_id, new_part_id
from pipeline.domain.lifecycle import AttemptOutcome, IntervalKind
from pipeline.domain.sketches import LengthSketch
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import CyclePlan, Learned, LearnedKind, PackDraft, SliceDraft, WorkSize
from pipeline.ports.packs import PartDraft, ShardRows, WorkCommit
from tests.storage.world import SHA, World


def dispatched(world: World, *rows: tuple[BatchId, int, int, float]) -> PackId:
    """Dispatch one pack of (batch, start, stop, predicted seconds) slices."""
    draft = PackDraft(
        pack_id=new_pack_id(), pool="local", model="echo", variant="echo", endpoint=Endpoint.CHAT_COMPLETIONS,
        tier=Tier.BULK, ordinal=0.0, predicted_seconds=sum(seconds for *_, seconds in rows),
        slices=tuple(
            SliceDraft(
                batch_id=batch, shard_id=world.shard_ids(batch)[0], row_start=start, row_stop=stop,
                predicted_seconds=seconds,
            )
            for batch, start, stop, seconds in rows
        ),
    )  # fmt: skip
    world.cycles.dispatch(world.leadership.epoch, CyclePlan(packs=(draft,), standings=()))
    return draft.pack_id


def commit(world: World, worker: WorkerId, *rows: tuple[BatchId, int, int, list[int]], seconds: float) -> None:
    """Lease a pack, commit rows [start, stop) of batches with answers of these lengths, and end the attempt."""
    lease = world.lease(worker)
    parts = tuple(
        PartDraft(
            part_id=(part_id := new_part_id()), batch_id=batch, object_key=f"parts/{part_id}", sha256=SHA, size_bytes=1,
            shards=(
                ShardRows(
                    shard_id=world.shard_ids(batch)[0], ranges=((start, stop),), rows_succeeded=stop - start,
                    rows_errored=0, input_tokens=8 * (stop - start), output_tokens=sum(lengths),
                    output_lengths=LengthSketch.of(lengths).as_plain(),
                ),
            ),
            input_tokens=8 * (stop - start), output_tokens=sum(lengths),
        )
        for batch, start, stop, lengths in rows
    )  # fmt: skip
    interval = world.span(worker, IntervalKind.WORK, round(seconds * 1e6))
    world.packs.commit(
        worker, WorkCommit(pack_id=lease.pack_id, lease_token=lease.lease_token, parts=parts, interval=interval)
    )
    world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.SUCCEEDED)


def settle(world: World, *packs: PackId, learned: tuple[Learned, ...] = ()) -> None:
    plan = CyclePlan(packs=(), standings=(), settled=packs, learned=learned)
    world.cycles.dispatch(world.leadership.epoch, plan)


def test_a_pack_that_ended_is_told_with_what_each_batch_had_in_it(world: World) -> None:
    small, large = world.admit(2), world.admit(6)
    pack = dispatched(world, (small, 0, 2, 0.5), (large, 0, 4, 2.0))
    assert world.cycles.snapshot().ended == ()
    commit(world, world.worker(), (small, 0, 2, [3, 3]), (large, 0, 4, [30, 30, 30, 5]), seconds=4.0)

    (ended,) = world.cycles.snapshot().ended

    assert (ended.pack_id, ended.seconds, ended.is_clean, ended.tier) == (pack, 4.0, True, Tier.BULK)
    of_small, of_large = sorted(ended.shares, key=lambda share: share.predicted_seconds)
    assert (of_small.batch_id, of_small.predicted_seconds) == (small, 0.5)
    assert of_small.actual == WorkSize(rows=2, input_tokens=16, output_tokens=6)
    assert of_small.estimated == WorkSize(rows=2, input_tokens=20, output_tokens=20)
    assert (of_large.batch_id, of_large.predicted_seconds) == (large, 2.0)
    assert of_large.actual == WorkSize(rows=4, input_tokens=32, output_tokens=95)
    assert LengthSketch.from_plain(of_large.lengths).total == 4


def test_what_is_settled_is_told_no_more(world: World) -> None:
    batch = world.admit(2)
    pack = dispatched(world, (batch, 0, 2, 1.0))
    commit(world, world.worker(), (batch, 0, 2, [1, 1]), seconds=1.0)

    settle(world, pack)

    assert world.cycles.snapshot().ended == ()


def test_a_pack_in_several_attempts_is_not_clean(world: World) -> None:
    batch = world.admit(2)
    dispatched(world, (batch, 0, 2, 1.0))
    worker = world.worker()
    handed_back = world.lease(worker)
    world.packs.finish(handed_back.pack_id, handed_back.lease_token, AttemptOutcome.PREEMPTED)
    commit(world, worker, (batch, 0, 2, [1, 1]), seconds=1.0)

    (ended,) = world.cycles.snapshot().ended

    assert (ended.is_clean, ended.seconds) == (False, 1.0)


def test_a_withdrawn_pack_is_told_as_charged_and_not_run(world: World) -> None:
    batch = world.admit(2)
    dispatched(world, (batch, 0, 2, 1.0))
    world.batches.cancel(batch)
    world.advance()

    (ended,) = world.cycles.snapshot().ended

    assert (ended.seconds, ended.is_clean) == (0.0, False)
    assert [(share.predicted_seconds, share.actual.rows) for share in ended.shares] == [(1.0, 0)]


def test_a_bisected_pack_hands_its_charge_on_to_its_halves(world: World) -> None:
    batch = world.admit(4)
    dispatched(world, (batch, 0, 4, 2.0))
    worker = world.worker()
    for _ in range(2):
        world.execute("UPDATE packs SET available_at = now()")
        lease = world.lease(worker)
        world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.FAILED, "boom")

    halves = world.scalars("SELECT predicted_seconds FROM pack_slices")

    assert halves == [1.0, 1.0]
    (ended,) = world.cycles.snapshot().ended
    assert (ended.shares, ended.is_clean) == ((), False)


def test_what_was_learned_outlives_its_leader_and_is_replaced_not_added(world: World) -> None:
    old = Learned(kind=LearnedKind.PACE, subject="m@int8", detail="cpu", state={"weight": 1.0})
    new = Learned(kind=LearnedKind.PACE, subject="m@int8", detail="cpu", state={"weight": 2.0})
    batch = world.admit(2)
    pack = dispatched(world, (batch, 0, 2, 1.0))
    commit(world, world.worker(), (batch, 0, 2, [1, 1]), seconds=1.0)

    settle(world, pack, learned=(old,))
    settle(world, pack, learned=(new,))

    assert world.cycles.predictions() == (new,)


def test_a_deposed_leader_teaches_nobody(world: World) -> None:
    learned = Learned(kind=LearnedKind.PACE, subject="m", detail="cpu", state={})
    plan = CyclePlan(packs=(), standings=(), settled=(PackId("pack_a"),), learned=(learned,))

    with pytest.raises(NotLeaderError):
        world.cycles.dispatch(world.leadership.epoch - 1, plan)
    assert world.cycles.predictions() == ()
