"""The order of rows in the shards: rows that share a prompt prefix stand together.

An engine keeps the attention state of a prefix it has seen, so neighbours with the same beginning pay for it once;
among rows without a shared prefix, neighbours of equal length waste no padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

#: Of neighbours that no level parts.
_UNPARTED: Final = np.iinfo(np.uint16).max
#: The share of a shard that is given up so that it ends where a shared prefix does.
_GIVEN_UP: Final = 32

_ONE: Final = np.uint64(1)
_TWO: Final = np.uint64(2)
_HALF_BITS: Final = np.uint64(32)


class Further(Protocol):
    """The check sums of rows behind the first, as `Levels` has them."""

    def at(self, level: int, rows: NDArray[np.int32]) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """Return the check sum number `level` of each of `rows`, and which of them have it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Locality:
    """Rows in the order they are to stand in."""

    permutation: NDArray[np.int32]
    #: The first level that tells each row from the one before it: the smaller, the less they share.
    parted_at: NDArray[np.uint16]


def template_of(firsts: NDArray[np.uint32]) -> int:
    """Return a number for the short prefix that all of these rows begin with, or 0 where they do not."""
    return int(firsts[0]) if len(firsts) > 1 and firsts.min() == firsts.max() else 0


def locality_order(firsts: NDArray[np.uint32], further: Further, lengths: NDArray[np.uint32]) -> Locality:
    """Return the order of rows by shared prefix, then length, then input order: a walk of the tree of prefixes.

    At each node of the tree the rows that end there come first, then those that share nothing more with another, both
    by length, and then the subtrees, by their shortest rows. So nothing depends on the values of check sums, only on
    which are equal.

    Args:
        firsts: Each row's check sum of its short prefix.
        further: Those of its longer ones.
        lengths: The rows' lengths.
    """
    walk = _Walk(lengths)
    walk.part(0, firsts[walk.order], np.ones(len(firsts), dtype=np.bool_))
    level = 0
    while len(walk.places):
        values, has_level = further.at(level, walk.order[walk.places])
        level += 1
        walk.part(level, values, has_level)
    return Locality(permutation=walk.order, parted_at=walk.parted_at)


class _Walk:
    """Rows being ordered. Groups, which share all levels so far, stand together from the first level on."""

    def __init__(self, lengths: NDArray[np.uint32]) -> None:
        """Begin with one group of all rows, by length."""
        # Sorting is stable from here on, so that rows stay in this order wherever nothing parts them.
        self.order = np.argsort(lengths, kind="stable").astype(np.int32)
        self.parted_at = np.full(len(lengths), _UNPARTED, dtype=np.uint16)
        self.parted_at[:1] = 0
        #: Places in `order` of the rows whose group has others.
        self.places = np.arange(len(lengths), dtype=np.int32)

    def part(self, level: int, values: NDArray[np.uint32], has_level: NDArray[np.bool_]) -> None:
        """Part each group by the `values` of a further level, one for each place.

        Rows without it end here, and rows that share it with no other share nothing more: both are done.
        """
        is_first = self.parted_at[self.places] != _UNPARTED
        keys = np.cumsum(is_first, dtype=np.uint64)
        keys <<= _ONE
        keys |= has_level
        keys <<= _HALF_BITS
        keys |= values
        is_mixed = _is_mixed(keys, is_first)
        is_sharing = has_level & ~is_mixed
        mixed = np.flatnonzero(is_mixed)
        if len(mixed):
            sorting, is_sharing_sorted, is_new = _siblings(keys[mixed], has_level[mixed])
            is_sharing[mixed] = is_sharing_sorted
            places = self.places[mixed]
            self.order[places] = self.order[places[sorting]]
            places = places[is_new]
            self.parted_at[places] = np.minimum(self.parted_at[places], level)
        self.places = self.places[is_sharing]


def _is_mixed(keys: NDArray[np.uint64], is_first: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say for each of `keys` whether its group, which begins where `is_first`, has another."""
    differs = np.zeros(len(keys), dtype=np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=differs[1:])
    differs &= ~is_first
    starts = np.flatnonzero(is_first)
    return np.repeat(np.logical_or.reduceat(differs, starts), np.diff(starts, append=len(keys)))


def _siblings(
    keys: NDArray[np.uint64], has_level: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the permutation that parts groups by the lower half of `keys`, the upper one being the group.

    Also returns which rows, permuted, share their key with another, and which are told from the row before.
    """
    sorting = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(_is_new(keys[sorting]))
    sizes = np.diff(starts, append=len(keys))
    is_sharing = np.empty(len(keys), dtype=np.bool_)
    is_sharing[sorting] = np.repeat(sizes > 1, sizes)
    #: A key's first row, which is its shortest.
    eldest = np.empty(len(keys), dtype=np.uint64)
    eldest[sorting] = np.repeat(sorting[starts], sizes)
    del sorting
    is_sharing &= has_level
    rank = has_level.astype(np.uint64)
    rank += is_sharing
    rank |= keys >> (_HALF_BITS + _ONE) << _TWO
    rank <<= _HALF_BITS
    rank |= eldest
    sorting = np.argsort(rank, kind="stable")
    return sorting, is_sharing[sorting], _is_new(rank[sorting])


def _is_new(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Say for each of `keys` whether it differs from the one before."""
    is_new = np.ones(len(keys), dtype=np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=is_new[1:])
    return is_new


def cuts(
    lengths: NDArray[np.uint32], parted_at: NDArray[np.uint16], *, rows_max: int, bytes_max: int
) -> list[tuple[int, int]]:
    """Cut rows of these byte lengths into half-open ranges, each about as long as both bounds allow.

    A range gives up one row in `_GIVEN_UP` at most, to end where its neighbours share least.
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    found: list[tuple[int, int]] = []
    start, bytes_before = 0, 0
    while start < len(lengths):
        fits = int(np.searchsorted(ends, bytes_before + bytes_max, side="right"))
        stop = min(start + rows_max, fits)
        assert stop > start, f"row {start} alone is larger than a shard may be"
        if stop < len(lengths):
            least = stop - (stop - start) // _GIVEN_UP
            stop -= int(np.argmin(parted_at[least : stop + 1][::-1]))
        found.append((start, stop))
        start, bytes_before = stop, int(ends[stop - 1])
    return found
