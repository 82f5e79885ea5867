"""P8: within a tenant and a tier, the highest priority goes first, and among equals nothing changes.

For batches h and l of one tenant and tier, the priority of h above that of l, and one cycle in one pool, where h has
rows that the pool may run in no pack both before and after the cycle:

    (a) No pack is begun with l, unless a promised deadline presses for l.
    (b) Where h and l have one model and endpoint, no pack is filled up with l either.

So l gets rows into a pack only where the cycle sees no more of h (its rows, or what its budget pays for, are all in packs),
where l presses, or to fill up a pack of a model that h has none of. Packs that are published already stay.

    (c) Batches of equal priority keep within the bound of P2, whatever goes on above and below them.

Proof. (a) `lowest` of a tenant takes from the highest priority that has rows in any lane, and what is spent has none.
(b) `peer` asks the line of the lane, which does the same; where its first may not fill up, nobody of the tenant may.
(c) A priority's virtual time is moved by its own turns alone, so among equals P2's proof holds word for word: they wait
while others are served, and no tag of theirs moves.
"""

from __future__ import annotations

from itertools import permutations
from random import Random

import pytest

from pipeline.domain.tiers import Tier
from tests.scheduler.properties import mutants
from tests.scheduler.properties.cast import Batch, Pool
from tests.scheduler.properties.scenarios import CHAT, SPEEDS, families, policy_of, pools_of, stream
from tests.scheduler.properties.shares import accounts, bound, gain, steps
from tests.scheduler.properties.world import World

SECONDS = 200.0


def mixed(seed: int) -> World:
    """Return a world of endless batches of several priorities, which rest now and then, and short ones between them."""
    random = Random(seed)
    batches = families(random, tiers=2, tenants=2, batches=4)
    short = stream(random, count=30, every=6.0, tiers=(Tier.STANDARD, Tier.BULK))
    for batch in batches:
        batch.priority = random.choice([-100, -3, 0, 0, 5])
    for batch in short:
        batch.priority = random.choice([-3, 0, 5, 100])
    for batch in random.sample(short, 3):
        batch.asks, batch.window = True, random.uniform(60, 200)
    policy = policy_of(random, promise_margin_seconds=5.0)
    world = World(pools_of(random), [*batches, *short], policy, speeds=SPEEDS, seed=seed, noise=0.2)
    for batch in batches:
        # Or nobody else would ever run. Equals rest together, so that (c) has times to look at.
        rest(world, batch, every=40.0 + batch.priority, seconds=20.0)
    return world.run(SECONDS)


def interrupted(seed: int) -> World:
    """Return a world in which two equals are passed over after nearly each pack, by three packs of another."""
    random = Random(seed)
    policy = policy_of(random, top_up_lead_seconds=0.0, packs_ahead_per_worker=1, pack_seconds_target=5.0)
    equals = [Batch(name=f"batch_{name}", tenant="tnt_0", tier=Tier.BULK, model="chat") for name in "ab"]
    others = [
        Batch(
            name=f"batch_other_{number:02d}",
            tenant="tnt_0",
            tier=Tier.BULK,
            model="chat",
            priority=random.choice([1, 9]),
            rows=15,
            at=number * 20.0 + random.uniform(0, 3),
        )
        for number in range(20)
    ]
    pool = Pool(name="pool", workers=1, servings=(CHAT,))
    return World([pool], [*equals, *others], policy, speeds=SPEEDS, seed=seed).run(400.0)


def rest(world: World, batch: Batch, *, every: float, seconds: float) -> None:
    if every <= 0:
        return
    for number in range(1, round(SECONDS / every)):
        world.plan(number * every, lambda: setattr(batch, "is_paused", True))
        world.plan(number * every + seconds, lambda: setattr(batch, "is_paused", False))


def the_highest_priority_goes_first(seed: int) -> None:
    world = mixed(seed)

    by_path = {batch.path: batch for batch in world.batches.values()}
    passed_over = 0
    for each in world.rounds:
        for dispatch in each.dispatches:
            waiting = [by_path[path] for path in each.before[dispatch.pool] & each.after[dispatch.pool]]
            begun, *fillers = (by_path[path] for path in dispatch.charges)
            for high in waiting:
                passed_over += _goes_before(begun, high)
                assert dispatch.is_pressing or not _goes_before(high, begun), f"{begun.name} before {high.name}"
                for low in fillers:
                    is_alike = low.model == high.model
                    assert not (is_alike and _goes_before(high, low)), f"{low.name} fills up before {high.name}"
    assert passed_over, "nobody of a lower priority ever waited"


def _goes_before(high: Batch, low: Batch) -> bool:
    return high.path[:2] == low.path[:2] and high.priority > low.priority


def equals_keep_within_the_bound(seed: int) -> None:
    for world in (mixed(seed), interrupted(seed)):
        assert _compared(world)


def _compared(world: World) -> int:
    """Hold all equals to the bound; return how many there are."""
    by_path = {batch.path: batch for batch in world.batches.values()}
    compared = 0
    for pool in world.pools:
        for parent, children in accounts(world).items():
            if len(parent) != 2:
                continue
            packs = list(steps(world, pool, parent))
            for one, other in permutations(children, 2):
                if by_path[one].priority == by_path[other].priority:
                    gained = gain(packs, one, other)
                    compared += gained > 0
                    assert gained <= bound(packs, one, other, world.policy), f"{one} over {other} in {pool}"
    return compared


def test_the_highest_priority_goes_first() -> None:
    mutants.holds(the_highest_priority_goes_first, examples=10)


def test_equals_keep_within_the_bound() -> None:
    mutants.holds(equals_keep_within_the_bound, examples=10)


@pytest.mark.parametrize(
    "mutant", [mutants.priorities_ignored, mutants.lowest_priority_first, mutants.fills_by_turn_alone]
)
def test_a_policy_that_lets_others_go_first_is_caught(mutant: mutants.Mutant) -> None:
    mutants.is_caught(the_highest_priority_goes_first, mutant, seeds=range(4))


@pytest.mark.parametrize("mutant", [mutants.one_time_for_all_priorities, mutants.shed_debt])
def test_a_policy_that_is_unfair_to_equals_is_caught(mutant: mutants.Mutant) -> None:
    mutants.is_caught(equals_keep_within_the_bound, mutant, seeds=range(6))
