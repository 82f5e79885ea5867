"""Amounts: what one use of something cost, seen six ways, in integer micro-units.

The first four are FOCUS's (ListCost, ContractedCost, EffectiveCost, BilledCost); the fifth makes a saving a subtraction;
the last is what a tenant pays, which is another question than what it cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, fields
from typing import Final, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """Micro-units of one currency; in the journal + is a debit and - a credit."""

    #: At the price that the provider publishes for that market at that moment.
    list_micros: int = 0
    #: After negotiated discounts.
    contracted_micros: int = 0
    #: With commitments spread over what they cover: what it really cost.
    effective_micros: int = 0
    #: What the invoice carries for this use.
    billed_micros: int = 0
    #: What the same would have cost on demand, at list price.
    on_demand_micros: int = 0
    #: What the tenant pays for it.
    charged_micros: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts.of(mine + theirs for mine, theirs in zip(self.each(), other.each(), strict=True))

    def __sub__(self, other: Amounts) -> Amounts:
        return self + -other

    def __neg__(self) -> Amounts:
        return Amounts.of(-micros for micros in self.each())

    def __bool__(self) -> bool:
        """Say whether any is not zero."""
        return any(self.each())

    @classmethod
    def of(cls, micros: Iterable[int]) -> Self:
        """Return the amounts in the order of `NAMES`."""
        return cls(**dict(zip(NAMES, micros, strict=True)))

    @classmethod
    def total(cls, amounts: Iterable[Amounts]) -> Amounts:
        """Return the sum; nothing sums to zero."""
        return cls.of(sum(each) for each in zip((0,) * len(NAMES), *(one.each() for one in amounts), strict=True))

    @classmethod
    def cost(cls, micros: int) -> Self:
        """Return a cost that is the same however it is looked at."""
        return cls(
            list_micros=micros,
            contracted_micros=micros,
            effective_micros=micros,
            billed_micros=micros,
            on_demand_micros=micros,
        )

    @classmethod
    def costs(cls, micros_of: Callable[[str], int]) -> Self:
        """Return what `micros_of` gives for the name of each cost; nothing is charged."""
        return cls(**{name: micros_of(name) for name in COST_NAMES})

    def each(self) -> tuple[int, ...]:
        """Return the amounts in the order of `NAMES`."""
        return astuple(self)


#: The amounts by name, as the journal's columns are called.
NAMES: Final = tuple(each.name for each in fields(Amounts))
#: Of these, what it cost.
COST_NAMES: Final = NAMES[:-1]
