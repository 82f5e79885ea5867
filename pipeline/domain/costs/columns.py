"""The five costs that everything has, side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

#: In the order of the ledger's columns.
COLUMNS: Final = ("list_micros", "contracted_micros", "effective_micros", "billed_micros", "on_demand_micros")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Five amounts in micro-units: costs, or rates per hour where it is said so."""

    #: At the provider's published price for that market.
    list_micros: int = 0
    #: After the negotiated discount.
    contracted_micros: int = 0
    #: With what was committed to spread over its use: what it really costs.
    effective_micros: int = 0
    #: What the invoice will carry for this use; what is committed to is invoiced apart.
    billed_micros: int = 0
    #: What the same seconds would have cost at the on-demand list price.
    on_demand_micros: int = 0

    @classmethod
    def flat(cls, micros: int) -> Columns:
        """Return the same amount five times."""
        return cls.of(lambda _: micros)

    @classmethod
    def of(cls, amount_of: Callable[[str], int]) -> Columns:
        """Return what `amount_of` gives for each column's name."""
        return cls(**{name: amount_of(name) for name in COLUMNS})

    def __add__(self, other: Columns) -> Columns:
        return Columns.of(lambda name: int(getattr(self, name)) + int(getattr(other, name)))

    def __sub__(self, other: Columns) -> Columns:
        return Columns.of(lambda name: int(getattr(self, name)) - int(getattr(other, name)))

    @property
    def saving_micros(self) -> int:
        """Return what was saved against on-demand; below zero where it cost more."""
        return self.on_demand_micros - self.effective_micros
