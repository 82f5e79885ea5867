"""Which texts make a batch: the exact least-cost partition of sorted lengths into padded rectangles.

Some best partition takes consecutive runs of the sorted lengths, whenever a batch's cost and bounds never fall
as its longest text grows: order the batches by their longest text, give the largest texts to the first, and no
batch's longest text has grown. So one dynamic program over the sorted lengths is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Runs of rows the program tells apart. Past it neighbours are glued, which bounds its time and costs
#: next to nothing: neighbours of so many sorted rows are equally long.
ATOMS_MAX: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCost:
    """Seconds of a batch of `n` texts padded to length `l`: `fixed + per_token n l + per_square n l²`."""

    fixed: float
    per_token: float
    per_square: float = 0.0

    def of_rows(self, lengths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return what one more row costs in batches of these padded lengths."""
        tokens = lengths.astype(np.float64)
        return tokens * self.per_token + tokens * tokens * self.per_square


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchBounds:
    """What fits one batch. A text longer than `tokens_max` is a batch of its own."""

    #: Tokens of the padded rectangle.
    tokens_max: int
    rows_max: int


def packed(lengths: Sequence[int], cost: BatchCost, bounds: BatchBounds) -> list[int]:
    """Return the sizes of the batches, in order, that texts of these ascending `lengths` cost least in.

    Exact for up to `ATOMS_MAX` texts; beyond, batches begin at multiples of a few rows only.
    """
    if not lengths:
        return []
    assert all(first <= second for first, second in pairwise(lengths))
    glued = -(-len(lengths) // ATOMS_MAX)
    # ends[i]: rows up to and with atom i. The longest row of an atom is its last.
    ends = np.append(np.arange(glued, len(lengths), glued), len(lengths))
    longest = np.asarray(lengths, dtype=np.int64)[ends - 1]
    starts = _best_starts(np.append(0, ends), longest, cost, bounds)
    sizes: list[int] = []
    stop = len(ends)
    while stop:
        start = starts[stop]
        sizes.append(int(ends[stop - 1]) - (int(ends[start - 1]) if start else 0))
        stop = start
    return sizes[::-1]


def _best_starts(
    rows: NDArray[np.int64], longest: NDArray[np.int64], cost: BatchCost, bounds: BatchBounds
) -> list[int]:
    """Return for every count of atoms where the last batch of their best partition begins.

    `rows[i]` counts the rows of the first i atoms; `longest[i]` is the longest of atom i.
    """
    row_cost = cost.of_rows(longest)
    fits = np.maximum(1, np.minimum(bounds.rows_max, bounds.tokens_max // longest))
    # The first atom a batch may begin with; at the latest the one it ends with.
    first = np.minimum(np.searchsorted(rows, rows[1:] - fits), np.arange(len(longest)))
    best = np.zeros(len(rows))
    starts = [0] * len(rows)
    for stop in range(1, len(rows)):
        begin = first[stop - 1]
        totals = best[begin:stop] + row_cost[stop - 1] * (rows[stop] - rows[begin:stop])
        chosen = int(np.argmin(totals))
        starts[stop] = int(begin) + chosen
        best[stop] = totals[chosen] + cost.fixed
    return starts
