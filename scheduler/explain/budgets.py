"""What a batch is told that a budget stops: its own, or one of its project or tenant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pipeline.domain.costs.budgets import BudgetPeriod, BudgetScope, BudgetStanding, next_month_after
from pipeline.domain.figures import counted, money
from pipeline.domain.reasons import Reason
from pipeline.ports.explain import BatchFacts, Change
from scheduler.explain.forecast import Prospect
from scheduler.explain.words import verb

#: What a new budget leaves beyond what finishing is expected to cost.
_BUDGET_MARGIN: Final = 1.2
_CENT_MICROS: Final = 10_000


def over_budget(facts: BatchFacts, prospect: Prospect | None, *, rows_left: int) -> tuple[str, tuple[Change, ...]]:
    """Return what the batch was charged, and a budget that should see it through."""
    view = facts.view
    command = f"nightrate change {view.batch_id} --max-cost"
    spent = money(view.cost_micros, view.currency)
    was_changed = view.steered_at is not None and facts.reason_at is not None and view.steered_at > facts.reason_at
    if view.budget_micros is None or (was_changed and view.cost_micros < view.budget_micros):
        return "Its budget was raised just now; the next cycle looks at it.", ()
    budget = money(view.budget_micros, view.currency)
    cost = f"It was charged {spent} of its budget of {budget}"
    if view.cost_micros < view.budget_micros:
        cost += ", and what is left may not pay for another row"
    left = f"{counted(rows_left, 'row')} {verb(rows_left, 'is', 'are')} left"
    if prospect is None:
        raise_it = Change(sentence="a higher budget, or none", command=f"{command} none")
        return f"{cost}, so nothing new starts; {left}.", (raise_it,)
    more = prospect.cost_micros
    wanted = _round_up(1 + round(view.cost_micros + more * _BUDGET_MARGIN))
    amount = f"{wanted // 1_000_000}.{wanted % 1_000_000:06d}".rstrip("0").rstrip(".")
    raise_it = Change(sentence="a budget that should see it through", command=f"{command} {amount}")
    return (
        f"{cost}, so nothing new starts; {left}, for about {money(_rough(more), view.currency)} more.",
        (raise_it,),
    )


def over_shared_budget(
    facts: BatchFacts, budgets: Sequence[BudgetStanding], *, rows_left: int
) -> tuple[str, tuple[Change, ...]]:
    """Return which budget of its project or tenant stops the batch, and when it goes on by itself.

    What a tenant has spent in all is not for everybody who may see one of its projects: that is not told here.
    """
    view = facts.view
    is_project = view.reason is Reason.PROJECT_BUDGET_REACHED
    mine = [
        each
        for each in budgets
        if (
            each.scope.project_id == view.project_id
            if is_project
            else each.scope == BudgetScope(tenant_id=view.tenant_id)
        )
    ]
    whose = "project" if is_project else "tenant"
    left = f"{counted(rows_left, 'row')} {verb(rows_left, 'is', 'are')} left"
    if not mine:
        return f"The budget of its {whose} was removed just now; the next cycle looks at it.", ()
    budget = min(mine, key=lambda each: each.cap_micros(view.tier) - each.spent_micros)
    kind = "monthly budget" if budget.period is BudgetPeriod.MONTH else "budget"
    spent = ""
    if is_project:
        spent = (
            f" ({money(budget.spent_micros, view.currency)} of {money(budget.limit_micros, view.currency)} is spent)"
        )
    goes_on = "once it is topped up or raised"
    if budget.period is BudgetPeriod.MONTH:
        goes_on += f", or when a month begins on {next_month_after(budget.period_start):%Y-%m-%d} (UTC)"
    # As it would be for the best tier: what that would not get either is gone.
    if view.tier in budget.terms.core_tiers or budget.spent_micros >= budget.limit_micros:
        why = f"The {kind} of its {whose} pays for no other row{spent}"
    else:
        core = " and ".join(budget.terms.core) or "no tier"
        why = f"What is left of the {kind} of its {whose} is kept for {core}{spent}"
    add = Change(sentence="more money for this period", command=f"nightrate budgets top-up {budget.budget_id} AMOUNT")
    return f"{why}, so nothing new of it starts; {left}. It goes on by itself {goes_on}.", (add,)


def _rough(micros: int) -> int:
    """Round an estimate to two digits."""
    digits = max(0, len(str(micros)) - 2)
    return round(micros, -digits)


def _round_up(micros: int) -> int:
    step = _CENT_MICROS if micros >= _CENT_MICROS else 100
    return -(-micros // step) * step
