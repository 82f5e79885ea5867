"""P7: whatever is promised, the others keep the rest of a pool.

Let everything that is promised be promised at t0, d be the last promised deadline, costs be as predicted and G workers
live. Of what all pools are charged until d, batches without a promise get

    W  >=  (1 - share) * sum of G * (d - t0)

as long as they have rows for every pool.

Proof. The claims on a pool due by d were promised within share * G * (d - t0 - 2 b - m); what several pools may run is
split over them and takes as long in each. So promised rows are charged no more than the sum of share * G * (d - t0). No
worker idles (P1), so the pools run, and all the more were charged, G * (d - t0) each by then.

That is of one wave of promises. Where promises go on being made, what the guard runs ahead of time makes room for more
promises at once, and those press again. So what presses has no more than share * G packs on their way (rounded up) as
long as all G workers together could still catch up: promised work then goes on at the pace that was promised, and the
others have the rest, but for what was promised ahead at the beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from pipeline.domain.promises import Promise
from pipeline.domain.tiers import Tier
from scheduler.policy import Policy
from tests.scheduler.properties import mutants
from tests.scheduler.properties.cast import Batch, Pool
from tests.scheduler.properties.scenarios import CHAT, EMBED, SMALL, SPEEDS
from tests.scheduler.properties.world import World

POLICY = Policy(
    pack_seconds_target=5.0,
    pack_rows_min=1,
    promise_margin_seconds=5.0,
    top_up_lead_seconds=5.0,
    # Costs are as predicted here.
    cost_upper_factor=1.0,
)
#: Seconds of the longest window asked for where asking does not end.
LONGEST = 75.0
POOLS = (
    Pool(name="dear", workers=3, servings=(CHAT, SMALL), rate_micros_per_hour=9_000_000),
    Pool(name="cheap", workers=2, servings=(SMALL, EMBED), rate_micros_per_hour=1_000_000),
)


def asking(random: Random, number: int, *, seconds: float, **changes: object) -> Batch:
    """Return a batch of so many worker-seconds that asks to be promised its deadline."""
    model = random.choice(["chat", "small", "embed"])
    return Batch(
        name=f"batch_{number:04d}",
        tenant=f"tnt_{random.randint(0, 3)}",
        tier=random.choice(list(Tier)),
        model=model,
        row_tokens=20,
        rows=max(1, round(seconds * SPEEDS[model] / 20)),
        asks=True,
        **changes,  # type: ignore[arg-type]
    )


def patient(tier: Tier) -> list[Batch]:
    """Return batches without end that nothing was promised to, one for each model."""
    return [
        Batch(name=f"patient_{model}", tenant="tnt_patient", tier=tier, model=model, row_tokens=20)
        for model in ("chat", "small", "embed")
    ]


def charged(world: World, *, promised: bool, since: float = 0.0, until: float) -> float:
    """Return what batches with a promise, or without, were charged."""
    return sum(
        seconds
        for each in world.rounds
        if since <= each.at <= until
        for dispatch in each.dispatches
        for path, seconds in dispatch.charges.items()
        if (world.batches[path[2]].promise is Promise.MADE) is promised
    )


def one_wave_leaves_the_rest(seed: int) -> None:
    random = Random(seed)
    wave = [
        asking(random, number, seconds=random.uniform(20, 80), window=random.uniform(100, 300)) for number in range(60)
    ]
    world = World(POOLS, [*patient(Tier.NIGHTLY), *wave], POLICY, speeds=SPEEDS, seed=seed)
    # Who is declined asks elsewhere.
    world.watch(lambda: send_away(wave))
    world.run(300)

    last = max(batch.window for batch in wave if batch.promise is Promise.MADE)
    workers = sum(pool.workers for pool in POOLS)
    assert charged(world, promised=False, until=last) >= (1 - POLICY.promised_share) * workers * last


def promises_without_end_leave_the_rest(seed: int) -> None:
    """From any time on: what may have been promised ahead by then, and the share of what was run since."""
    random = Random(seed)
    pool = Pool(name="dear", workers=4, servings=(CHAT,))
    stream = [
        Batch(
            name=f"batch_{number:04d}",
            tenant=f"tnt_{random.randint(0, 3)}",
            tier=Tier.NIGHTLY,
            model="chat",
            row_tokens=20,
            rows=random.randint(50, 150),
            at=2.0 * number * random.uniform(0.9, 1.1),
            window=random.uniform(40, LONGEST),
            asks=True,
        )
        for number in range(250)
    ]
    world = World((pool,), [*patient(Tier.URGENT)[:1], *stream], POLICY, speeds=SPEEDS, seed=seed)
    # Who is declined asks elsewhere.
    world.watch(lambda: send_away(stream))
    world.run(500)

    run = [charged(world, promised=promised, since=100, until=500) for promised in (True, False)]
    assert run[0] <= POLICY.promised_share * (sum(run) + pool.workers * LONGEST)


def send_away(batches: Sequence[Batch]) -> None:
    for batch in batches:
        batch.is_away = batch.promise is Promise.DECLINED


def test_one_wave_leaves_the_rest() -> None:
    mutants.holds(one_wave_leaves_the_rest, examples=4)


@pytest.mark.parametrize("mutant", [mutants.promised_share_of_one, mutants.admit_all])
def test_a_broken_policy_is_caught(mutant: mutants.Mutant) -> None:
    mutants.is_caught(one_wave_leaves_the_rest, mutant, seeds=range(1))


def test_promises_without_end_leave_the_rest() -> None:
    mutants.holds(promises_without_end_leave_the_rest, examples=3)


def test_a_guard_that_knows_no_measure_is_caught() -> None:
    mutants.is_caught(promises_without_end_leave_the_rest, mutants.guard_without_measure, seeds=range(1))
