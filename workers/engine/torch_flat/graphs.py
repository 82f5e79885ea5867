"""Captured decode steps: one CUDA graph per number of rows, replayed over inputs that stay where they are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any, Protocol

import torch

from workers.engine.torch_chat.memory import is_out_of_memory

_LOG = logging.getLogger(__name__)

Work = Callable[[], None]


def rows_held(rows: int) -> int:
    """Return the rows to compute for `rows`: few numbers, and never more than a quarter beyond from nine rows on."""
    if rows <= 8:  # noqa: PLR2004 -- powers of two up to here, in steps of eight and more from here
        # Never one: compilers and kernels take a side of one for a case of its own.
        return max(2, 1 << (rows - 1).bit_length())
    step = 8 if rows <= 64 else 16 if rows <= 256 else 32  # noqa: PLR2004 -- as above
    return -(-rows // step) * step


class Capture(Protocol):
    """Turns work on the device into something that repeats it."""

    def __call__(self, work: Work) -> Work:
        """Run `work`, which reads and writes only memory that stays, and return what runs it again."""


class CudaCapture:
    """`torch.cuda.CUDAGraph`s that share one pool of memory: they never run at once."""

    def __init__(self) -> None:
        """Start without a pool; the first capture makes it."""
        self._pool: Any = None

    def __call__(self, work: Work) -> Work:
        """Run `work` twice beside the current stream, so that nothing is set up while it is recorded; record it."""
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch has no types here
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            work()
            work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            work()
        self._pool = graph.pool()
        graph.replay()
        replay: Work = graph.replay
        return replay


class Graphs:
    """The captured steps, made when first needed; where capturing fails, the work itself."""

    def __init__(self, capture: Capture | None) -> None:
        """Capture with `capture`; None runs the work as it is."""
        self._capture = capture
        self._captured: dict[Hashable, Work] = {}

    def run(self, key: Hashable, work: Work) -> None:
        """Run `work`, which is the same for the same `key`."""
        replay = self._captured.get(key)
        if replay is not None:
            replay()
        elif self._capture is None:
            work()
        else:
            self._first(key, work, self._capture)

    def forget(self) -> None:
        """Drop what was captured: the memory it points to goes."""
        self._captured.clear()

    def _first(self, key: Hashable, work: Work, capture: Capture) -> None:
        try:
            self._captured[key] = capture(work)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            # Slower, and as right: a driver or a kernel that cannot be recorded is no reason to fail rows.
            _LOG.warning("cannot_capture_step", extra={"key": str(key), "reason": str(error)[:500]})
            self._capture = None
            work()
