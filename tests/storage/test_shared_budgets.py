"""Budgets of tenants and projects on the real store: counted as they are charged, held by the cycle, told and audited once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from random import Random

import pytest

from pipeline.domain.costs.budgets import BudgetPeriod, BudgetScope, BudgetStanding, BudgetTerms
from pipeline.domain.costs.tariffs import Elasticity, Tariff, TokenPrices
from pipeline.domain.errors import ConflictError, NotFoundError
from pipeline.domain.ids import DEFAULT_PROJECT, DEFAULT_TENANT, BatchId, ProjectId, TenantId, new_budget_id
from pipeline.domain.lifecycle import AttemptOutcome
from pipeline.domain.plans import BUILT_IN, PlanBook
from pipeline.domain.ranges import count_rows
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.domain.webhooks import EventType
from pipeline.ports.access import Scope
from pipeline.ports.batches import BatchView, Steering
from pipeline.ports.budgets import BudgetDraft
from scheduler.cycle import decide
from storage.batches import BatchRepository
from storage.budgets import BudgetRepository
from tests.storage.test_budgets import POLICY, ROW_MICROS, Till, new_pack_id, reserved_now
from tests.storage.test_webhooks import add
from tests.storage.world import LEASE, World, admitted

SCOPE = Scope(tenant_id=DEFAULT_TENANT)
STEPS = 60


def budgets(world: World) -> BudgetRepository:
    return BudgetRepository(world.database)


def draft(amount: int, *, project: ProjectId | None = None, period: BudgetPeriod = BudgetPeriod.MONTH) -> BudgetDraft:
    return BudgetDraft(
        budget_id=new_budget_id(),
        scope=BudgetScope(tenant_id=DEFAULT_TENANT, project_id=project),
        period=period,
        terms=BudgetTerms(amount_micros=amount, core_share_ppm=1_000_000),
    )


def cycle(world: World, till: Till | None = None) -> None:
    cycles = world.cycles if till is None else till.cycles
    seen = replace(cycles.snapshot(), tokens_per_second={}, ended=())
    cycles.dispatch(world.leadership.epoch, decide(seen, POLICY, new_pack_id))


def charged(world: World) -> int:
    (found,) = world.scalars("SELECT coalesce(sum(charged_micros), 0) FROM entries WHERE batch_id IS NOT NULL")
    return int(str(found))


def counted(world: World) -> int:
    (found,) = world.scalars("SELECT coalesce(sum(charged_micros), 0) FROM charges_by_month")
    return int(str(found))


def run_all(till: Till) -> None:
    """Work until nothing is dispatched any more."""
    world = till.world
    for _ in range(40):
        cycle(world, till)
        lease = world.packs.lease(till.worker_id, pool="local", variants=["echo"])
        if lease is None:
            return
        parts = [(part.batch_id, part.shard_id, part.ranges, 20 * count_rows(part.ranges)) for part in lease.slices]
        rows = sum(count_rows(part.ranges) for part in lease.slices)
        # Four fifths of the upper bound.
        commit = world.work(till.worker_id, lease, *parts, duration_us=rows * ROW_MICROS * 800)
        world.packs.commit(till.worker_id, commit)
        world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.SUCCEEDED)


def priced(world: World, tariff: Tariff, *, tier: Tier = Tier.STANDARD) -> tuple[BatchRepository, BatchView]:
    batches = BatchRepository(world.database, claim_for=LEASE, plans=PlanBook(tariff=tariff))
    return batches, batches.submit(world.submission(tier=tier))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_spent_and_reserved_of_every_scope_stays_within_its_budget(world: World, seed: int) -> None:
    random = Random(seed)
    till = Till(world, random)
    tenant = budgets(world).set(draft(random.randint(1_000, 4_000)))
    project = budgets(world).set(draft(random.randint(1_000, 4_000), project=DEFAULT_PROJECT))
    total = budgets(world).set(draft(6_000, period=BudgetPeriod.TOTAL))

    for number in range(STEPS):
        if number % 12 == 0:
            till.submit()
        random.choice([till.cycle, till.run, till.run])()
        till.check()
        in_flight = sum(reserved_now(world).values())
        for each in (tenant, project, total):
            seen = budgets(world).get(each.budget_id, SCOPE)
            assert seen.spent_micros == charged(world)
            assert seen.reserved_micros == in_flight
            assert seen.left_micros >= 0

    assert charged(world) > 0


def test_commits_at_once_are_all_counted(world: World) -> None:
    batch_id = world.admit(80)
    (shard_id,) = world.shard_ids(batch_id)
    workers = [world.worker() for _ in range(8)]
    leases = []
    for number, worker_id in enumerate(workers):
        world.pack((batch_id, shard_id, number * 10, number * 10 + 10))
        leases.append((worker_id, number, world.lease(worker_id)))

    def commit(worker_id: object, number: int, lease: object) -> None:
        rows = ((number * 10, number * 10 + 10),)
        work = world.work(worker_id, lease, (batch_id, shard_id, rows, 8))  # type: ignore[arg-type]
        world.packs.commit(worker_id, work)  # type: ignore[arg-type]
        world.packs.commit(worker_id, work)  # type: ignore[arg-type]

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(commit, *each) for each in leases]:
            done.result()

    assert counted(world) == charged(world) == 8_000


def test_a_pack_counts_in_the_month_that_it_was_begun_in(world: World) -> None:
    batch_id, worker_id = world.admit(20), world.worker()
    (shard_id,) = world.shard_ids(batch_id)
    world.pack((batch_id, shard_id, 0, 10))
    world.execute("UPDATE packs SET month = '2020-02-01'")
    lease = world.lease(worker_id)

    world.packs.commit(worker_id, world.work(worker_id, lease, (batch_id, shard_id, ((0, 10),), 8)))

    assert [tuple(row) for row in world.rows("SELECT month::text, charged_micros FROM charges_by_month")] == [
        ("2020-02-01", 1000)
    ]


def test_a_plan_is_stored_in_the_month_whose_budgets_it_was_made_on(world: World) -> None:
    made = budgets(world).set(draft(1_000 * ROW_MICROS))
    world.worker()
    world.admit(10)
    seen = replace(world.cycles.snapshot(), tokens_per_second={}, month=date(2020, 2, 1))

    world.cycles.dispatch(world.leadership.epoch, decide(seen, POLICY, new_pack_id))

    assert {str(month) for month in world.scalars("SELECT month FROM packs")} == {"2020-02-01"}
    assert standing_of(world, made).reserved_micros == 0


def test_a_bisected_pack_counts_in_its_own_month(world: World) -> None:
    batch_id, worker_id = world.admit(20), world.worker()
    (shard_id,) = world.shard_ids(batch_id)
    world.pack((batch_id, shard_id, 0, 10))
    world.execute("UPDATE packs SET month = '2020-02-01'")

    lease = world.lease(worker_id)
    while world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.FAILED, "boom") != "bisect":
        world.execute("UPDATE packs SET available_at = now() WHERE state = 'retryable'")
        lease = world.lease(worker_id)

    assert {str(month) for month in world.scalars("SELECT month FROM packs")} == {"2020-02-01"}


def test_what_a_tenants_budget_stops_says_so_and_goes_on_when_it_is_topped_up(world: World) -> None:
    till = Till(world, Random(1))
    made = budgets(world).set(draft(5 * ROW_MICROS))
    batch_id = world.admit(12)

    run_all(till)
    stopped = world.batches.get(batch_id)
    budgets(world).top_up(made.budget_id, SCOPE, top_up_id="topup_1", micros=20 * ROW_MICROS)
    run_all(till)

    assert stopped.reason is Reason.TENANT_BUDGET_REACHED
    assert 0 < stopped.rows_succeeded < 12
    assert world.batches.get(batch_id).rows_succeeded == 12


def test_another_project_goes_on_when_one_has_reached_its_budget(world: World) -> None:
    till = Till(world, Random(1))
    world.execute("INSERT INTO projects (id, tenant_id, name) VALUES ('proj_other', 'tnt_default', 'other')")
    budgets(world).set(draft(2 * ROW_MICROS, project=DEFAULT_PROJECT))
    stopped, other = world.admit(12), world.admit(12)
    world.execute("UPDATE batches SET project_id = 'proj_other' WHERE id = :id", id=other)

    run_all(till)

    assert world.batches.get(stopped).reason is Reason.PROJECT_BUDGET_REACHED
    assert world.batches.get(other).rows_succeeded == 12


def test_tiers_that_are_no_core_wait_first(world: World) -> None:
    till = Till(world, Random(1))
    terms = BudgetTerms(amount_micros=20 * ROW_MICROS, core_share_ppm=200_000)
    made = budgets(world).set(replace(draft(1), terms=terms))
    bulk, standard = world.admit(12, tier=Tier.BULK), world.admit(12)

    run_all(till)

    assert world.batches.get(bulk).reason is Reason.TENANT_BUDGET_REACHED
    assert world.batches.get(bulk).rows_succeeded < 5
    assert world.batches.get(standard).rows_succeeded > 10
    assert budgets(world).get(made.budget_id, SCOPE).left_micros >= 0


def test_each_share_is_told_once_a_period_and_again_after_the_limit_was_raised(world: World) -> None:
    till = Till(world, Random(1))
    add(world, EventType.BUDGET_ALERT, EventType.BUDGET_REACHED)
    made = budgets(world).set(replace(draft(1), terms=BudgetTerms(amount_micros=6 * ROW_MICROS)))
    world.admit(40)

    run_all(till)
    first = events(world)
    run_all(till)
    again = events(world)
    budgets(world).top_up(made.budget_id, SCOPE, top_up_id="topup_1", micros=6 * ROW_MICROS)
    run_all(till)

    assert sorted(first) == [
        ("budget.alert", 0.5),
        ("budget.alert", 0.8),
        ("budget.alert", 1.0),
        ("budget.reached", 1.0),
    ]
    assert again == first
    assert len(events(world)) > len(first)
    assert {str(mark) for mark, _ in budgets(world).get(made.budget_id, SCOPE).told} >= {"reached"}


def events(world: World) -> list[tuple[str, float]]:
    rows = world.rows("SELECT type, data FROM webhook_events ORDER BY created_at")
    return [(row.type, float(row.data["share"])) for row in rows]


def test_a_budget_is_set_once_for_each_scope_and_period(world: World) -> None:
    first = budgets(world).set(draft(1_000))
    second = budgets(world).set(draft(2_000))
    budgets(world).set(draft(3_000, period=BudgetPeriod.TOTAL))

    assert second.budget_id == first.budget_id
    assert [each.limit_micros for each in budgets(world).list(SCOPE)] == [2_000, 3_000]


def test_a_top_up_counts_once_and_in_its_period(world: World) -> None:
    made = budgets(world).set(draft(1_000))

    for _ in range(2):
        topped = budgets(world).top_up(made.budget_id, SCOPE, top_up_id="topup_1", micros=500)

    assert topped.limit_micros == 1_500
    with pytest.raises(ConflictError):
        budgets(world).top_up(made.budget_id, SCOPE, top_up_id="topup_1", micros=600)
    world.execute("UPDATE budget_top_ups SET period_start = '2020-02-01'")
    assert budgets(world).get(made.budget_id, SCOPE).limit_micros == 1_000


@pytest.mark.parametrize("scope", [Scope(tenant_id=TenantId("tnt_other")), replace(SCOPE, project_id=DEFAULT_PROJECT)])
def test_a_budget_of_others_does_not_exist(world: World, scope: Scope) -> None:
    made = budgets(world).set(draft(1_000))

    with pytest.raises(NotFoundError):
        budgets(world).get(made.budget_id, scope)
    with pytest.raises(NotFoundError):
        budgets(world).remove(made.budget_id, scope)
    assert budgets(world).list(scope) == ()


def test_a_budget_of_nobody_is_refused(world: World) -> None:
    with pytest.raises(NotFoundError):
        budgets(world).set(draft(1_000, project=ProjectId("proj_nobody")))


def test_who_sets_changes_tops_up_and_removes_a_budget_is_audited(world: World) -> None:
    made = budgets(world).set(draft(1_000))
    budgets(world).set(draft(2_000))
    budgets(world).set(draft(2_000))
    budgets(world).top_up(made.budget_id, SCOPE, top_up_id="topup_1", micros=500)
    budgets(world).remove(made.budget_id, SCOPE)

    told = world.rows("SELECT action, details FROM audit_log WHERE object_id = :id ORDER BY at", id=made.budget_id)
    assert [row.action for row in told] == [
        "budget.created",
        "budget.updated",
        "budget.topped_up",
        "budget.deleted",
    ]
    assert told[1].details == {"amount_micros": {"from": 1_000, "to": 2_000}}


def test_a_batch_keeps_the_price_of_its_submission_and_pays_it(world: World) -> None:
    _, view = priced(world, Tariff(tiers={Tier.STANDARD: 1_500_000}))
    claim = world.batches.first_claim(view)
    assert claim is not None
    world.batches.admit(claim, admitted(claim.batch_id, 10))

    world.finish_rows(claim.batch_id, world.worker())

    seen = world.batches.get(claim.batch_id)
    assert (view.terms.multiplier_ppm, seen.charge_factors) == (1_500_000, {"tier": 1_500_000})
    assert seen.cost_micros == 1_500
    assert counted(world) == 1_500


def test_another_tier_is_another_price_from_then_on_and_audited(world: World) -> None:
    batches, view = priced(world, Tariff(tiers={Tier.STANDARD: 1_500_000, Tier.URGENT: 3_000_000}))

    changed = batches.steer(view.batch_id, Steering(tier=Tier.URGENT))
    kept = batches.steer(view.batch_id, Steering(priority=1))

    assert changed.terms.multiplier_ppm == kept.terms.multiplier_ppm == 3_000_000
    details = world.rows("SELECT details FROM audit_log WHERE action = 'batch.changed' ORDER BY at")[0].details
    assert details["charge_multiplier_ppm"] == {"from": 1_500_000, "to": 3_000_000}


def test_tokens_have_the_price_of_their_model_from_admission_on(world: World) -> None:
    tariff = Tariff(tiers={Tier.BULK: 500_000}, prices={"echo": TokenPrices(input_picos=10**9, output_picos=0)})
    batches, view = priced(world, tariff, tier=Tier.BULK)
    claim = batches.first_claim(view)
    assert claim is not None
    batches.admit(claim, admitted(claim.batch_id, 10))

    world.finish_rows(BatchId(view.batch_id), world.worker())

    seen = batches.get(view.batch_id)
    assert seen.terms.input_token_picos == 5 * 10**8
    assert seen.cost_micros == 8 * 500


def test_a_busy_fleet_is_dearer(world: World) -> None:
    tariff = Tariff(elasticity=Elasticity(floor_ppm=500_000, ceiling_ppm=2_000_000))
    batch_id = world.admit(10)
    (shard_id,) = world.shard_ids(batch_id)
    workers = [world.worker(), world.worker()]
    idle = priced(world, tariff)[1].terms.multiplier_ppm
    world.pack((batch_id, shard_id, 0, 10))
    lease = world.lease(workers[0])
    busy = priced(world, tariff)[1].terms.multiplier_ppm
    world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.PREEMPTED)

    assert (idle, busy) == (500_000, 1_250_000)


def test_a_plan_has_a_price_of_its_own(world: World) -> None:
    book = PlanBook(plans={**BUILT_IN, "unlimited": replace(BUILT_IN["unlimited"], price_ppm=800_000)})
    batches = BatchRepository(world.database, claim_for=LEASE, plans=book)

    assert batches.submit(world.submission()).charge_factors == {"plan": 800_000}


def standing_of(world: World, made: BudgetStanding) -> BudgetStanding:
    return budgets(world).get(made.budget_id, SCOPE)


def test_what_packs_in_flight_reserve_is_in_terms_of_what_is_charged(world: World) -> None:
    made = budgets(world).set(draft(1_000 * ROW_MICROS))
    world.worker()
    batches, view = priced(world, Tariff(tiers={Tier.STANDARD: 3_000_000}))
    claim = batches.first_claim(view)
    assert claim is not None
    batches.admit(claim, admitted(claim.batch_id, 4))

    cycle(world)

    assert standing_of(world, made).reserved_micros == 4 * 3 * ROW_MICROS
