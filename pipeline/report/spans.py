"""Pieces of a mapped file, many at once, and how many may be held."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Result bytes held while rows are brought from the parts' order into the input's.
_HELD_BYTES_MAX: Final = 32 * 1024 * 1024
#: Rows read between two releases of mapped memory: a row may map 64 KiB around it.
_ROWS_AT_ONCE: Final = 1024


def read_spans(mapped: mmap.mmap | None, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> list[bytes]:
    """Return the bytes at each [start, stop), none for missing rows, read in the order of the file.

    That order is what makes it fast: neighbours in the file share the page fault that maps them.
    """
    if mapped is None:
        return [b""] * len(starts)
    order = np.argsort(starts)
    found: list[bytes] = []
    for low in range(0, len(order), _ROWS_AT_ONCE):
        some = order[low : low + _ROWS_AT_ONCE]
        found += [mapped[start:stop] for start, stop in zip(starts[some].tolist(), stops[some].tolist(), strict=True)]
        # Mapped pages count as ours until given back; the system keeps its copy.
        mapped.madvise(mmap.MADV_DONTNEED)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return [found[index] for index in place.tolist()]


def cuts(lengths: NDArray[np.uint32]) -> Iterator[tuple[int, int]]:
    """Cut rows with results of these lengths into half-open ranges to hold in memory, each at least one row."""
    ends = np.cumsum(lengths, dtype=np.int64)
    start, bytes_before = 0, 0
    while start < len(lengths):
        stop = max(start + 1, int(np.searchsorted(ends, bytes_before + _HELD_BYTES_MAX, side="right")))
        yield start, stop
        start, bytes_before = stop, int(ends[stop - 1])
