"""Streams of batches over many cycles: the long one beside short ones, and packs leased in the order of their turns.

Shares, waits and credit are in tests/scheduler/properties.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import strategies as st

from pipeline.domain.ids import TenantId
from pipeline.domain.tiers import Tier
from scheduler import cycle, fairness
from tests.scheduler.world import ALL_MODELS, HOUR_US, NOW_US, World, backlog, hold

STEPS = 120


def a_stream_of_short_batches_does_not_starve_a_long_one(seed: int) -> None:
    random = Random(seed)
    short = [
        backlog(f"batch_{n:03d}", rows=random.randint(1, 10), deadline_at_us=NOW_US + 25 * HOUR_US)
        for n in range(STEPS)
    ]
    world = World.of(backlog("batch_long", model="model-b"), *short, workers=1)
    for number in range(STEPS):
        world.away = {each.batch_id for each in short[number:]}
        world.step()

    assert sum("batch_long" in charges for charges in world.dispatched) >= STEPS // 3


def leases_follow_the_virtual_time(seed: int) -> None:
    random = Random(seed)
    batches = [
        backlog(
            f"batch_{tier}_{tenant}",
            tier=tier,
            tenant_id=TenantId(f"tnt_{tenant}"),
            model=random.choice(ALL_MODELS),
            row_tokens=random.choice([1, 40, 300, 1500]),
        )
        for tier in random.sample(list(Tier), 3)
        for tenant in range(3)
    ]
    world = World.of(*batches, workers=random.randint(1, 3))
    for _ in range(STEPS):
        world.step(leases=random.randint(1, 3))

    ordinals = [pack.ordinal for pack in world.leased]
    assert ordinals == sorted(ordinals)
    assert len(world.leased) >= STEPS


PROPERTIES = [a_stream_of_short_batches_does_not_starve_a_long_one, leases_follow_the_virtual_time]


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.__name__)
def test_it_holds_over_many_cycles(prop: Callable[[int], None]) -> None:
    hold(prop, st.integers(0, 2**32 - 1), examples=10)


MUTANTS = [
    (a_stream_of_short_batches_does_not_starve_a_long_one, fairness, "settle", lambda each, _: each.virtual_seconds),
    (leases_follow_the_virtual_time, fairness.FairQueue, "begin", lambda _, turn: turn.accounts[-1].start_seconds),
    (leases_follow_the_virtual_time, cycle, "packs_admitted", lambda *_: 0),
]


@pytest.mark.parametrize(("prop", "place", "name", "mutant"), MUTANTS)
def test_a_broken_scheduler_is_caught(
    prop: Callable[[int], None], place: object, name: str, mutant: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, name, mutant)

    with pytest.raises(AssertionError):
        hold(prop, st.integers(0, 2**32 - 1), examples=40)
