"""Terms of tiers and tenants: weights, floors, limits."""

from __future__ import annotations

from random import Random

import pytest

from pipeline.app.policies import policy_of
from pipeline.config import Settings, load_settings
from pipeline.domain.errors import UsageError
from pipeline.domain.ids import TenantId
from pipeline.domain.tiers import WEIGHTS, Tier
from pipeline.ports.cycle import CyclePlan, PoolView
from scheduler.policy import Policy, floored
from tests.scheduler.world import ALL_MODELS, World, backlog, plan_of, references, snapshot

ONE, OTHER = TenantId("tnt_a"), TenantId("tnt_b")


def test_floors_are_kept_and_the_others_share_the_rest_as_before() -> None:
    random = Random(3)
    for _ in range(500):
        weights = {tier: random.uniform(0.1, 10) for tier in Tier}
        floors = {tier: random.uniform(0, 0.24) for tier in random.sample(list(Tier), random.randint(0, 4))}

        found = floored(weights, floors)

        shares = {tier: weight / sum(found.values()) for tier, weight in found.items()}
        assert all(shares[tier] >= floor - 1e-6 for tier, floor in floors.items())
        free = [tier for tier in Tier if shares[tier] > floors.get(tier, 0.0) + 1e-6]
        ratios = [shares[tier] / weights[tier] for tier in free]
        assert max(ratios, default=1.0) == pytest.approx(min(ratios, default=1.0))


def test_without_floors_weights_are_what_they_were() -> None:
    assert floored(WEIGHTS, {}) == pytest.approx(dict(WEIGHTS))


def test_tenants_of_a_tier_share_it_by_their_weights() -> None:
    policy = Policy(pack_rows_min=1, tenant_weights={ONE: 3.0})
    world = World.of(backlog("batch_a"), backlog("batch_b", tenant_id=OTHER), policy=policy, workers=1)
    for _ in range(80):
        world.step()

    charged = [sum(charges.get(name, 0.0) for charges in world.dispatched) for name in ("batch_a", "batch_b")]
    assert charged[0] == pytest.approx(3 * charged[1], rel=0.1)


def planned(*, limit: float, on_their_way: float, others: bool = True) -> CyclePlan:
    pool = PoolView(
        pool="cpu",
        workers=4,
        servings=references(ALL_MODELS),
        packs_waiting=0,
        packs_of_tenants={ONE: on_their_way} if on_their_way else {},
    )
    queued = [backlog("batch_a")] + ([backlog("batch_b", tenant_id=OTHER)] if others else [])
    return plan_of(snapshot(queued, pools=(pool,)), Policy(pack_rows_min=1, tenant_limits={ONE: limit}))


def packs_of(plan: CyclePlan, name: str) -> int:
    return sum(any(part.batch_id == name for part in pack.slices) for pack in plan.packs)


@pytest.mark.parametrize(
    ("limit", "on_their_way", "allowed"),
    [(0.5, 0.0, 2), (0.5, 1.0, 1), (0.5, 2.0, 0), (0.5, 1.5, 1), (1.0, 1.0, 3), (0.1, 0.0, 1), (0.1, 1.0, 0)],
)
def test_a_tenant_has_no_more_packs_on_their_way_than_its_limit(
    limit: float, on_their_way: float, allowed: int
) -> None:
    alone = planned(limit=limit, on_their_way=on_their_way, others=False)
    contended = planned(limit=limit, on_their_way=on_their_way)

    assert packs_of(alone, "batch_a") == allowed
    assert packs_of(contended, "batch_a") <= allowed
    # What it leaves is others' to have.
    assert len(contended.packs) == 8


def test_a_tenant_at_its_limit_does_not_fill_up_packs_of_others_either() -> None:
    short = [backlog(f"batch_b{number}", rows=1, tenant_id=OTHER) for number in range(8)]
    pool = PoolView(
        pool="cpu", workers=4, servings=references(ALL_MODELS), packs_waiting=0, packs_of_tenants={ONE: 4.0}
    )

    plan = plan_of(
        snapshot([*short, backlog("batch_a", rows=5)], pools=(pool,)),
        Policy(pack_rows_min=1, tenant_limits={ONE: 1.0}),
    )

    assert packs_of(plan, "batch_a") == 0
    assert plan.packs


def test_settings_say_the_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTRATE_TIERS", '{"nightly": {"floor": 0.25, "window": "12h"}, "urgent": {"weight": 16}}')
    monkeypatch.setenv("NIGHTRATE_TENANTS", '{"tnt_a": {"weight": 2, "limit": 0.5}, "tnt_b": {"weight": 3}}')
    monkeypatch.setenv("NIGHTRATE_DEBT_HALF_LIFE_HOURS", "2")
    settings = Settings()

    policy = policy_of(settings)

    whole = sum(policy.tier_weights.values())
    assert policy.tier_weight(Tier.NIGHTLY) / whole == pytest.approx(0.25)
    assert policy.tier_weight(Tier.URGENT) / policy.tier_weight(Tier.STANDARD) == pytest.approx(4)
    assert (policy.tenant_weight(ONE), policy.tenant_weight(OTHER), policy.tenant_weight(TenantId("x"))) == (2, 3, 1)
    assert policy.tenant_limits == {ONE: 0.5}
    assert policy.debt_half_life_seconds == 7200
    assert (settings.window_of(Tier.NIGHTLY), settings.window_of(Tier.URGENT)) == ("12h", "1h")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TIERS", '{"nightly": {"weight": 0}}', "tiers.nightly.weight"),
        ("TIERS", '{"nighty": {}}', "tiers.nighty"),
        ("TIERS", '{"nightly": {"window": "soon"}}', "tiers.nightly.window"),
        ("TENANTS", '{"tnt_a": {"limit": 1.5}}', "tenants.tnt_a.limit"),
        ("TENANTS", '{"tnt_a": {"limits": 1}}', "tenants.tnt_a.limits"),
    ],
)
def test_terms_that_make_no_sense_are_named(name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"NIGHTRATE_{name}", value)

    with pytest.raises(UsageError, match=said):
        load_settings()


def test_floors_beyond_the_whole_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTRATE_TIERS", '{"nightly": {"floor": 0.6}, "bulk": {"floor": 0.6}}')

    with pytest.raises(UsageError, match="floors"):
        policy_of(load_settings())
