"""A scheduler that reads again only what may have changed sees what one sees that reads everything."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from random import Random

import pytest
from sqlalchemy import text

from pipeline.domain.ids import BatchId, new_pack_id
from pipeline.domain.lifecycle import AttemptOutcome
from pipeline.domain.promises import Promise
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import Steering
from pipeline.ports.cycle import Backlog, CyclePlan, Standing
from scheduler.cycle import decide
from scheduler.policy import Policy
from storage import changes
from storage.cycles import CycleRepository
from tests.storage.world import LEASE, World, admitted

STEPS = 40


class Floor:
    """A world with a scheduler that remembers, a worker, and things that happen to its batches."""

    def __init__(self, world: World, random: Random) -> None:
        self.world = world
        self.random = random
        self.cycles = CycleRepository(world.database, silence=LEASE)
        self.worker_id = world.worker()
        self.batch_ids: list[BatchId] = []

    def submit(self) -> None:
        claim = self.world.submit(tier=self.random.choice(list(Tier)))
        self.batch_ids.append(claim.batch_id)
        if self.random.random() < 0.8:
            rows = [self.random.randint(1, 30) for _ in range(self.random.randint(1, 3))]
            self.world.batches.admit(claim, admitted(claim.batch_id, *rows))

    def cycle(self) -> None:
        epoch = self.world.leadership.epoch
        self.cycles.advance_batches(epoch)
        policy = Policy(pack_rows_min=1, pack_seconds_target=0.5, promises_a_cycle=2)
        self.cycles.dispatch(epoch, decide(self.cycles.snapshot(), policy, new_pack_id))

    def run(self) -> None:
        lease = self.world.packs.lease(self.worker_id, pool="local", variants=["echo"])
        if lease is None:
            return
        done = [(part.batch_id, part.shard_id, part.ranges, 5) for part in lease.slices]
        kept = done[: self.random.randint(0, len(done))]
        if kept:
            self.world.packs.commit(self.worker_id, self.world.work(self.worker_id, lease, *kept))
        outcome = AttemptOutcome.SUCCEEDED if len(kept) == len(done) else AttemptOutcome.FAILED
        self.world.packs.finish(lease.pack_id, lease.lease_token, outcome)

    def steer(self) -> None:
        if self.batch_ids:
            batch_id = self.random.choice(self.batch_ids)
            live = self.world.scalars(
                "SELECT id FROM batches WHERE id = :id AND state IN ('validating', 'in_progress')", id=batch_id
            )
            if live:
                changes = [
                    Steering(is_paused=self.random.random() < 0.5),
                    Steering(budget_micros=self.random.choice([None, 1, 1000])),
                    Steering(tier=self.random.choice(list(Tier))),
                ]
                self.world.batches.steer(batch_id, self.random.choice(changes))

    def expire(self) -> None:
        if self.batch_ids:
            self.world.overdue(self.random.choice(self.batch_ids))


def happenings(floor: Floor) -> list[Callable[[], None]]:
    return [floor.submit, floor.cycle, floor.cycle, floor.run, floor.run, floor.steer] + (
        [floor.expire] if floor.random.random() < 0.1 else []
    )


def everything(world: World) -> set[Backlog]:
    return set(CycleRepository(world.database, silence=LEASE).snapshot().backlogs)


def compare(world: World, seed: int) -> None:
    floor = Floor(world, Random(seed))
    for _ in range(STEPS):
        floor.random.choice(happenings(floor))()
        if floor.random.random() < 0.5:
            assert set(floor.cycles.snapshot().backlogs) == everything(world)


def compare_all(world: World) -> None:
    for seed in range(4):
        compare(world, seed)


@pytest.mark.parametrize("seed", range(4))
def test_a_second_look_sees_what_a_first_one_would(world: World, seed: int) -> None:
    compare(world, seed)


def test_batches_end_whoever_settled_their_last_pack(world: World) -> None:
    floor = Floor(world, Random(0))
    floor.cycle()
    batch_id = world.admit(3)
    floor.cycle()
    floor.run()
    while world.scalars("SELECT 1 FROM shards WHERE rows_succeeded < rows_total"):
        floor.run()
    # It ended after the advance, and before the snapshot of the same cycle, which settles it.
    floor.cycles.dispatch(world.leadership.epoch, decide(floor.cycles.snapshot(), Policy(), new_pack_id))

    floor.cycles.advance_batches(world.leadership.epoch)

    assert world.scalars("SELECT state FROM batches WHERE id = :id", id=batch_id) == ["finalizing"]


def test_a_batch_without_a_row_to_run_ends_whenever_it_was_admitted(world: World) -> None:
    floor = Floor(world, Random(0))
    floor.cycle()
    floor.cycles.advance_batches(world.leadership.epoch)
    # After the advance, and before the snapshot of the same cycle: all its rows were refused, so no pack will move it.
    batch_id = world.admit()
    floor.cycles.snapshot()

    floor.cycles.advance_batches(world.leadership.epoch)

    assert world.scalars("SELECT state FROM batches WHERE id = :id", id=batch_id) == ["finalizing"]


def test_a_change_that_was_under_way_at_one_look_is_seen_at_the_next(world: World) -> None:
    cycles = CycleRepository(world.database, silence=LEASE)
    first, second = world.admit(3), world.admit(3)
    cycles.snapshot()
    pause = text("UPDATE batches SET paused_at = now() WHERE id = :id")
    with world.database.transaction() as connection:
        connection.execute(pause, {"id": first})
        # Later transactions come and go in the meantime.
        world.execute("UPDATE batches SET paused_at = now() WHERE id = :id", id=second)
        assert {each.batch_id for each in cycles.snapshot().backlogs if each.is_paused} == {second}

    assert {each.batch_id for each in cycles.snapshot().backlogs if each.is_paused} == {first, second}


def test_only_what_may_have_changed_is_read_again(world: World) -> None:
    cycles = CycleRepository(world.database, silence=LEASE)
    quiet, changed = world.admit(3), world.admit(3)
    before = {each.batch_id: each for each in cycles.snapshot().backlogs}
    cycles.snapshot()
    standing = Standing(batch_id=changed, reason=Reason.HELD)
    cycles.dispatch(world.leadership.epoch, CyclePlan(packs=(), standings=(standing,)))

    after = {each.batch_id: each for each in cycles.snapshot().backlogs}

    assert after[quiet] is before[quiet]
    assert after[changed].reason is Reason.HELD
    assert after[changed].promise is Promise.PENDING


MUTANTS = {
    "no packs on their way": ("_MOVING", text("SELECT id FROM batches WHERE false")),
    "no changes": ("_CHANGED", text("SELECT id FROM batches WHERE changed_by > :since + 1000000")),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_look_that_leaves_something_out_is_caught(world: World, mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, *MUTANTS[mutant])

    with pytest.raises(AssertionError):
        compare_all(world)


def test_everything_is_read_again_now_and_then(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cycles = CycleRepository(world.database, silence=LEASE)
    batch_id = world.admit(3)
    cycles.snapshot()
    # Behind the trigger's back, as no one does.
    world.execute("ALTER TABLE batches DISABLE TRIGGER batches_mark_change")
    world.execute("UPDATE batches SET deadline_at = now() + interval '7 h', changed_by = 0 WHERE id = :id", id=batch_id)
    world.execute("ALTER TABLE batches ENABLE TRIGGER batches_mark_change")
    (stale,) = cycles.snapshot().backlogs

    monkeypatch.setattr(changes, "_LOOK_AT_ALL_SECONDS", timedelta(0).total_seconds() - 1)
    (fresh,) = cycles.snapshot().backlogs

    assert stale.deadline_at_us != fresh.deadline_at_us


def test_a_changed_priority_is_seen_at_the_next_look(world: World) -> None:
    batch = world.admit(2)
    cycles = CycleRepository(world.database, silence=LEASE)
    (before,) = cycles.snapshot().backlogs

    world.batches.steer(batch, Steering(priority=-7))

    (after,) = cycles.snapshot().backlogs
    assert (before.priority, after.priority) == (0, -7)
