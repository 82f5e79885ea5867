"""P5: what a batch has spent, and what is set aside for its rows in flight, is within its budget.

At each decision that packs rows of a batch, and after it,

    spent + reserved  <=  budget

where a pack reserves, for each row, its predicted seconds times the upper factor at the rate of the pool, and holds it
until it ends. Nothing else takes from the budget, so where no pack costs more than was reserved for it, spent <= budget
for ever. Where one does, what it costs beyond is all that a batch can overshoot by, since nothing more is packed of it.
"""

from __future__ import annotations

from random import Random

from scheduler.policy import Policy
from tests.scheduler.properties import mutants
from tests.scheduler.properties.cast import Batch
from tests.scheduler.properties.scenarios import SPEEDS, families, policy_of, pools_of
from tests.scheduler.properties.world import World

SECONDS = 200.0
#: Each pack's charge is rounded to a millionth of the currency.
ROUNDING = 100


def budgets_hold(seed: int) -> None:
    random = Random(seed)
    batches = families(random, tiers=random.randint(1, 2), tenants=random.randint(1, 2), batches=2)
    poor = random.sample(batches, max(1, len(batches) // 2))
    for batch in poor:
        batch.budget_micros = random.choice([1, 100_000, 400_000])
        # What a pack costs is within its reservation up to 1.5, but for the noise and the pool's own pace.
        batch.cost_ratio = random.choice([0.5, 0.8, 2.5])
    poor[0].budget_micros, poor[0].cost_ratio = 500_000, 0.5
    policy = policy_of(random)
    world = World(pools_of(random), batches, policy, speeds=SPEEDS, seed=seed, noise=0.3, settles=True)
    world.plan(random.uniform(20, SECONDS), lambda: raise_budget(random.choice(poor)))
    watch = Watch(world, poor, policy)
    world.watch(watch.look)
    world.run(SECONDS)

    for batch in poor:
        assert batch.budget_micros is not None
        over = batch.spent_micros - batch.budget_micros
        assert over <= watch.beyond[batch.name] + ROUNDING, f"{batch.name} is {over} over its budget"
    # Not because nothing ran, nor because nobody came near.
    assert any(batch.spent_micros > 0 for batch in poor)
    assert any(batch.rows_packed < batch.rows for batch in poor)


def raise_budget(batch: Batch) -> None:
    assert batch.budget_micros is not None
    batch.budget_micros = 2 * batch.budget_micros + 5_000


class Watch:
    """Looks at each batch whenever rows of it are packed."""

    def __init__(self, world: World, poor: list[Batch], policy: Policy) -> None:
        self._world = world
        self._poor = poor
        self._policy = policy
        self._rows: dict[str, int] = dict.fromkeys(world.batches, 0)
        #: What the packs in flight just after the last decision cost beyond what was reserved for them, in micros.
        self.beyond: dict[str, float] = dict.fromkeys(world.batches, 0.0)

    def look(self) -> None:
        for batch in self._poor:
            if batch.rows_packed > self._rows[batch.name]:
                self._rows[batch.name] = batch.rows_packed
                reserved = self._world.reserved_micros(batch)
                assert batch.budget_micros is not None
                assert batch.spent_micros + reserved <= batch.budget_micros, f"{batch.name} is packed beyond its budget"
                parts = self._world.in_flight(batch)
                cost = sum(seconds * pool.rate_micros_per_hour / 3600 for pool, seconds in parts)
                self.beyond[batch.name] = max(0.0, cost - reserved)


def test_budgets_hold() -> None:
    mutants.holds(budgets_hold, examples=15)


def test_a_policy_that_ignores_budgets_is_caught() -> None:
    mutants.is_caught(budgets_hold, mutants.budget_ignored, seeds=range(4))


def test_a_policy_that_reserves_nothing_is_caught() -> None:
    mutants.is_caught(budgets_hold, mutants.nothing_reserved, seeds=range(8))
