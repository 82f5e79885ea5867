"""Which requests of a file say the same: 128-bit digests and, by them, each row's leader."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

DIGEST_BYTES: Final = 16


def digests(contents: Iterable[bytes]) -> list[bytes]:
    """Return 128 bits of BLAKE2b of each: two of ten million contents meet by chance once in 10^25 files.

    Bodies are told apart by the digest of their JSON with its keys sorted. Engines derive their seed from
    the body, so equal bodies get equal answers, sampled or not, and one of them is enough to run. The one order
    that an engine sees is that of a schema's keys, and bodies that may have a schema keep it.
    """
    return [blake2b(content, digest_size=DIGEST_BYTES).digest() for content in contents]


def leaders(all_digests: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Return, for each row of the (n, 2) `all_digests`, the first row with the same digest: itself, mostly."""
    assert all_digests.ndim == 2  # noqa: PLR2004  # rows of two halves
    leader = np.arange(len(all_digests), dtype=np.int32)
    rows = _rows_that_may_repeat(all_digests[:, 0])
    if not len(rows):
        return leader
    # The sort is stable and `rows` ascends, so the first of equal digests is the earliest row.
    rows = rows[np.lexsort((all_digests[rows, 1], all_digests[rows, 0]))]
    is_first = np.zeros(len(rows), dtype=np.bool_)
    is_first[0] = True
    for half in (0, 1):
        halves = all_digests[rows, half]
        is_first[1:] |= halves[1:] != halves[:-1]
    leader[rows] = rows[is_first][np.cumsum(is_first, dtype=np.int32) - 1]
    return leader


def _rows_that_may_repeat(halves: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Return the rows, ascending, whose half digest occurs more than once: few, in most files."""
    in_order = np.sort(halves)
    repeated = np.unique(in_order[1:][in_order[1:] == in_order[:-1]])
    if not len(repeated):
        return np.empty(0, dtype=np.int32)
    places = np.minimum(np.searchsorted(repeated, halves), len(repeated) - 1)
    return np.flatnonzero(repeated[places] == halves).astype(np.int32)
