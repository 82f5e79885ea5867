"""Tokens: how many rows really take, beside what intake estimated, for one model and prompt template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.domain.sketches import LengthSketch
from pipeline.ports.cycle import WorkSize

#: What was known counts so much less with each pack more.
_FORGETTING: Final = 0.98
#: Rows of evidence that what is assumed counts for.
_PRIOR_ROWS: Final = 16


@dataclass(slots=True)
class TokenRates:
    """Sums over rows that ran: estimated and actual tokens, and how long the answers were."""

    rows: float = 0.0
    input_estimated: float = 0.0
    input_actual: float = 0.0
    output_estimated: float = 0.0
    output_actual: float = 0.0
    lengths: LengthSketch = field(default_factory=LengthSketch)

    def learn(self, estimated: WorkSize, actual: WorkSize, lengths: LengthSketch) -> None:
        """Take in rows that ran."""
        self.rows = _FORGETTING * self.rows + actual.rows
        self.input_estimated = _FORGETTING * self.input_estimated + estimated.input_tokens
        self.input_actual = _FORGETTING * self.input_actual + actual.input_tokens
        self.output_estimated = _FORGETTING * self.output_estimated + estimated.output_tokens
        self.output_actual = _FORGETTING * self.output_actual + actual.output_tokens
        self.lengths.add(lengths, kept=_FORGETTING)

    def input_ratio(self, assumed: float = 1.0) -> float:
        """Return actual over estimated input tokens, drawn to what is `assumed` while few rows have run."""
        return _ratio(self.input_actual, self.input_estimated, self.rows, assumed)

    def output_ratio(self, assumed: float = 1.0) -> float:
        """Return actual over estimated output tokens, likewise."""
        return _ratio(self.output_actual, self.output_estimated, self.rows, assumed)

    def as_plain(self) -> dict[str, Any]:
        """Return the state as JSON has it."""
        return {
            "rows": round(self.rows, 3),
            "input": [round(self.input_estimated, 3), round(self.input_actual, 3)],
            "output": [round(self.output_estimated, 3), round(self.output_actual, 3)],
            "lengths": self.lengths.as_plain(),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> TokenRates:
        """Return the rates that `as_plain` told."""
        return cls(
            rows=float(plain["rows"]),
            input_estimated=float(plain["input"][0]),
            input_actual=float(plain["input"][1]),
            output_estimated=float(plain["output"][0]),
            output_actual=float(plain["output"][1]),
            lengths=LengthSketch.from_plain(plain["lengths"]),
        )


def _ratio(actual: float, estimated: float, rows: float, assumed: float) -> float:
    if estimated <= 0:
        return assumed
    prior = _PRIOR_ROWS * estimated / rows
    return (actual + assumed * prior) / (estimated + prior)
