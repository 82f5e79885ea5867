"""Budgets of tenants and projects: what may be charged in a month, or at all, and what is told and stopped on the way.

A budget is of what is charged, not of what it cost. A charge counts in the month (UTC) in which its pack was begun:
of that month's budget it was reserved.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Final

from pipeline.domain.errors import UsageError
from pipeline.domain.ids import BudgetId, ProjectId, TenantId
from pipeline.domain.plans import TIERS, next_month
from pipeline.domain.tiers import Tier

SHARE_PPM_MAX: Final = 1_000_000
ALERT_SHARES_MAX: Final = 10
#: A billion units: past it a budget is a typing error.
AMOUNT_MICROS_MAX: Final = 1_000_000_000 * 1_000_000
#: The period of budgets that have no end.
ALWAYS: Final = date(1970, 1, 1)
DEFAULT_ALERT_SHARES_PPM: Final = (500_000, 800_000, 1_000_000)
DEFAULT_CORE_TIERS: Final = frozenset({Tier.URGENT, Tier.STANDARD})
DEFAULT_CORE_SHARE_PPM: Final = 900_000


class BudgetPeriod(StrEnum):
    """What a budget is for."""

    #: A calendar month (UTC); each begins with nothing spent.
    MONTH = "month"
    TOTAL = "total"


class BudgetMark(StrEnum):
    """What a budget has come to, told once a period (and once more after its limit was changed)."""

    #: A share of it is spent.
    SHARE = "share"
    #: What is left is kept for core tiers; the others wait.
    NON_CORE_PAUSED = "non_core_paused"
    #: It pays for nothing that waits.
    REACHED = "reached"


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetTerms:
    """How much may be charged, when to tell, and who waits first."""

    amount_micros: int
    #: At which shares of it somebody is told, in millionths, ascending.
    alert_shares_ppm: tuple[int, ...] = DEFAULT_ALERT_SHARES_PPM
    #: From this share on only these tiers go on; at the whole of it none does.
    core_tiers: frozenset[Tier] = DEFAULT_CORE_TIERS
    core_share_ppm: int = DEFAULT_CORE_SHARE_PPM

    def __post_init__(self) -> None:
        """Refuse what no budget can be."""
        if not 0 <= self.amount_micros <= AMOUNT_MICROS_MAX:
            raise UsageError("a budget is an amount from 0 to a billion")
        if len(self.alert_shares_ppm) > ALERT_SHARES_MAX:
            raise UsageError(f"a budget tells at {ALERT_SHARES_MAX} shares at most")
        if any(not 0 < share <= SHARE_PPM_MAX for share in (*self.alert_shares_ppm, self.core_share_ppm)):
            raise UsageError("a share of a budget is above 0 and at most 1", hint="write 0.8 for four fifths")
        if list(self.alert_shares_ppm) != sorted(set(self.alert_shares_ppm)):
            raise UsageError("the shares that a budget tells at ascend, each once")

    @property
    def core(self) -> tuple[Tier, ...]:
        """Return the core tiers, the best first."""
        return tuple(tier for tier in TIERS if tier in self.core_tiers)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetScope:
    """Whose charges a budget is of."""

    tenant_id: TenantId
    #: None: of all its projects.
    project_id: ProjectId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStanding:
    """A budget in its current period; all amounts are of micro-units."""

    budget_id: BudgetId
    scope: BudgetScope
    period: BudgetPeriod
    #: The first day of it, UTC.
    period_start: date
    terms: BudgetTerms
    #: What was added to it for this period alone.
    added_micros: int
    spent_micros: int
    #: What packs that have not ended may still be charged, at most.
    reserved_micros: int = 0
    #: What was told of this period at this limit: a mark and its share.
    told: frozenset[tuple[BudgetMark, int]] = frozenset()

    @property
    def limit_micros(self) -> int:
        """Return what may be charged in the period."""
        return self.terms.amount_micros + self.added_micros

    def cap_micros(self, tier: Tier) -> int:
        """Return up to which charges in the period a tier goes on."""
        if tier in self.terms.core_tiers:
            return self.limit_micros
        return self.limit_micros * self.terms.core_share_ppm // SHARE_PPM_MAX

    @property
    def left_micros(self) -> int:
        """Return what is neither spent nor reserved; less than nothing where the budget was lowered or overrun."""
        return self.limit_micros - self.spent_micros - self.reserved_micros


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetNotice:
    """Something to be told of a budget."""

    standing: BudgetStanding
    mark: BudgetMark
    #: Of the limit, in millionths.
    share_ppm: int


def notices_of(standing: BudgetStanding, *, stops_core: bool, stops_others: bool) -> tuple[BudgetNotice, ...]:
    """Return what is to be told of a budget and was not yet.

    `stops_core` and `stops_others` say whether it pays for no other row of some batch that waits, of a core tier and
    of another one. It stops short of the last micro-unit, for less than the price of a row may be left.
    """
    limit, spent = standing.limit_micros, standing.spent_micros
    is_reached = stops_core or spent >= limit
    due = [
        (BudgetMark.SHARE, share)
        for share in standing.terms.alert_shares_ppm
        if spent * SHARE_PPM_MAX >= limit * share or (is_reached and share == SHARE_PPM_MAX)
    ]
    if is_reached:
        due.append((BudgetMark.REACHED, SHARE_PPM_MAX))
    elif stops_others:
        due.append((BudgetMark.NON_CORE_PAUSED, standing.terms.core_share_ppm))
    return tuple(
        BudgetNotice(standing=standing, mark=mark, share_ppm=share)
        for mark, share in due
        if (mark, share) not in standing.told
    )


def next_month_after(start: date) -> date:
    """Return the first day of the month after one that begins on `start`."""
    return next_month(datetime(start.year, start.month, 1, tzinfo=UTC)).date()
