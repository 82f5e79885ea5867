"""What somebody asks of budgets."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.domain.costs.budgets import BudgetPeriod, BudgetScope, BudgetTerms
from pipeline.domain.ids import BudgetId


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetDraft:
    """A budget that somebody wants; a scope has one for each period."""

    #: Its id, where it is made.
    budget_id: BudgetId
    scope: BudgetScope
    period: BudgetPeriod
    terms: BudgetTerms
