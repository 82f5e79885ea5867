"""Budgets as documents: what is told of one, on the command line and over the API."""

from __future__ import annotations

from pipeline.domain.costs.budgets import SHARE_PPM_MAX, BudgetPeriod, BudgetStanding
from pipeline.domain.money import amount


def budget_document(standing: BudgetStanding, currency: str) -> dict[str, object]:
    """Return a budget in its current period, amounts as decimals."""
    terms = standing.terms
    is_endless = standing.period is BudgetPeriod.TOTAL
    return {
        "id": standing.budget_id,
        "object": "organization.budget",
        "project_id": standing.scope.project_id,
        "period": str(standing.period),
        "period_start": None if is_endless else standing.period_start.isoformat(),
        "amount": amount(terms.amount_micros),
        "added": amount(standing.added_micros),
        "limit": amount(standing.limit_micros),
        "spent": amount(standing.spent_micros),
        "reserved": amount(standing.reserved_micros),
        "left": amount(standing.left_micros),
        "currency": currency,
        "alert_shares": [share_of(share) for share in terms.alert_shares_ppm],
        "core_tiers": [str(tier) for tier in terms.core],
        "core_share": share_of(terms.core_share_ppm),
        "told": [{"mark": str(mark), "share": share_of(share)} for mark, share in sorted(standing.told)],
    }


def share_of(ppm: int) -> float:
    """Return a share that is kept in millionths."""
    return ppm / SHARE_PPM_MAX


def ppm_of_share(share: float) -> int:
    """Return a share in millionths, one at least."""
    return max(1, round(share * SHARE_PPM_MAX))
