"""P1: a worker idles only where nothing is queued that it could run.

Looked at after every cycle and its leases, in every pool: no worker that is here is without a pack while a batch has
rows in no pack that the pool may run: not paused, in budget, before its deadline, not held, of a model and tier that the
pool offers. That holds because each cycle fills every pool up to `packs_ahead_per_worker` >= 1 packs a live worker
beyond those that run, in rounds over all pools, and ends short of that only where no cursor the pool serves has a row
left; and because whatever may change the answer starts a cycle.
"""

from __future__ import annotations

from random import Random

import pytest

from tests.scheduler.properties import mutants
from tests.scheduler.properties.cast import Batch
from tests.scheduler.properties.scenarios import SPEEDS, families, policy_of, pools_of, stream
from tests.scheduler.properties.world import World

SECONDS = 150.0


def no_worker_idles_with_work_queued(seed: int) -> None:
    random = Random(seed)
    batches = [*families(random, tiers=2, tenants=2, batches=2), *stream(random, count=20, every=6.0)]
    for batch in batches:
        batch.rows = min(batch.rows, random.choice([5, 60, 400]))
        batch.at = batch.at or random.choice([0.0, random.uniform(0, SECONDS)])
        # What a budget pays for is the matter of P5; here there is none, or no money in it.
        batch.budget_micros = random.choice([None, None, 0])
        batch.hold_until = random.choice([None, None, batch.at + random.uniform(0, 60)])
        batch.cost_ratio = random.choice([0.5, 1.0, 2.0])
    pools = pools_of(random)
    world = World(pools, batches, policy_of(random), speeds=SPEEDS, seed=seed, noise=0.3, settles=True)
    for _ in range(6):
        steer(world, random.choice(batches), random)
    world.lose("dear", at=30.0, until=70.0)
    world.run(SECONDS)

    for each in world.rounds:
        for pool, idle in each.idle.items():
            assert not (idle and each.after[pool]), f"{idle} of {pool} idle at {each.at} beside {each.after[pool]}"


def steer(world: World, batch: Batch, random: Random) -> None:
    paused_at = random.uniform(0, SECONDS)
    world.plan(paused_at, lambda: setattr(batch, "is_paused", True))
    world.plan(paused_at + random.uniform(1, 40), lambda: setattr(batch, "is_paused", False))


def test_no_worker_idles_with_work_queued() -> None:
    mutants.holds(no_worker_idles_with_work_queued, examples=15)


@pytest.mark.parametrize("mutant", [mutants.idle_with_work_queued, mutants.one_pool_each, mutants.never_ends_a_hold])
def test_a_broken_policy_is_caught(mutant: mutants.Mutant) -> None:
    mutants.is_caught(no_worker_idles_with_work_queued, mutant, seeds=range(6))
