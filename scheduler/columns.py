"""Columns: one property of many things, as an array; where the scheduler looks at very many at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work each of many things is; see `pipeline.ports.cycle.WorkSize`."""

    rows: Floats
    input_tokens: Floats
    output_tokens: Floats

    def at(self, places: NDArray[Any]) -> Sizes:
        """Return those at `places`."""
        return Sizes(self.rows[places], self.input_tokens[places], self.output_tokens[places])


def codes_of(values: Iterable[Enum | None], members: Sequence[Enum]) -> Integers:
    """Return the index in `members` of each value, -1 for None; all of `values` are among them."""
    # Members of an enumeration are what they are, so their addresses tell them apart; hashing them takes much longer.
    codes = {id(member): code for code, member in enumerate(members)} | {id(None): -1}
    return np.fromiter(map(codes.__getitem__, map(id, values)), np.int64)
