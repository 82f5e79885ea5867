"""Funds: what budgets of tenants and projects leave for each backlog of a cycle.

A fund is one budget in its current period. Whatever a pack reserves for a batch comes out of all the funds that the batch
falls under, so that spent + reserved <= budget holds for each of them as it does for the batch's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np

from pipeline.domain.costs.budgets import BudgetNotice, BudgetStanding, notices_of
from pipeline.domain.tiers import Tier
from scheduler.columns import Flags, Floats, Integers
from scheduler.lineup import Lineup

_TIERS: Final = tuple(Tier)
_NOBODY: Final = np.zeros(0, dtype=np.int64)


@dataclass(slots=True, eq=False)
class Fund:
    """What is left of a budget. Mutable, and lives for one cycle."""

    left_micros: int


#: A fund, and what of it is kept for better tiers than the batch's.
Claim = tuple[Fund, int]


class Funds:
    """The funds of a cycle, and which backlogs fall under which."""

    def __init__(self, budgets: Sequence[BudgetStanding], lineup: Lineup) -> None:
        """Find out which budgets any of these backlogs fall under."""
        tenants: dict[str, int] = {tenant: number for number, tenant in enumerate(lineup.tenants)} if budgets else {}
        projects: dict[str, int] = (
            {project: number for number, project in enumerate(lineup.projects)} if budgets else {}
        )
        self._lineup = lineup
        self._of_tenants: dict[str, list[tuple[Fund, BudgetStanding]]] = {}
        self._of_projects: dict[str, list[tuple[Fund, BudgetStanding]]] = {}
        for each in budgets:
            fund = Fund(each.left_micros), each
            if each.scope.project_id is not None:
                self._of_projects.setdefault(each.scope.project_id, []).append(fund)
            else:
                self._of_tenants.setdefault(each.scope.tenant_id, []).append(fund)
        self._tier = np.array([_TIERS.index(lane[0]) for lane in lineup.lanes], dtype=np.int64)
        of_tenants = [(tenants[name], each) for name, each in self._of_tenants.items() if name in tenants]
        of_projects = [(projects[name], each) for name, each in self._of_projects.items() if name in projects]
        self._tenant_tables = _tables(of_tenants, len(tenants))
        self._project_tables = _tables(of_projects, len(projects))
        #: Which backlogs fall under any.
        self.is_covered: Flags = np.zeros(len(lineup), dtype=np.bool_)
        if of_tenants:
            self.is_covered |= np.isin(lineup.tenant, [number for number, _ in of_tenants])
        if of_projects:
            self.is_covered |= np.isin(lineup.project, [number for number, _ in of_projects])

    def claims_of(self, place: int) -> tuple[Claim, ...]:
        """Return the funds that the backlog at a place takes from."""
        if not self.is_covered[place]:
            return ()
        each = self._lineup[place]
        found = chain(self._of_projects.get(each.project_id, ()), self._of_tenants.get(each.tenant_id, ()))
        return tuple((fund, budget.limit_micros - budget.cap_micros(each.tier)) for fund, budget in found)

    def of_projects(self, places: Integers) -> tuple[Floats, Floats]:
        """Return what of their projects' budgets is unspent for these backlogs, and what of that is not reserved."""
        return self._at(self._project_tables, self._lineup.project, places)

    def of_tenants(self, places: Integers) -> tuple[Floats, Floats]:
        """Return the same of their tenants' budgets; infinite where there is none."""
        return self._at(self._tenant_tables, self._lineup.tenant, places)

    def notices(self, stopped: Integers, next_row_micros: Floats) -> tuple[BudgetNotice, ...]:
        """Return what is to be told, where backlogs at `stopped` cannot be paid so much for their next row."""
        lineup = self._lineup
        notices: list[BudgetNotice] = []
        for funds, names, numbers in (
            (self._of_tenants, lineup.tenants, lineup.tenant),
            (self._of_projects, lineup.projects, lineup.project),
        ):
            if not funds:
                continue
            number_of = {names[number]: number for number in np.unique(numbers[stopped]).tolist()}
            for name, each in funds.items():
                mine = np.flatnonzero(numbers[stopped] == number_of[name]) if name in number_of else _NOBODY
                tiers = self._tier[lineup.lane[stopped[mine]]]
                for _fund, budget in each:
                    notices += _notices(budget, tiers, next_row_micros[mine])
        return tuple(notices)

    def _at(self, tables: tuple[Floats, Floats], numbers: Integers, places: Integers) -> tuple[Floats, Floats]:
        if not len(tables[0]):
            endless = np.full(len(places), np.inf)
            return endless, endless
        at = numbers[places], self._tier[self._lineup.lane[places]]
        return tables[0][at], tables[1][at]


def _tables(funds: Sequence[tuple[int, Sequence[tuple[Fund, BudgetStanding]]]], count: int) -> tuple[Floats, Floats]:
    """Return by scope and tier what is unspent, and what of that is free; none where there are no funds."""
    if not funds:
        return np.zeros((0, 0)), np.zeros((0, 0))
    unspent = np.full((count, len(_TIERS)), np.inf)
    free = np.full((count, len(_TIERS)), np.inf)
    for number, each in funds:
        for _fund, budget in each:
            caps = np.array([budget.cap_micros(tier) for tier in _TIERS], dtype=np.float64) - budget.spent_micros
            unspent[number] = np.minimum(unspent[number], caps)
            free[number] = np.minimum(free[number], caps - budget.reserved_micros)
    return unspent, free


def _notices(budget: BudgetStanding, tiers: Integers, next_row_micros: Floats) -> tuple[BudgetNotice, ...]:
    caps = np.array([budget.cap_micros(tier) for tier in _TIERS], dtype=np.float64) - budget.spent_micros
    left = caps[tiers] if len(tiers) else np.zeros(0)
    is_stopped = (left <= 0) | (left < next_row_micros)
    is_core = np.array([tier in budget.terms.core_tiers for tier in _TIERS], dtype=np.bool_)[tiers]
    # What would not be paid for by the whole of it is stopped by it, and not for the sake of better tiers.
    whole = budget.limit_micros - budget.spent_micros
    is_whole = is_core | (whole <= 0) | (whole < next_row_micros)
    return notices_of(
        budget, stops_core=bool((is_stopped & is_whole).any()), stops_others=bool((is_stopped & ~is_whole).any())
    )
