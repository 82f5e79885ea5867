"""P3: nobody starves: a bounded wait between packs, and a least share over any time, down the whole tree.

For a child i of any account in one pool, while i has rows that the pool may run, Q, U and w as in P2:

    K_i = sum over its siblings j of  w_j (2 Q + U_i / w_i) + U_j

(a) Between two packs of i its siblings are charged at most K_i.
(b) Of the X seconds that the account's children are charged in all, i gets W_i >= phi_i (X - K_i), phi_i = w_i / sum w.
(c) Down the tree: a batch of a tenant of a tier gets, of the pool's X seconds,
    W >= phi_b (phi_t (phi_tier (X - K_tier) - K_t) - K_b).

Proof. (a) While i is not served its tag is fixed; j is served only while S_j <= V + Q <= S_i + Q, and began at
S_j >= V >= S_i - Q - U_i / w_i; so it is charged at most w_j (2 Q + U_i / w_i), and the last pack's U_j. (b) For any j,
waiting all the time or not, W_j / w_j <= W_i / w_i + 2 Q + U_i / w_i + U_j / w_j, since the lift lets j begin no lower
than V; the sum over j != i is X - W_i <= W_i (sum w - w_i) / w_i + K_i. (c) is (b) from the pool down, each level's X
being the level above's W.

No guard in these worlds: see P7 for what it leaves to the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from pipeline.domain.tiers import Tier
from scheduler.policy import Policy
from tests.scheduler.properties import mutants
from tests.scheduler.properties.cast import Batch, Path
from tests.scheduler.properties.scenarios import SPEEDS, families, policy_of, pools_of, stream
from tests.scheduler.properties.shares import EPSILON, Step, accounts, largest, lead, steps, weight
from tests.scheduler.properties.world import World

SECONDS = 300.0


def flooded(seed: int) -> World:
    """Return a world in which a heavy sibling floods a light one: of another tier, another tenant, another batch."""
    random = Random(seed)
    batches = families(random, tiers=2)
    light = Batch(
        name="batch_light", tenant="tnt_light", tier=Tier.NIGHTLY, model="chat", row_tokens=random.choice([40, 300])
    )
    flood = [
        Batch(name=f"batch_flood_{number}", tenant=f"tnt_{number % 3}", tier=tier, model="chat", row_tokens=600)
        for number, tier in enumerate(random.choices([Tier.URGENT, Tier.NIGHTLY], k=6))
    ]
    for batch in flood:
        batch.at = random.uniform(0, SECONDS / 2)
    short = stream(random, count=30, every=8.0, tiers=(Tier.URGENT, Tier.NIGHTLY))
    # Due before all others, and so the first where tags are equal.
    for batch in short:
        batch.window = 1e5
    world = World(pools_of(random), [light, *batches, *flood, *short], policy_of(random), speeds=SPEEDS, seed=seed)
    return world.run(SECONDS)


def waits_are_bounded(seed: int) -> None:
    world = flooded(seed)

    for pool in world.pools:
        for parent, children in accounts(world).items():
            packs = list(steps(world, pool, parent))
            for one in children:
                allowed = debt(packs, one, children, world.policy)
                waited = 0.0
                for step in packs:
                    is_served = one in step.got or one not in step.waiting
                    waited = 0.0 if is_served else waited + sum(step.got.values())
                    assert waited <= allowed, f"{one} in {pool} at {step.at}"


def shares_are_at_least_their_weights(seed: int) -> None:
    world = flooded(seed)

    families_of = accounts(world)
    for pool in world.pools:
        levels = {parent: list(steps(world, pool, parent)) for parent in families_of}
        for batch in world.batches.values():
            for got, least in shares_of(batch.path, levels, families_of, world.policy):
                assert got >= least - EPSILON, f"{batch.path} in {pool}: {got} of {least}"


def shares_of(
    path: Path, levels: dict[Path, list[Step]], families_of: dict[Path, list[Path]], policy: Policy
) -> Iterator[tuple[float, float]]:
    """Yield what a batch got and the least it may get, after each pack of each time in which it has rows."""
    terms = []
    for depth in range(len(path)):
        parent, child = path[:depth], path[: depth + 1]
        siblings = families_of[parent]
        terms.append((weight(child) / sum(map(weight, siblings)), debt(levels[parent], child, siblings, policy)))
    whole = got = 0.0
    for pooled, own in zip(levels[()], levels[path[:-1]], strict=True):
        if path not in own.waiting:
            whole = got = 0.0
            continue
        whole += sum(pooled.got.values())
        got += own.got.get(path, 0.0)
        least = whole
        for share, owed in terms:
            least = share * (least - owed)
        yield got, least


def debt(packs: list[Step], one: Path, siblings: list[Path], policy: Policy) -> float:
    """Return K: what the siblings may get while one of them waits."""
    ahead = 2 * lead(one, policy) + largest(packs, one) / weight(one)
    return sum(weight(other) * ahead + largest(packs, other) for other in siblings if other != one) + EPSILON


def test_waits_are_bounded() -> None:
    mutants.holds(waits_are_bounded, examples=5)


def test_shares_are_at_least_their_weights() -> None:
    mutants.holds(shares_are_at_least_their_weights, examples=5)


@pytest.mark.parametrize("check", [waits_are_bounded, shares_are_at_least_their_weights])
@pytest.mark.parametrize("mutant", [mutants.strict_tiers, mutants.shed_debt, mutants.earliest_due_first])
def test_a_broken_policy_is_caught(check: mutants.Check, mutant: mutants.Mutant) -> None:
    mutants.is_caught(check, mutant, seeds=range(3))
