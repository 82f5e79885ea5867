"""Shares over many cycles: the bound of start-time fair queueing, no starvation, no banked credit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations
from random import Random

import pytest
from hypothesis import strategies as st

from pipeline.domain.ids import TenantId
from pipeline.domain.tiers import WEIGHTS, Tier
from scheduler import cycle, fairness
from scheduler.policy import Policy
from tests.scheduler.world import ALL_MODELS, HOUR_US, NOW_US, World, backlog, hold

STEPS = 120
EPSILON = 1e-6

Path = tuple[str, ...]
Charges = dict[Path, float]


def world_of(random: Random) -> World:
    """Return endless batches of two or three tiers, some tenants each, rows from a blink to a pack and a half."""
    batches = [
        backlog(
            f"batch_{tier}_{tenant}_{number}",
            tier=tier,
            tenant_id=TenantId(f"tnt_{tenant}"),
            model=random.choice(ALL_MODELS),
            row_tokens=random.choice([1, 40, 300, 1500]),
            deadline_at_us=NOW_US + random.randint(1, 30) * HOUR_US,
        )
        for tier in random.sample(list(Tier), random.randint(2, 3))
        for tenant in range(random.randint(1, 3))
        for number in range(random.randint(1, 3))
    ]
    # The third model has no measurement, so its packs are short.
    speeds = {"model-a": 100.0, "model-b": random.uniform(50, 500)}
    return World.of(*batches, workers=random.randint(1, 3), tokens_per_second=speeds)


def path_of(world: World, batch_id: str) -> Path:
    each = world.backlogs[batch_id]
    return each.tier.value, each.tenant_id, each.batch_id


def charges_below(world: World, parent: Path, since: int = 0) -> list[Charges]:
    """Return what each child of `parent` was charged, for every pack from number `since` on."""
    depth = len(parent) + 1
    packs = []
    for charges in world.dispatched[since:]:
        sums: Charges = {}
        for batch_id, seconds in charges.items():
            path = path_of(world, batch_id)
            if path[: depth - 1] == parent:
                sums[path[:depth]] = sums.get(path[:depth], 0.0) + seconds
        packs.append(sums)
    return packs


def families_of(world: World) -> dict[Path, list[Path]]:
    """Return the children of every account that has some."""
    families: dict[Path, set[Path]] = {}
    for batch_id in world.backlogs:
        path = path_of(world, batch_id)
        for depth in range(3):
            families.setdefault(path[:depth], set()).add(path[: depth + 1])
    return {parent: sorted(children) for parent, children in families.items()}


def weight(path: Path) -> float:
    return float(WEIGHTS[Tier(path[0])]) if len(path) == 1 else 1.0


def largest(packs: Iterable[Charges], child: Path) -> float:
    return max((charges.get(child, 0.0) for charges in packs), default=0.0)


def lead_over(packs: list[Charges], ahead: Path, behind: Path) -> float:
    """Return the most that `ahead` gained on `behind` over any span of packs, in weighted seconds."""
    level = lowest = gained = 0.0
    for charges in packs:
        level += charges.get(ahead, 0.0) / weight(ahead) - charges.get(behind, 0.0) / weight(behind)
        lowest = min(lowest, level)
        gained = max(gained, level - lowest)
    return gained


def bound(packs: list[Charges], one: Path, other: Path) -> float:
    return largest(packs, one) / weight(one) + largest(packs, other) / weight(other) + EPSILON


def run(world: World, random: Random, steps: int = STEPS) -> None:
    for _ in range(steps):
        world.step(leases=random.randint(1, 3))


def siblings_get_their_weighted_shares(seed: int) -> None:
    random = Random(seed)
    world = world_of(random)
    run(world, random)

    for parent, children in families_of(world).items():
        packs = charges_below(world, parent)
        for one, other in combinations(children, 2):
            assert lead_over(packs, one, other) <= bound(packs, one, other)
            assert lead_over(packs, other, one) <= bound(packs, one, other)


def nobody_starves(seed: int) -> None:
    """Between two dispatches of an account, its siblings get at most sum(w_j * U_i / w_i + U_j)."""
    random = Random(seed)
    world = world_of(random)
    run(world, random)

    for parent, children in families_of(world).items():
        packs = charges_below(world, parent)
        for one in children:
            others = [other for other in children if other != one]
            allowed = sum(weight(o) * largest(packs, one) / weight(one) + largest(packs, o) for o in others) + EPSILON
            waited = 0.0
            for charges in packs:
                waited = 0.0 if one in charges else waited + sum(charges.values())
                # An account never served has no largest charge; a full pack stands in for it.
                assert waited <= allowed + (0.0 if largest(packs, one) else 10.0 * sum(map(weight, children)))


def an_idle_account_banks_no_credit(seed: int) -> None:
    random = Random(seed)
    world = world_of(random)
    families = families_of(world)
    parent = random.choice([parent for parent, children in families.items() if len(children) > 1])
    newcomer = random.choice(families[parent])
    world.away = {name for name in world.backlogs if path_of(world, name)[: len(newcomer)] == newcomer}
    run(world, random)
    world.away = set()
    returned = len(world.dispatched)
    run(world, random)

    packs = charges_below(world, parent, since=returned)
    for other in set(families[parent]) - {newcomer}:
        assert lead_over(packs, newcomer, other) <= bound(packs, newcomer, other)
        assert lead_over(packs, other, newcomer) <= bound(packs, newcomer, other)


def coming_and_going_sheds_no_debt(seed: int) -> None:
    random = Random(seed)
    world = World.of(*(backlog(f"batch_{n}", row_tokens=random.choice([100, 700])) for n in range(5)), workers=1)
    for _ in range(STEPS):
        world.paused = {"batch_0"} if random.random() < 0.5 else set()
        world.step()

    packs = charges_below(world, (Tier.STANDARD.value, "tnt_a"))
    flapper, *others = families_of(world)[Tier.STANDARD.value, "tnt_a"]
    for other in others:
        assert lead_over(packs, flapper, other) <= bound(packs, flapper, other)


def filling_up_packs_gains_a_bounded_lead(seed: int) -> None:
    random = Random(seed)
    policy = Policy(top_up_lead_seconds=random.choice([0.0, 5.0, 10.0]), pack_rows_min=1)
    filler = backlog("batch_filler", tenant_id=TenantId("tnt_filler"))
    other = backlog("batch_other", tenant_id=TenantId("tnt_other"), model="model-b")
    short = [
        backlog(f"batch_short_{n}", rows=random.randint(1, 3), tenant_id=TenantId("tnt_short")) for n in range(STEPS)
    ]
    world = World.of(filler, other, *short, policy=policy, workers=1)
    for number in range(STEPS):
        world.away = {each.batch_id for each in short[number // 2 :]}
        world.step()

    packs = charges_below(world, (Tier.STANDARD.value,))
    ahead, behind = (Tier.STANDARD.value, "tnt_filler"), (Tier.STANDARD.value, "tnt_other")
    assert lead_over(packs, ahead, behind) <= 2 * policy.top_up_lead_seconds + bound(packs, ahead, behind)


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
    world = world_of(random)
    run(world, random)

    ordinals = [pack.ordinal for pack in world.leased]
    assert ordinals == sorted(ordinals)
    assert len(world.leased) >= STEPS


PROPERTIES = [
    siblings_get_their_weighted_shares,
    nobody_starves,
    an_idle_account_banks_no_credit,
    coming_and_going_sheds_no_debt,
    filling_up_packs_gains_a_bounded_lead,
    a_stream_of_short_batches_does_not_starve_a_long_one,
    leases_follow_the_virtual_time,
]


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.__name__)
def test_it_holds_over_many_cycles(prop: Callable[[int], None]) -> None:
    hold(prop, st.integers(0, 2**32 - 1), examples=10)


def charge_per_pack(_: fairness.FairQueue, turn: fairness.Turn, seconds: float) -> None:
    """Count packs instead of seconds."""
    for account in turn.accounts[1:]:
        account.start_seconds += min(seconds, 1.0) / account.weight


def by_deadline(_: fairness.Account) -> float:
    """Let the earliest deadline win whatever it has had."""
    return 0.0


def by_weight(account: fairness.Account) -> float:
    """Let the higher tier win whatever it has had."""
    return -account.weight


MUTANTS = [
    (siblings_get_their_weighted_shares, Policy, "tier_weight", lambda *_: 1.0),
    (siblings_get_their_weighted_shares, fairness.FairQueue, "charge", charge_per_pack),
    (siblings_get_their_weighted_shares, fairness.FairQueue, "tags", lambda _: ()),
    (
        siblings_get_their_weighted_shares,
        fairness,
        "without_stale",
        lambda tags: tuple(tags[p] for p in tags if len(p) < 3),
    ),
    (siblings_get_their_weighted_shares, fairness, "lift", lambda _, virtual: virtual),
    (nobody_starves, fairness, "turn_of", by_deadline),
    (nobody_starves, fairness, "turn_of", by_weight),
    (nobody_starves, fairness, "lift", lambda _, virtual: virtual),
    (an_idle_account_banks_no_credit, fairness, "lift", lambda start, _: start),
    (an_idle_account_banks_no_credit, fairness, "lift", lambda start, virtual: start or virtual * 2),
    (coming_and_going_sheds_no_debt, fairness, "lift", lambda _, virtual: virtual),
    (filling_up_packs_gains_a_bounded_lead, fairness, "may_fill_up", lambda *_, **__: True),
    (filling_up_packs_gains_a_bounded_lead, fairness.FairQueue, "charge", lambda *_: None),
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
