"""The cycle by example: what overtakes what, what fills up what, and the reasons people read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import TenantId
from pipeline.domain.limits import PACK_ROWS_MAX, PACK_SLICES_MAX
from pipeline.domain.promises import Promise
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Backlog, PoolView, Reach, SliceDraft
from scheduler import cycle, packing
from scheduler.deadlines import is_overdue
from scheduler.policy import Policy
from tests.scheduler.world import HOUR_US, NOW_US, World, backlog, plan_of, references, snapshot

ONE_WORKER = (PoolView(pool="cpu", workers=1, servings=references(["model-a", "model-b"]), packs_waiting=0),)


def reasons_of(*backlogs: Backlog, pools: tuple[PoolView, ...] = ONE_WORKER) -> dict[str, Reason]:
    return {each.batch_id: each.reason for each in plan_of(snapshot(backlogs, pools=pools)).standings}


def packed(slices: tuple[SliceDraft, ...]) -> list[tuple[str, int, int]]:
    return [(draft.batch_id, draft.row_start, draft.row_stop) for draft in slices]


def leases_until_urgent() -> int:
    """Return how many packs are leased before the first urgent one that came behind a million rows."""
    world = World.of(*(backlog(f"batch_bulk_{n}", rows=100_000, tier=Tier.BULK) for n in range(10)))
    for _ in range(20):
        world.step()
    world.backlogs["batch_urgent"] = backlog("batch_urgent", rows=50, tier=Tier.URGENT)
    before = len(world.leased)
    for _ in range(20):
        world.step()
    return next(n for n, pack in enumerate(world.leased[before:]) if pack.tier is Tier.URGENT)


def test_a_late_urgent_batch_overtakes_a_million_queued_rows() -> None:
    assert leases_until_urgent() <= 4


def test_it_would_not_if_everything_were_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cycle, "packs_admitted", lambda *_: 50)

    with pytest.raises(StopIteration):
        leases_until_urgent()


def test_a_tier_keeps_its_share_however_many_batches_the_lower_one_has() -> None:
    bulk = [backlog(f"batch_bulk_{n}", tier=Tier.BULK) for n in range(50)]
    world = World.of(backlog("batch_urgent", tier=Tier.URGENT), *bulk)
    for _ in range(100):
        world.step()

    urgent = sum(pack.tier is Tier.URGENT for pack in world.leased)
    assert urgent == pytest.approx(80, abs=2)


def test_a_tenant_gains_nothing_by_splitting_its_work_over_many_batches() -> None:
    many = [backlog(f"batch_many_{n}", tenant_id=TenantId("tnt_many")) for n in range(20)]
    world = World.of(backlog("batch_one", tenant_id=TenantId("tnt_one")), *many)
    for _ in range(60):
        world.step()

    assert sum("batch_one" in charges for charges in world.dispatched) == pytest.approx(30, abs=3)


def test_equal_claims_go_by_deadline_then_by_age() -> None:
    late = backlog("batch_a", rows=10, model="model-a", deadline_at_us=NOW_US + 2 * HOUR_US)
    young = backlog("batch_b", rows=10, model="model-b", deadline_at_us=NOW_US + HOUR_US)
    old = replace(backlog("batch_c", rows=10), endpoint=Endpoint.COMPLETIONS, deadline_at_us=NOW_US + HOUR_US)
    old = replace(old, created_at_us=NOW_US - 5 * HOUR_US)
    pools = (replace(ONE_WORKER[0], workers=2),)

    plan = plan_of(snapshot([late, young, old], pools=pools))

    assert [pack.slices[0].batch_id for pack in plan.packs] == ["batch_c", "batch_b", "batch_a"]


def test_a_pack_holds_the_rows_of_its_predicted_seconds() -> None:
    pack, *_ = plan_of(snapshot([backlog("batch_a", row_tokens=250)])).packs

    assert packed(pack.slices) == [("batch_a", 0, 4)]
    assert pack.predicted_seconds == pytest.approx(10.0)


def test_a_row_longer_than_a_pack_is_a_pack() -> None:
    pack, *_ = plan_of(snapshot([backlog("batch_a", row_tokens=100_000)])).packs

    assert packed(pack.slices) == [("batch_a", 0, 1)]


def test_a_short_batch_is_filled_up_from_the_next_one_of_its_lane_only() -> None:
    short = backlog("batch_a", rows=3, created_at_us=NOW_US - 9 * HOUR_US)
    others = [
        backlog("batch_b", tier=Tier.NIGHTLY),
        backlog("batch_c", model="model-b"),
        backlog("batch_d", endpoint=Endpoint.COMPLETIONS),
        backlog("batch_e", tenant_id=TenantId("tnt_b"), deadline_at_us=NOW_US + 48 * HOUR_US),
    ]

    plan = plan_of(snapshot([short, *others]))

    mixed = next(pack for pack in plan.packs if pack.slices[0].batch_id == "batch_a")
    assert packed(mixed.slices) == [("batch_a", 0, 3), ("batch_e", 0, 7)]


def test_the_first_packs_of_an_unmeasured_model_are_short() -> None:
    pack, *_ = plan_of(snapshot([backlog("batch_a")], tokens_per_second={})).packs

    assert packed(pack.slices) == [("batch_a", 0, 10)]
    assert pack.predicted_seconds == pytest.approx(2.0)


def test_without_the_caution_they_would_be_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "seconds_target", lambda policy, **_: policy.pack_seconds_target)

    with pytest.raises(AssertionError):
        test_the_first_packs_of_an_unmeasured_model_are_short()


def test_a_slow_measurement_does_not_shrink_packs_below_what_fills_an_engine() -> None:
    slow = snapshot([backlog("batch_a", rows=1000)], tokens_per_second={"model-a": 1.0})

    assert packed(plan_of(slow, Policy()).packs[0].slices) == [("batch_a", 0, 128)]
    assert packed(plan_of(slow, Policy(pack_rows_min=1)).packs[0].slices) == [("batch_a", 0, 1)]


def test_rows_without_tokens_still_cost_a_turn() -> None:
    pack, *_ = plan_of(snapshot([backlog("batch_a", row_tokens=0)])).packs

    assert pack.predicted_seconds == pytest.approx(10.0)


def test_pools_that_serve_the_same_model_share_a_short_backlog() -> None:
    pools = tuple(PoolView(pool=name, workers=1, servings=references(["model-a"]), packs_waiting=0) for name in "ab")

    plan = plan_of(snapshot([backlog("batch_a", rows=20)], pools=pools))

    assert [pack.pool for pack in plan.packs] == ["a", "b"]


def test_a_pool_without_tags_begins_behind_the_packs_already_published() -> None:
    pack, *_ = plan_of(snapshot([backlog("batch_a")], virtual_seconds=42.0)).packs

    assert pack.ordinal == pytest.approx(42.0)


def test_a_pool_that_is_away_keeps_its_fair_tags() -> None:
    tags = plan_of(snapshot([backlog("batch_a")])).fair_tags

    assert plan_of(snapshot([backlog("batch_a")], pools=(), fair_tags=tags)).fair_tags == tags


def test_fair_tags_do_not_pile_up() -> None:
    batches = [backlog(f"batch_{n}", rows=10) for n in range(300)]
    world = World.of(*batches)
    for number in range(300):
        world.away = {each.batch_id for each in batches[number + 5 :]}
        world.step()

    assert len(world.leased) > 250
    assert len(world.fair_tags) <= 12


def test_every_standing_has_its_reason() -> None:
    reasons = reasons_of(
        backlog("batch_running"),
        backlog("batch_queued", tier=Tier.NIGHTLY, deadline_at_us=NOW_US + 98 * HOUR_US),
        backlog("batch_under_way", tier=Tier.NIGHTLY, rows_in_flight=7, deadline_at_us=NOW_US + 99 * HOUR_US),
        backlog("batch_spent", budget_micros=5, spent_micros=5),
        backlog("batch_unserved", model="model-z"),
        backlog("batch_overdue", deadline_at_us=NOW_US),
        backlog("batch_packed", rows=0, shards=()),
        pools=(replace(ONE_WORKER[0], packs_waiting=1),),
    )

    assert reasons == {
        "batch_running": Reason.RUNNING,
        "batch_queued": Reason.QUEUED,
        "batch_under_way": Reason.RUNNING,
        "batch_spent": Reason.BUDGET_REACHED,
        "batch_unserved": Reason.NO_WORKER,
        "batch_overdue": Reason.DEADLINE_PASSED,
        "batch_packed": Reason.ALL_PACKED,
    }


def test_a_pool_without_live_workers_serves_nothing() -> None:
    dead = (replace(ONE_WORKER[0], workers=0),)

    assert reasons_of(backlog("batch_a"), pools=dead) == {"batch_a": Reason.NO_WORKER}


def test_a_batch_of_two_models_runs_while_one_of_them_does() -> None:
    unserved = replace(backlog("batch_a"), model="model-z")

    assert reasons_of(backlog("batch_a"), unserved) == {"batch_a": Reason.RUNNING}


def test_an_empty_snapshot_gives_an_empty_plan() -> None:
    plan = plan_of(snapshot([]))

    assert (plan.packs, plan.standings, plan.fair_tags) == ((), (), ())


def test_a_deadline_is_over_when_it_is_reached() -> None:
    assert is_overdue(np.array([NOW_US, NOW_US + 1]), now_us=NOW_US).tolist() == [True, False]


@pytest.mark.parametrize(
    "changes",
    [
        {"pack_seconds_target": 0.0},
        {"first_pack_seconds": -1.0},
        {"packs_ahead_per_worker": 0},
        {"default_tokens_per_second": 0.0},
        {"top_up_lead_seconds": -1.0},
        {"pack_rows_max": PACK_ROWS_MAX + 1},
        {"pack_slices_max": PACK_SLICES_MAX + 1},
    ],
)
def test_a_policy_that_no_cycle_can_work_with_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must|may"):
        Policy(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("deadline_hours", "promise"), [(2.0, Promise.MADE), (0.3, Promise.DECLINED)])
def test_a_deadline_is_promised_on_the_workers_that_a_pool_can_be_brought_to(
    deadline_hours: float, promise: Promise
) -> None:
    """2,000 rows of a second each: with ten workers from a quarter of an hour on that is ten minutes at most, of 0.7 of them."""
    empty = replace(ONE_WORKER[0], workers=0, reach=Reach(workers=10, after_seconds=900.0))
    asking = backlog(
        "batch_a", rows=2_000, promise=Promise.PENDING, deadline_at_us=NOW_US + round(deadline_hours * HOUR_US)
    )

    plan = plan_of(snapshot([asking], pools=(empty,)))

    assert dict(plan.promises) == {"batch_a": promise}
    assert plan.packs == ()
    assert {each.batch_id: each.reason for each in plan.standings} == {"batch_a": Reason.WORKER_COMING}


def test_rows_run_where_workers_are_while_another_pool_is_only_within_reach() -> None:
    empty = replace(ONE_WORKER[0], pool="gpu", workers=0, reach=Reach(workers=10, after_seconds=900.0))

    plan = plan_of(snapshot([backlog("batch_a")], pools=(*ONE_WORKER, empty)))

    assert {pack.pool for pack in plan.packs} == {"cpu"}
    assert {each.reason for each in plan.standings} == {Reason.RUNNING}


def test_rows_that_must_stay_somewhere_run_in_the_pools_there_alone() -> None:
    theirs = TenantId("tnt_eu")
    pools = tuple(replace(ONE_WORKER[0], pool=name) for name in ("eu", "us"))
    policy = Policy(pack_rows_min=1, pack_fixed_seconds=0.0, tenant_pools={theirs: frozenset({"eu"})})
    seen = snapshot([backlog("batch_eu", tenant_id=theirs), backlog("batch_any")], pools=pools)

    plan = plan_of(seen, policy)

    where = {(part.batch_id, pack.pool) for pack in plan.packs for part in pack.slices}
    assert where >= {("batch_eu", "eu"), ("batch_any", "us")}
    assert ("batch_eu", "us") not in where


def test_rows_that_may_run_nowhere_wait_for_a_worker_and_nothing_is_promised() -> None:
    theirs = TenantId("tnt_eu")
    policy = Policy(pack_rows_min=1, pack_fixed_seconds=0.0, tenant_pools={theirs: frozenset()})
    waiting = backlog("batch_eu", tenant_id=theirs, promise=Promise.PENDING)

    plan = plan_of(snapshot([waiting], pools=ONE_WORKER), policy)

    assert (plan.packs, plan.promises) == ((), ())
    assert {each.batch_id: each.reason for each in plan.standings} == {"batch_eu": Reason.NO_WORKER}
