"""P6: who stayed away has saved nothing up: from its return on it is like anyone else.

After i's return at t0, for each sibling j with rows from then on, Q, U and w as in P2:

    W_i / w_i - W_j / w_j  <=  2 Q + U_i / w_i + U_j / w_j

Proof. The lift lets i begin at S_i >= V(t0). Later S_i <= V + Q + U_i / w_i, so W_i / w_i <= V + Q + U_i / w_i - V(t0).
And j, which has rows, began at S_j <= V(t0) + Q + U_j / w_j and is at S_j >= V, so W_j / w_j >= V - V(t0) - Q - U_j / w_j.
Taken alone that is Q + U_i / w_i ahead of its share, w_i (V - V(t0)).

Nor is it punished: what it owed is kept and no more, so the others gain no more on it than in P2.
"""

from __future__ import annotations

from itertools import permutations
from random import Random

import pytest

from tests.scheduler.properties import mutants
from tests.scheduler.properties.cast import Path
from tests.scheduler.properties.scenarios import SPEEDS, families, policy_of, pools_of
from tests.scheduler.properties.shares import accounts, bound, gain, steps
from tests.scheduler.properties.world import World

AWAY_SECONDS = 150.0
SECONDS = 300.0


def returners_have_saved_nothing_up(seed: int) -> None:
    random = Random(seed)
    batches = families(random, batches=2)
    world = World(pools_of(random), batches, policy_of(random), speeds=SPEEDS, seed=seed)
    children = [each for siblings in accounts(world).values() if len(siblings) > 1 for each in siblings]
    returner = random.choice(children)
    leave(world, returner, random)
    world.run(SECONDS)

    siblings = accounts(world)[returner[:-1]]
    for pool in world.pools:
        packs = list(steps(world, pool, returner[:-1]))
        for one, other in permutations(siblings, 2):
            if returner in {one, other}:
                gained = gain(packs, one, other)
                assert gained <= bound(packs, one, other, world.policy), f"{one} over {other} in {pool}"


def leave(world: World, account: Path, random: Random) -> None:
    """Take the account's batches away for most of the time: at once, or once they have been served, or off and on."""
    mine = [batch for batch in world.batches.values() if batch.path[: len(account)] == account]
    way = random.choice(["late", "gone", "flapping"])
    ways: dict[str, list[tuple[float, float]]] = {
        "late": [(0.0, AWAY_SECONDS)],
        "gone": [(40.0, 40.0 + AWAY_SECONDS)],
        "flapping": [(float(start), start + random.uniform(1, 15)) for start in range(5, round(SECONDS), 20)],
    }
    for batch in mine:
        for start, stop in ways[way]:
            field = random.choice(["is_away", "is_paused"])
            world.plan(start, lambda batch=batch, field=field: setattr(batch, field, True))  # type: ignore[misc]
            world.plan(stop, lambda batch=batch, field=field: setattr(batch, field, False))  # type: ignore[misc]


def test_returners_have_saved_nothing_up() -> None:
    mutants.holds(returners_have_saved_nothing_up, examples=12)


@pytest.mark.parametrize("mutant", [mutants.no_lift, mutants.banked_credit, mutants.punished_return, mutants.shed_debt])
def test_a_broken_policy_is_caught(mutant: mutants.Mutant) -> None:
    mutants.is_caught(returners_have_saved_nothing_up, mutant, seeds=range(8))
