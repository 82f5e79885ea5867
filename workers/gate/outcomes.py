"""What came of one item on both models."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One item, answered by both."""

    custom_id: str
    slice: str | None
    #: None where there is no expected answer.
    reference_is_right: bool | None
    variant_is_right: bool | None
    is_same_answer: bool
    #: -1, 0 or 1, or graded in between; None where the reference gave no answer, so that nothing can be compared.
    x: float | None
    reference_tokens: int
    variant_tokens: int
    #: HTTP status of the row; 200 is an answer.
    reference_status: int
    variant_status: int
    #: Of the two embeddings; None for text.
    cosine: float | None = None

    def as_plain(self) -> dict[str, Any]:
        """Return the outcome as JSON would hold it."""
        return dataclasses.asdict(self)
