"""Shares: what each batch of a pack pays of a worker's time, by the predicted cost of its own rows.

weight = a * rows + b * input tokens + c * output tokens, in whole numbers, with the costs that the scheduler
predicted with when it made the pack. One rule for the bill and for the fair queue, and it needs nothing but what is
stored with the pack and its parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self, TypeVar

from pipeline.domain.ids import BatchId
from pipeline.domain.money import split_by_weight

_PICOSECONDS: Final = 10**12
#: Eleven days a row or token; a 64-bit column holds nine times as much.
UNIT_COST_MAX: Final = 10**18

_Number = TypeVar("_Number", int, float)


class SplitRule(StrEnum):
    """How a span's cost was split; a changed rule gets a name of its own, as charges are never rewritten."""

    #: As this module says.
    PREDICTED_COST = "predicted_cost_v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCosts:
    """Worker time that a row and its tokens are predicted to take; for shares only the proportions matter."""

    row_picoseconds: int
    input_token_picoseconds: int
    output_token_picoseconds: int

    def __post_init__(self) -> None:
        """Hold what the database holds, too."""
        assert all(0 <= each <= UNIT_COST_MAX for each in self._each())
        assert any(self._each()), "somebody must pay"

    @classmethod
    def of_seconds(cls, *, row: float, input_token: float, output_token: float) -> Self:
        """Return predicted seconds as whole numbers, capped; plain token counts where all of them round to nothing."""
        costs = [min(round(each * _PICOSECONDS), UNIT_COST_MAX) for each in (row, input_token, output_token)]
        row_cost, input_cost, output_cost = costs if any(costs) else (0, 1, 1)
        return cls(row_picoseconds=row_cost, input_token_picoseconds=input_cost, output_token_picoseconds=output_cost)

    def weights(self, works: Iterable[tuple[_Number, _Number, _Number]]) -> list[_Number]:
        """Return the weight of each (rows, input tokens, output tokens); where none has one, its rows are."""
        row, input_token, output_token = self._each()
        found = list(works)
        weights = [rows * row + inputs * input_token + outputs * output_token for rows, inputs, outputs in found]
        return weights if any(weights) else [rows for rows, _, _ in found]

    def split(self, cost_micros: int, works: Mapping[BatchId, tuple[int, int, int]]) -> dict[BatchId, int]:
        """Split what a span cost over the batches of (rows, input tokens, output tokens); the parts sum to it.

        By largest remainder, ties to the first by id: the order in which batches are told makes no difference.
        """
        batches = sorted(works)
        amounts = split_by_weight(cost_micros, self.weights(works[batch] for batch in batches))
        return dict(zip(batches, amounts, strict=True))

    def _each(self) -> tuple[int, int, int]:
        return self.row_picoseconds, self.input_token_picoseconds, self.output_token_picoseconds


#: Every token alike: what packs had before costs were kept with them.
TOKENS_ALIKE: Final = UnitCosts(row_picoseconds=0, input_token_picoseconds=1, output_token_picoseconds=1)
