"""Purses: what budgets leave, beside what is spent and what packs on their way may still be charged.

A pack that is dispatched reserves an upper bound of what each batch may be charged for its rows, until it ends and the
true charge is in the ledger, and with the rows what the pack takes beyond them: then spent + reserved <= budget always, and a budget is overrun at most by what packs in
flight are charged beyond their bounds. It is reserved of the batch's own budget and of all that its project and its
tenant have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.domain.costs.budgets import BudgetNotice, BudgetStanding
from pipeline.domain.ids import BatchId
from scheduler.columns import Flags, Floats, Integers
from scheduler.funds import Claim, Funds
from scheduler.lineup import Lineup
from scheduler.outlook import Outlook


@dataclass(slots=True, eq=False)
class Purse:
    """What budgets leave a batch, in micro-units; its backlogs share one. Mutable, and lives for one cycle."""

    #: Of its own budget; None: it has none.
    left_micros: int | None = None
    #: What it shares with others.
    claims: tuple[Claim, ...] = ()

    @property
    def free_micros(self) -> int | None:
        """Return what it may reserve; None: as much as it likes."""
        free = self.left_micros
        for fund, kept in self.claims:
            left = max(0, fund.left_micros - kept)
            free = left if free is None else min(free, left)
        return free

    def pays(self, micros: float) -> bool:
        """Say whether so much is left."""
        free = self.free_micros
        return free is None or free >= micros

    def rows(self, rows: int, row_micros: float, *, beside: float = 0.0) -> int:
        """Return how many of so many rows it pays for, `beside` what else is to be paid with them."""
        free = self.free_micros
        if free is None:
            return rows
        free_for_rows = free - beside
        if row_micros <= 0:
            return rows if free_for_rows >= 0 else 0
        return min(rows, max(0, math.floor(free_for_rows / row_micros)))

    def free(self, micros: int) -> None:
        """Put back what was reserved and is not needed."""
        self._take(-micros)

    def reserve(self, micros: float) -> int:
        """Take out so much, rounded up, and return it."""
        reserved = math.ceil(micros)
        free = self.free_micros
        if free is not None:
            # No more than was left, whatever the rounding of the rows it pays for.
            reserved = min(reserved, free)
        self._take(reserved)
        return reserved

    def _take(self, micros: int) -> None:
        if self.left_micros is not None:
            self.left_micros -= micros
        for fund, _kept in self.claims:
            fund.left_micros -= micros


class Purses:
    """The purses of a cycle's batches."""

    def __init__(self, lineup: Lineup, outlook: Outlook, budgets: Sequence[BudgetStanding] = ()) -> None:
        """Look into each."""
        self._lineup = lineup
        self._purses: dict[BatchId, Purse] = {}
        self._funds = Funds(budgets, lineup)
        #: Whose own budget, or whose project's or tenant's, pays for no other row, whatever packs in flight leave of
        #: their reservations.
        self.is_reached: Flags = np.zeros(len(lineup), dtype=np.bool_)
        self.is_project_reached: Flags = np.zeros(len(lineup), dtype=np.bool_)
        self.is_tenant_reached: Flags = np.zeros(len(lineup), dtype=np.bool_)
        #: Which budgets would pay for another row of, were it not for what packs in flight have reserved.
        self.is_waiting: Flags = np.zeros(len(lineup), dtype=np.bool_)
        self._next_row_micros: Floats = np.zeros(len(lineup))
        places = np.flatnonzero(lineup.has_budget | self._funds.is_covered)
        if len(places):
            self._look(places, outlook)

    def of(self, place: int) -> Purse:
        """Return the purse of the batch at a place."""
        backlog = self._lineup[place]
        purse = self._purses.get(backlog.batch_id)
        if purse is None:
            budget = backlog.budget_micros
            left = None if budget is None else max(0, budget - backlog.spent_micros - backlog.reserved_micros)
            purse = self._purses[backlog.batch_id] = Purse(left, self._funds.claims_of(place))
        return purse

    def notices(self) -> tuple[BudgetNotice, ...]:
        """Return what is to be told of budgets of tenants and projects."""
        is_stopped = self.is_project_reached | self.is_tenant_reached
        stopped = np.flatnonzero(is_stopped & ~self._lineup.is_paused)
        return self._funds.notices(stopped, self._next_row_micros[stopped])

    def _look(self, places: Integers, outlook: Outlook) -> None:
        lineup, funds = self._lineup, self._funds
        next_row = outlook.next_row_micros(lineup, places)
        self._next_row_micros[places] = next_row
        own = np.where(lineup.has_budget[places], lineup.budget_micros[places] - lineup.spent_micros[places], np.inf)
        of_project, free_of_project = funds.of_projects(places)
        of_tenant, free_of_tenant = funds.of_tenants(places)
        reached = [(left <= 0) | (left < next_row) for left in (own, of_project, of_tenant)]
        self.is_reached[places] = reached[0]
        # What of a batch is in packs already is no matter of others' budgets.
        self.is_project_reached[places] = reached[1] & ~lineup.is_packed[places]
        self.is_tenant_reached[places] = reached[2] & ~lineup.is_packed[places]
        free = np.minimum(own - lineup.reserved_micros[places], np.minimum(free_of_project, free_of_tenant))
        self.is_waiting[places] = ~np.logical_or.reduce(reached) & (free < next_row)
