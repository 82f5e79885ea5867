"""Budgets that batches share: who is packed, what is reserved, what is said, what is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from pipeline.domain.costs.budgets import (
    BudgetMark,
    BudgetPeriod,
    BudgetScope,
    BudgetStanding,
    BudgetTerms,
    notices_of,
)
from pipeline.domain.costs.charging import ChargeTerms
from pipeline.domain.errors import UsageError
from pipeline.domain.ids import BudgetId, ProjectId, TenantId
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import CyclePlan
from tests.scheduler.test_budgets import pool, reserved_in, rows_in
from tests.scheduler.world import backlog, plan_of, snapshot

#: What a row of a hundred tokens may cost: a second and a half at a cent a second.
ROW = 15_000


def standing(
    amount: int, *, project: str | None = None, spent: int = 0, reserved: int = 0, core_share_ppm: int = 1_000_000
) -> BudgetStanding:
    return BudgetStanding(
        budget_id=BudgetId("budget_1"),
        scope=BudgetScope(tenant_id=TenantId("tnt_a"), project_id=None if project is None else ProjectId(project)),
        period=BudgetPeriod.MONTH,
        period_start=date(2026, 1, 1),
        terms=BudgetTerms(amount_micros=amount, core_share_ppm=core_share_ppm),
        added_micros=0,
        spent_micros=spent,
        reserved_micros=reserved,
    )


def planned(*backlogs: object, budgets: tuple[BudgetStanding, ...]) -> CyclePlan:
    return plan_of(snapshot(backlogs, pools=(pool(),), budgets=budgets))  # type: ignore[arg-type]


def reasons(plan: CyclePlan) -> dict[str, Reason]:
    return {each.batch_id: each.reason for each in plan.standings}


def test_batches_of_a_tenant_share_its_budget() -> None:
    plan = planned(backlog("batch_a"), backlog("batch_b"), budgets=(standing(6 * ROW),))

    assert (rows_in(plan), reserved_in(plan)) == (6, 6 * ROW)


def test_the_tightest_of_all_budgets_counts() -> None:
    batch = backlog("batch_a", budget_micros=5 * ROW, project_id=ProjectId("proj_1"))

    budgets = standing(4 * ROW), standing(3 * ROW, project="proj_1"), standing(1, project="proj_2")

    assert rows_in(planned(batch, budgets=budgets)) == 3


def test_another_tenants_budget_is_no_matter() -> None:
    assert rows_in(planned(backlog("batch_a", tenant_id=TenantId("tnt_b")), budgets=(standing(0),))) > 6


@pytest.mark.parametrize(
    ("project", "reason"), [(None, Reason.TENANT_BUDGET_REACHED), ("proj_default", Reason.PROJECT_BUDGET_REACHED)]
)
def test_what_a_budget_stops_says_whose_it_is(project: str | None, reason: Reason) -> None:
    plan = planned(backlog("batch_a"), budgets=(standing(10 * ROW, project=project, spent=9 * ROW + 1),))

    assert plan.packs == ()
    assert reasons(plan) == {"batch_a": reason}


def test_what_packs_in_flight_hold_is_waited_for() -> None:
    plan = planned(backlog("batch_a"), budgets=(standing(10 * ROW, reserved=10 * ROW),))

    assert plan.packs == ()
    assert reasons(plan) == {"batch_a": Reason.QUEUED}
    assert plan.notices == ()


def test_only_core_tiers_have_what_is_kept_for_them() -> None:
    bulk, standard = backlog("batch_b", tier=Tier.BULK), backlog("batch_s")
    budget = standing(10 * ROW, spent=5 * ROW, core_share_ppm=500_000)

    plan = planned(bulk, standard, budgets=(budget,))

    assert {part.batch_id for pack in plan.packs for part in pack.slices} == {"batch_s"}
    assert rows_in(plan) == 5
    assert reasons(plan)["batch_b"] is Reason.TENANT_BUDGET_REACHED
    assert [(each.mark, each.share_ppm) for each in plan.notices] == [
        (BudgetMark.SHARE, 500_000),
        (BudgetMark.NON_CORE_PAUSED, 500_000),
    ]


def test_a_multiplier_is_reserved_too() -> None:
    dear = backlog("batch_a", terms=ChargeTerms(multiplier_ppm=2_000_000))

    plan = planned(dear, budgets=(standing(6 * ROW),))

    assert (rows_in(plan), reserved_in(plan)) == (3, 6 * ROW)


def test_tokens_with_a_price_are_reserved_by_their_number() -> None:
    # A hundred tokens a row, half as many again at most, at a micro-unit each.
    terms = ChargeTerms(input_token_picos=1_000_000, output_token_picos=0)

    plan = planned(backlog("batch_a", terms=terms), budgets=(standing(600),))

    assert (rows_in(plan), reserved_in(plan)) == (4, 600)


def test_a_budget_that_pays_for_no_other_row_is_told_to_be_reached() -> None:
    plan = planned(backlog("batch_a"), budgets=(standing(10 * ROW, spent=9 * ROW + 1),))

    assert {each.mark for each in plan.notices} == {BudgetMark.SHARE, BudgetMark.REACHED}
    assert {each.share_ppm for each in plan.notices} == {500_000, 800_000, 1_000_000}


def test_nothing_is_told_twice() -> None:
    first = notices_of(standing(100, spent=100), stops_core=True, stops_others=True)
    told = replace(standing(100, spent=100), told=frozenset((each.mark, each.share_ppm) for each in first))

    assert len(first) == 4
    assert notices_of(told, stops_core=True, stops_others=True) == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount_micros": -1},
        {"alert_shares_ppm": (0,)},
        {"alert_shares_ppm": (2, 1)},
        {"alert_shares_ppm": tuple(range(1, 12))},
        {"core_share_ppm": 1_000_001},
    ],
)
def test_terms_that_no_budget_can_have_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        BudgetTerms(**({"amount_micros": 1} | wrong))  # type: ignore[arg-type]
