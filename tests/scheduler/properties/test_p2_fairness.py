"""P2: siblings that have rows all along come no further apart than one pack each and the lead of those who fill up.

For siblings f, g of any account (tiers of a pool, tenants of a tier, batches of a tenant), in one pool, over any time in
which both have rows in no pack that the pool may run, with service counted as charged at dispatch:

    |W_f / w_f - W_g / w_g|  <=  2 Q + U_f / w_f + U_g / w_g

U is the most that the child was charged for one pack. Q is how far ahead of its turn it may fill up another's pack:
`top_up_lead_seconds` among tenants and among batches, 0 among tiers, since a pack stays within one tier.

Proof. S_f is f's start tag, V the virtual time among its siblings. V moves only up, to the tag of the child whose turn it
is and at the cycle's end to the lowest tag of a child with rows: V <= S_f. f is served where its tag is the lowest, and
then V = S_f; or to fill up, where S_f <= V + Q when the pack is begun; what it then gets of this pack is at most U_f. So
V <= S_f <= V + Q + U_f / w_f at all times, and S_f - S_g stays in an interval as wide as the bound. While f waits the
lift changes nothing, so its tag moves by W_f / w_f. Packs published ahead are charged when they are decided on: they do
not widen it.

Times in which a deadline pressed for f or g are left out: it is served out of turn, is charged, and pays that back.

With true-ups, W also counts what a pack took beyond its charge, when that is settled. Where packs take no less than was
charged, S_f <= V + Q + U_f / w_f + E_f / w_f: E_f is what was outstanding of f's true-ups when it was last served. The bound
is wider by E_f / w_f + E_g / w_g, and with D packs in flight, each off by e at most, E <= D e. A pool of G workers has
D = G (1 + `packs_ahead_per_worker`). Where packs take less, S_f >= V - E_f / w_f should hold, and the same bound; it does
not hold yet, see the test that is expected to fail.
"""

from __future__ import annotations

from itertools import permutations
from random import Random

import pytest

from pipeline.domain.tiers import Tier
from tests.scheduler.properties import mutants
from tests.scheduler.properties.cast import Batch, Path, Pool
from tests.scheduler.properties.scenarios import CHAT, SMALL, SPEEDS, families, policy_of, pools_of, stream
from tests.scheduler.properties.shares import Step, accounts, bound, gain, steps, weight
from tests.scheduler.properties.world import World

SECONDS = 250.0


def siblings_keep_within_the_bound(seed: int) -> None:
    random = Random(seed)
    tiers = (Tier.STANDARD, Tier.BULK)
    batches = families(random) + stream(random, count=40, every=8.0, tiers=tiers)
    for batch in random.sample(batches, 3):
        batch.rows, batch.asks = random.randint(50, 300), True
        batch.window = random.uniform(120, 600)
    policy = policy_of(random, promise_margin_seconds=5.0)
    world = World(pools_of(random), batches, policy, speeds=SPEEDS, seed=seed, noise=0.3).run(SECONDS)

    compared = 0
    for pool in world.pools:
        for parent, children in accounts(world).items():
            packs = list(steps(world, pool, parent))
            for one, other in permutations(children, 2):
                gained = gain(packs, one, other)
                compared += gained > 0
                assert gained <= bound(packs, one, other, policy), f"{one} over {other} in {pool}"
    assert compared


def what_packs_took_keeps_within_the_bound(seed: int) -> None:
    """Two tenants; rows of one take up to three times what was predicted."""
    random = Random(seed)
    policy = policy_of(random)
    rows = random.choice([40, 300])
    batches = [
        Batch(name=f"batch_{tenant}", tenant=tenant, tier=Tier.STANDARD, model=model, row_tokens=rows, cost_ratio=ratio)
        for tenant, model, ratio in (("tnt_dear", "chat", random.uniform(1.5, 3)), ("tnt_plain", "small", 1.0))
    ]
    pool = Pool(name="dear", workers=random.randint(1, 3), servings=(CHAT, SMALL))
    world = World((pool,), batches, policy, speeds=SPEEDS, seed=seed, settles=True).run(3 * SECONDS)

    packs = list(steps(world, "dear", (Tier.STANDARD.value,)))
    dear, plain = accounts(world)[Tier.STANDARD.value,]
    in_flight = pool.workers * (1 + policy.packs_ahead_per_worker)
    allowed = bound(packs, dear, plain, policy) + sum(
        in_flight * most_corrected(packs, each) / weight(each) for each in (dear, plain)
    )
    assert max(gain(packs, dear, plain), gain(packs, plain, dear)) <= allowed


def who_takes_less_keeps_within_the_bound(seed: int) -> None:
    """Two tenants; rows of one take less than half of what was predicted."""
    policy = policy_of(Random(seed), top_up_lead_seconds=0.0)
    batches = [
        Batch(name=f"batch_{tenant}", tenant=tenant, tier=Tier.STANDARD, model=model, cost_ratio=ratio)
        for tenant, model, ratio in (("tnt_cheap", "chat", 0.4), ("tnt_plain", "small", 1.0))
    ]
    pool = Pool(name="dear", workers=1, servings=(CHAT, SMALL))
    world = World((pool,), batches, policy, speeds=SPEEDS, seed=seed, settles=True).run(5 * SECONDS)

    packs = list(steps(world, "dear", (Tier.STANDARD.value,)))
    cheap, plain = accounts(world)[Tier.STANDARD.value,]
    in_flight = pool.workers * (1 + policy.packs_ahead_per_worker)
    allowed = bound(packs, cheap, plain, policy) + in_flight * 0.6 * policy.pack_seconds_target
    assert gain(packs, plain, cheap) <= allowed


def most_corrected(packs: list[Step], child: Path) -> float:
    return max((step.got.get(child, 0.0) for step in packs if not step.is_pack), default=0.0)


def test_siblings_keep_within_the_bound() -> None:
    mutants.holds(siblings_keep_within_the_bound, examples=10)


def test_what_packs_took_keeps_within_the_bound() -> None:
    mutants.holds(what_packs_took_keeps_within_the_bound, examples=10)


@pytest.mark.parametrize(
    "mutant",
    [
        mutants.no_weights,
        mutants.strict_tiers,
        mutants.packs_for_seconds,
        mutants.forgets,
        mutants.shed_debt,
        mutants.free_top_ups,
        mutants.boundless_top_ups,
    ],
)
def test_a_broken_policy_is_caught(mutant: mutants.Mutant) -> None:
    mutants.is_caught(siblings_keep_within_the_bound, mutant, seeds=range(4))


def test_a_policy_without_true_ups_is_caught() -> None:
    mutants.is_caught(what_packs_took_keeps_within_the_bound, mutants.no_true_up, seeds=range(4))


def test_who_takes_less_keeps_within_the_bound() -> None:
    who_takes_less_keeps_within_the_bound(0)
