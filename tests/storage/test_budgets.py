"""Budgets hold on the real store: what is spent and what open packs reserve, whatever fails in between."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import BatchId, PackId, new_pack_id
from pipeline.domain.lifecycle import AttemptOutcome
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import CyclePlan, PackDraft, SliceDraft
from scheduler.cycle import decide
from scheduler.policy import Policy
from storage import backlogs
from storage.cycles import CycleRepository
from tests.storage.world import LEASE, World, admitted

#: A row is twenty tokens; a worker costs a thousand micro-units a second.
# What packs take beyond their rows has tests of its own.
POLICY = Policy(
    pack_rows_min=1,
    pack_seconds_target=0.2,
    first_pack_seconds=0.2,
    default_tokens_per_second=500.0,
    pack_fixed_seconds=0.0,
)
ROW_MICROS = 60
STEPS = 60


class Till:
    """Batches with budgets, and a worker whose attempts end in every way there is."""

    def __init__(self, world: World, random: Random) -> None:
        self.world, self.random = world, random
        self.cycles = CycleRepository(world.database, silence=LEASE)
        self.worker_id = world.worker()
        self.budgets: dict[BatchId, int] = {}

    def submit(self) -> None:
        budget = self.random.choice([ROW_MICROS, self.random.randint(1, 5_000)])
        submitted = self.world.batches.submit(
            self.world.submission(tier=self.random.choice(list(Tier)), budget_micros=budget)
        )
        claim = self.world.batches.first_claim(submitted)
        assert claim is not None
        self.world.batches.admit(claim, admitted(claim.batch_id, self.random.randint(1, 40), self.random.randint(1, 9)))
        self.budgets[claim.batch_id] = budget

    def cycle(self) -> None:
        epoch = self.world.leadership.epoch
        self.cycles.advance_batches(epoch)
        # Measured speeds are what this worker drew: the bound of these rows is that of the assumed one.
        seen = self.cycles.snapshot()
        self.cycles.dispatch(epoch, decide(replace(seen, tokens_per_second={}, ended=()), POLICY, new_pack_id))

    def run(self) -> None:
        lease = self.world.packs.lease(self.worker_id, pool="local", variants=["echo"])
        if lease is None:
            return
        kept = [
            (part.batch_id, part.shard_id, ((start, start + self.random.randint(1, stop - start)),))
            for part in lease.slices
            for start, stop in part.ranges[:1]
            if self.random.random() < 0.7
        ]
        if kept:
            rows = sum(stop - start for *_, ((start, stop),) in kept)
            commit = self.world.work(
                self.worker_id,
                lease,
                *((batch, shard, ranges, 20 * (ranges[0][1] - ranges[0][0])) for batch, shard, ranges in kept),
                duration_us=1 + round(rows * ROW_MICROS * 1000 * self.random.uniform(0, 0.9)),
            )
            self.world.packs.commit(self.worker_id, commit)
        if self.random.random() < 0.3:
            self.world.expire(lease.pack_id)
            self.cycles.rescue(self.world.leadership.epoch)
        else:
            outcome = self.random.choice([AttemptOutcome.FAILED, AttemptOutcome.PREEMPTED])
            done = sum(stop - start for *_, ((start, stop),) in kept)
            whole = sum(stop - start for part in lease.slices for start, stop in part.ranges)
            self.world.packs.finish(
                lease.pack_id, lease.lease_token, AttemptOutcome.SUCCEEDED if done == whole else outcome
            )
        self.world.execute("UPDATE packs SET available_at = now() WHERE state = 'retryable'")

    def check(self) -> None:
        reserved = reserved_now(self.world)
        for batch_id, budget in self.budgets.items():
            assert spent(self.world, batch_id) + reserved.get(batch_id, 0) <= budget


def reserved_now(world: World) -> dict[str, int]:
    """Return what open packs reserve, pack by pack, worked out apart from the scheduler's reads."""
    paid = {
        (row.pack_id, row.account): int(row.micros)
        for row in world.rows(
            "SELECT pack_id, account, sum(amount_micros) AS micros FROM accruals"
            " JOIN worker_intervals USING (worker_id, start_us) WHERE pack_id IS NOT NULL GROUP BY 1, 2"
        )
    }
    reserved: dict[str, int] = {}
    for row in world.rows(
        "SELECT pack_id, batch_id, sum(reserved_micros) AS micros FROM pack_slices JOIN packs ON packs.id = pack_id"
        " WHERE ended_at IS NULL GROUP BY 1, 2"
    ):
        left = max(0, int(row.micros) - paid.get((row.pack_id, row.batch_id), 0))
        reserved[row.batch_id] = reserved.get(row.batch_id, 0) + left
    return reserved


def spent(world: World, batch_id: BatchId) -> int:
    (found,) = world.scalars("SELECT coalesce(sum(amount_micros), 0) FROM accruals WHERE batch_id = :id", id=batch_id)
    return int(str(found))


def work(world: World, seed: int) -> Till:
    till = Till(world, Random(seed))
    for number in range(STEPS):
        if number % 12 == 0:
            till.submit()
        till.random.choice([till.cycle, till.run, till.run])()
        till.check()
    return till


def work_all(world: World) -> None:
    for seed in range(3):
        work(world, seed)


@pytest.mark.parametrize("seed", range(3))
def test_spent_and_reserved_stay_within_the_budget(world: World, seed: int) -> None:
    till = work(world, seed)

    assert any(spent(world, batch_id) > 0 for batch_id in till.budgets)


def test_a_reservation_that_is_forgotten_is_caught(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlogs, "read_reserved", lambda _connection: ())

    with pytest.raises(AssertionError):
        work_all(world)


def reserving(world: World, batch_id: BatchId, micros: int, *, rows: int) -> PackId:
    (shard_id,) = world.shard_ids(batch_id)
    draft = PackDraft(
        pack_id=new_pack_id(), pool="local", model="echo", variant="echo", endpoint=Endpoint.CHAT_COMPLETIONS, tier=Tier.STANDARD,
        ordinal=0.0, predicted_seconds=1.0,
        slices=(
            SliceDraft(batch_id=batch_id, shard_id=shard_id, row_start=0, row_stop=rows, reserved_micros=micros),
        ),
    )  # fmt: skip
    world.cycles.dispatch(world.leadership.epoch, CyclePlan(packs=(draft,), standings=()))
    return draft.pack_id


def reserved_of(world: World, batch_id: BatchId) -> int:
    return next(each.reserved_micros for each in world.cycles.snapshot().backlogs if each.batch_id == batch_id)


def test_what_a_pack_has_cost_so_far_is_no_longer_reserved(world: World) -> None:
    batch_id, worker_id = budgeted(world, rows=20), world.worker()
    reserving(world, batch_id, 5_000, rows=10)
    (shard_id,) = world.shard_ids(batch_id)
    lease = world.lease(worker_id)

    assert reserved_of(world, batch_id) == 5_000
    world.packs.commit(worker_id, world.work(worker_id, lease, (batch_id, shard_id, ((0, 4),), 8)))  # for a second

    assert reserved_of(world, batch_id) == 4_000
    world.packs.commit(
        worker_id, world.work(worker_id, lease, (batch_id, shard_id, ((4, 10),), 8), duration_us=9_000_000)
    )
    assert reserved_of(world, batch_id) == 0


def test_a_pack_that_is_tried_again_keeps_its_reservation(world: World) -> None:
    batch_id, worker_id = budgeted(world, rows=20), world.worker()
    reserving(world, batch_id, 5_000, rows=10)
    waiting = reserved_of(world, batch_id)
    lease = world.lease(worker_id)
    running = reserved_of(world, batch_id)

    world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.FAILED, "boom")

    assert (waiting, running, reserved_of(world, batch_id)) == (5_000, 5_000, 5_000)


def test_a_pack_that_has_ended_reserves_nothing(world: World) -> None:
    batch_id, worker_id = budgeted(world, rows=20), world.worker()
    reserving(world, batch_id, 5_000, rows=10)
    (shard_id,) = world.shard_ids(batch_id)
    lease = world.lease(worker_id)
    world.packs.commit(worker_id, world.work(worker_id, lease, (batch_id, shard_id, ((0, 10),), 8)))

    world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.SUCCEEDED)

    assert reserved_of(world, batch_id) == 0


def test_a_bisected_pack_hands_on_what_it_has_not_spent(world: World) -> None:
    batch_id, worker_id = budgeted(world, rows=20), world.worker()
    reserving(world, batch_id, 5_001, rows=10)
    (shard_id,) = world.shard_ids(batch_id)
    lease = world.lease(worker_id)
    world.packs.commit(worker_id, world.work(worker_id, lease, (batch_id, shard_id, ((0, 3),), 8)))
    while world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.FAILED, "boom") != "bisect":
        world.execute("UPDATE packs SET available_at = now() WHERE state = 'retryable'")
        lease = world.lease(worker_id)

    assert reserved_of(world, batch_id) == 4_001
    assert sorted(world.scalars("SELECT reserved_micros FROM pack_slices")) == [1715, 2286]


def budgeted(world: World, *, rows: int) -> BatchId:
    claim = world.batches.first_claim(world.batches.submit(world.submission(budget_micros=1_000_000)))
    assert claim is not None
    world.batches.admit(claim, admitted(claim.batch_id, rows))
    return claim.batch_id
