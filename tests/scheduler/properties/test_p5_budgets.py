"""P5: a batch's money runs out, and nothing of it is packed from then on.

The cycle packs rows of a batch only while spent < budget, and what is spent is booked when a pack ends. So at the last
pack made of it the batch was below its budget, and in the end, F being what was in flight of it just after:

    spent  <  budget + cost(F)

F is bounded too: a pool has at most `packs_ahead_per_worker` packs a worker waiting and one a worker running, so with
packs of at most b real seconds, cost(F) <= sum over pools of workers * (packs_ahead_per_worker + 1) * b * rate.

P5 of the design says more: spent + reserved <= budget at all times, a pack's upper cost being reserved when it is
decided on. The cycle does not reserve yet, so what overshoots is bounded but not zero.
"""

from __future__ import annotations

from random import Random

from tests.scheduler.properties import mutants
from tests.scheduler.properties.cast import Batch
from tests.scheduler.properties.scenarios import SPEEDS, families, policy_of, pools_of
from tests.scheduler.properties.world import World

SECONDS = 200.0


def nothing_is_packed_once_the_money_is_spent(seed: int) -> None:
    random = Random(seed)
    batches = families(random, tiers=2, tenants=2, batches=2)
    poor = random.sample(batches, max(1, len(batches) // 2))
    for batch in poor:
        batch.budget_micros = random.choice([1, 20_000, 100_000])
        batch.cost_ratio = random.choice([0.5, 1.0, 2.0])
    poor[0].budget_micros = 1
    policy = policy_of(random)
    world = World(pools_of(random), batches, policy, speeds=SPEEDS, seed=seed, noise=0.3, settles=True)
    raised_at = random.uniform(20, SECONDS)
    world.plan(raised_at, lambda: raise_budget(random.choice(poor)))
    flights = Flights(world)
    world.watch(flights.look)
    world.run(SECONDS)

    reached = 0
    for batch in poor:
        assert batch.budget_micros is not None
        over = batch.spent_micros - batch.budget_micros
        reached += over >= 0
        assert over < flights.last[batch.name] + ROUNDING, f"{batch.name} is {over} over its budget"
        assert flights.last[batch.name] <= flights.most(policy.packs_ahead_per_worker) + ROUNDING
    assert reached


#: Each pack's charge is rounded to a millionth of the currency.
ROUNDING = 100


def raise_budget(batch: Batch) -> None:
    assert batch.budget_micros is not None
    batch.budget_micros = 2 * batch.budget_micros + 5_000


class Flights:
    """What each batch had in flight just after its last pack was made, in micros."""

    def __init__(self, world: World) -> None:
        self.last: dict[str, float] = dict.fromkeys(world.batches, 0.0)
        self._world = world
        self._rows: dict[str, int] = dict.fromkeys(world.batches, 0)
        self._longest: dict[str, float] = dict.fromkeys(world.pools, 0.0)

    def look(self) -> None:
        for batch in self._world.batches.values():
            if batch.rows_packed > self._rows[batch.name]:
                self._rows[batch.name] = batch.rows_packed
                parts = self._world.in_flight(batch)
                self.last[batch.name] = sum(seconds * rate(pool.rate_micros_per_hour) for pool, seconds in parts)
                for pool, seconds in parts:
                    self._longest[pool.name] = max(self._longest[pool.name], seconds)

    def most(self, packs_ahead_per_worker: int) -> float:
        """Return what a batch can have in flight at most."""
        return sum(
            pool.workers * (packs_ahead_per_worker + 1) * self._longest[pool.name] * rate(pool.rate_micros_per_hour)
            for pool in self._world.pools.values()
        )


def rate(micros_per_hour: int) -> float:
    return micros_per_hour / 3600


def test_nothing_is_packed_once_the_money_is_spent() -> None:
    mutants.holds(nothing_is_packed_once_the_money_is_spent, examples=15)


def test_a_policy_that_ignores_budgets_is_caught() -> None:
    mutants.is_caught(nothing_is_packed_once_the_money_is_spent, mutants.budget_ignored, seeds=range(4))
