"""Beginnings that rows have in common: their keys and values are copied, not computed again."""

from __future__ import annotations

from typing import Final

#: A shared beginning shorter than this is cheaper to compute than to look for and copy.
PREFIX_TOKENS_MIN: Final = 16
#: Rows compared with a prompt for the longest shared beginning.
PREFIX_SOURCES_MAX: Final = 8


def shared_tokens(sequence: list[int], other: list[int]) -> int:
    """Return how many leading tokens are equal, leaving at least one of `sequence`, which is not empty, to compute."""
    low, high = 0, min(len(sequence) - 1, len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if sequence[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
