"""Settling: from what was metered while a worker lived to what its bill says, not a micro-unit more or less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.domain.costs.billing import Bill
from pipeline.domain.costs.columns import Columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """A span of a worker's life, and what it has been charged for so far, earlier settlements included."""

    start_us: int
    stop_us: int
    charged: Columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What is to be charged besides, or taken back where it is below zero."""

    #: For each span, in order: prices that were learned later, and what the provider gave away.
    spans: tuple[Columns, ...]
    #: For the rest of the last second or hour begun; nobody used it.
    rounding: Columns
    #: For the rest of the least that is charged; nobody used it.
    minimum: Columns

    @property
    def is_nothing(self) -> bool:
        """Whether all is settled."""
        nothing = Columns()
        return all(part == nothing for part in (*self.spans, self.rounding, self.minimum))


def settle(
    bill: Bill, spans: Sequence[Metered], *, rounding: Columns | None = None, minimum: Columns | None = None
) -> Settlement:
    """Return what brings the charges of a worker's life to its bill.

    `spans` cover the life without a gap; `rounding` and `minimum` are what has been charged for these by earlier
    settlements. With what it returns charged, settling again by the same bill returns nothing.
    """
    assert all(before.stop_us == after.start_us for before, after in pairwise(spans)), "a gap"
    assert (spans[0].start_us, spans[-1].stop_us) == (0, bill.life.length_us) if spans else not bill.life.length_us
    parts = bill.parts
    return Settlement(
        spans=tuple(bill.between(span.start_us, span.stop_us) - span.charged for span in spans),
        rounding=parts.rounding - (rounding or Columns()),
        minimum=parts.minimum - (minimum or Columns()),
    )
