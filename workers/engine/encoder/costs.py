"""What a batch costs on this device, learnt from the batches that ran."""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.engine.encoder.packing import BatchCost

#: Batches remembered: enough for three unknowns, few enough to follow a machine that gets busy.
_MEMORY: Final = 128
#: Batches seen before they are believed.
_TRUSTED_MIN: Final = 12
#: Until then: what a batch costs besides its tokens, as a share of the most it may hold. Devices that are fast
#: take large batches because what each costs besides counts for more.
_FIXED_SHARE: Final = 1 / 32
#: A model of one shape tells nothing about the others.
_SHAPES_MIN: Final = 4


class CostModel:
    """Fits `BatchCost` to measured batches by least squares with no negative coefficient."""

    def __init__(self, *, tokens_max: int) -> None:
        """Know nothing yet but how many tokens a batch may hold."""
        self._assumed = BatchCost(fixed=_FIXED_SHARE * tokens_max, per_token=1.0)
        self._seen: deque[tuple[int, int, float]] = deque(maxlen=_MEMORY)

    def note(self, rows: int, length: int, seconds: float) -> None:
        """Take in that a batch of `rows` texts padded to `length` took `seconds`."""
        self._seen.append((rows, length, seconds))

    @property
    def is_learned(self) -> bool:
        """Say whether enough was seen to tell what batches cost."""
        return len(self._seen) >= _TRUSTED_MIN and len({seen[:2] for seen in self._seen}) >= _SHAPES_MIN

    def cost(self) -> BatchCost:
        """Return the fit, or an assumption while too little was seen."""
        if not self.is_learned:
            return self._assumed
        rows, lengths, seconds = (np.array(column, dtype=np.float64) for column in zip(*self._seen, strict=True))
        tokens = rows * lengths
        columns = np.stack([np.ones_like(tokens), tokens, tokens * lengths], axis=1)
        fixed, per_token, per_square = _not_negative(columns, seconds)
        if per_token <= 0:
            return self._assumed
        return BatchCost(fixed=fixed, per_token=per_token, per_square=per_square)


def _not_negative(columns: NDArray[np.float64], wanted: NDArray[np.float64]) -> list[float]:
    """Return least squares with what would be negative left out, the columns weighed by the time they explain."""
    # Relative errors: a batch of a millisecond says as much as one of a second.
    weights = 1.0 / np.maximum(wanted, 1e-9)
    used = list(range(columns.shape[1]))
    solution = [0.0] * columns.shape[1]
    while used:
        found = np.linalg.lstsq(columns[:, used] * weights[:, None], np.ones_like(wanted), rcond=None)[0]
        if (found >= 0).all():
            for place, value in zip(used, found, strict=True):
                solution[place] = float(value)
            break
        used.pop(int(np.argmin(found * np.abs(columns[:, used]).mean(axis=0))))
    return solution
