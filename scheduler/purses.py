"""Purses: what the budgets of batches leave, beside what is spent and what packs on their way may still cost.

A pack that is dispatched reserves an upper bound of what its rows may cost each batch, until it ends and its true
cost is in the ledger: then spent + reserved <= budget always, and a budget is overrun at most by what packs in flight
cost beyond their bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.domain.ids import BatchId
from scheduler.columns import Flags, Integers
from scheduler.lineup import Lineup
from scheduler.outlook import Outlook


@dataclass(slots=True, eq=False)
class Purse:
    """What a batch's budget leaves, in micro-units; its backlogs share one. Mutable, and lives for one cycle."""

    #: None: there is no budget.
    left_micros: int | None = None

    def pays(self, micros: float) -> bool:
        """Say whether so much is left."""
        return self.left_micros is None or self.left_micros >= micros

    def rows(self, rows: int, row_micros: float) -> int:
        """Return how many of so many rows it pays for."""
        if self.left_micros is None or row_micros <= 0:
            return rows
        return min(rows, max(0, math.floor(self.left_micros / row_micros)))

    def reserve(self, micros: float) -> int:
        """Take out so much, rounded up, and return it."""
        reserved = math.ceil(micros)
        if self.left_micros is not None:
            # No more than was left, whatever the rounding of the rows it pays for.
            reserved = min(reserved, self.left_micros)
            self.left_micros -= reserved
        return reserved


class Purses:
    """The purses of a cycle's batches."""

    def __init__(self, lineup: Lineup, outlook: Outlook) -> None:
        """Look into each."""
        self._lineup = lineup
        self._purses: dict[BatchId, Purse] = {}
        #: Whose budget pays for no other row, whatever packs in flight leave of their reservations.
        self.is_reached: Flags = np.zeros(len(lineup), dtype=np.bool_)
        #: Whose budget would pay for another row, were it not for what packs in flight have reserved.
        self.is_waiting: Flags = np.zeros(len(lineup), dtype=np.bool_)
        places = np.flatnonzero(lineup.has_budget)
        if len(places):
            self._look(places, outlook)

    def of(self, place: int) -> Purse:
        """Return the purse of the batch at a place."""
        backlog = self._lineup[place]
        purse = self._purses.get(backlog.batch_id)
        if purse is None:
            budget = backlog.budget_micros
            left = None if budget is None else max(0, budget - backlog.spent_micros - backlog.reserved_micros)
            purse = self._purses[backlog.batch_id] = Purse(left)
        return purse

    def _look(self, places: Integers, outlook: Outlook) -> None:
        lineup = self._lineup
        unspent = lineup.budget_micros[places] - lineup.spent_micros[places]
        next_row = outlook.next_row_micros(lineup, places)
        self.is_reached[places] = (unspent <= 0) | (unspent < next_row)
        self.is_waiting[places] = ~self.is_reached[places] & (unspent - lineup.reserved_micros[places] < next_row)
