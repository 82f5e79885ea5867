"""What to do when memory runs out: how much to try next, and when one row is too large for the device."""

from __future__ import annotations

from typing import Final

import torch

from pipeline.ports.engine import EngineRequest, EngineResult
from workers.engine.answers import SERVER_ERROR, error_body

#: Share of the size that failed which is tried next.
RETREAT: Final = 0.7
#: Passes without a failure after which a little more is tried, and how much more.
CLEAN_PASSES: Final = 50
ADVANCE: Final = 1.05
#: Share of the smallest size known to fail that is never passed again.
KNOWN_BAD: Final = 0.95
#: Failures in a row of one row alone, with memory freed in between, after which it is given up: what
#: else is on the device may come and go.
FAILURES_ALONE_MAX: Final = 3

_MESSAGES: Final = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed; CPUs and libraries have only words for it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


class MemoryLimit:
    """How many bytes rows may plan for together: falls by a factor when memory runs out, recovers step by step.

    Additive increase is written as a factor, as the design has it; see algorithms in Chiu and Jain, 1989.
    """

    def __init__(self, bytes_max: int) -> None:
        """Start at `bytes_max`, which is never passed."""
        self.bytes_max = bytes_max
        self._ceiling = bytes_max
        self._clean_passes = 0
        self._alone: int | None = None
        self._failures_alone = 0

    def note_clean(self) -> None:
        """Count a pass that succeeded."""
        self._failures_alone = 0
        if self.bytes_max >= self._ceiling:
            return
        self._clean_passes += 1
        if self._clean_passes == CLEAN_PASSES:
            self._clean_passes = 0
            self.bytes_max = min(int(self.bytes_max * ADVANCE) + 1, self._ceiling)

    def note_failure(self, bytes_tried: int, alone: int | None) -> int | None:
        """Lower the limit after `bytes_tried` were too much; return the key of a row to give up, if any.

        Args:
            bytes_tried: What the rows held together when memory ran out.
            alone: The key of the row that failed though no less could have been tried; None if less can be.
        """
        self._clean_passes = 0
        if alone is None:
            self._failures_alone = 0
            self._ceiling = min(self._ceiling, int(bytes_tried * KNOWN_BAD))
            self.bytes_max = min(self.bytes_max, int(bytes_tried * RETREAT))
            return None
        self._failures_alone = self._failures_alone + 1 if alone == self._alone else 1
        self._alone = alone
        return alone if self._failures_alone >= FAILURES_ALONE_MAX else None


def too_large(request: EngineRequest) -> EngineResult:
    """Return the error of a row that the device cannot hold even alone."""
    message = "This request needs more memory than the worker's device has, even alone."
    body = error_body(message, "server_error", None, "out_of_memory")
    return EngineResult(request.key, SERVER_ERROR, body, 0, 0)
