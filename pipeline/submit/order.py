"""The order of rows in the shards: rows that share a prompt prefix stand together.

An engine keeps the attention state of a prefix it has seen, so neighbours with the same beginning pay for it once;
among rows without a shared prefix, neighbours of equal length waste no padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

#: Of neighbours that no level parts.
_UNPARTED: Final = np.iinfo(np.uint16).max
#: The share of a shard that is given up so that it ends where a shared prefix does.
_GIVEN_UP: Final = 32

#: Rows whose groups are parted together, so that a key has room for a group's number beside a row's.
_CHUNK_ROWS: Final = 2**15

_ONE: Final = np.uint64(1)
_TWO: Final = np.uint64(2)
_HALF_BITS: Final = np.uint64(32)


#: Returns the check sums of rows at one level, and which of them have it.
_ValuesOf = Callable[[NDArray[np.int32]], tuple[NDArray[np.uint32], NDArray[np.bool_]]]


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
    walk.part(0, lambda rows: (firsts[rows], np.ones(len(rows), dtype=np.bool_)))
    level = 0
    while len(walk.places):
        walk.part(level + 1, partial(further.at, level))
        level += 1
    return Locality(permutation=walk.order, parted_at=walk.parted_at)


class _Walk:
    """Rows being ordered. Groups, which share all levels so far, stand together from the first level on."""

    def __init__(self, lengths: NDArray[np.uint32]) -> None:
        """Begin with one group of all rows, by length."""
        # Whatever parts them, rows of a group stay in this order.
        by_length = lengths.astype(np.uint64)
        by_length <<= _HALF_BITS
        by_length |= np.arange(len(lengths), dtype=np.uint32)
        by_length.sort()
        self.order = by_length.astype(np.uint32).astype(np.int32)
        self.parted_at = np.full(len(lengths), _UNPARTED, dtype=np.uint16)
        self.parted_at[:1] = 0
        #: Places in `order` of the rows whose group has others.
        self.places = np.arange(len(lengths), dtype=np.int32)

    def part(self, level: int, values_of: _ValuesOf) -> None:
        """Part each group by the values of its rows at a further level.

        Rows without it end here, and rows that share it with no other share nothing more: both are done.
        """
        is_first = self.parted_at[self.places] != _UNPARTED
        sharing = [
            self._part(level, self.places[start:stop], is_first[start:stop], values_of)
            for start, stop in _chunks(np.flatnonzero(is_first), len(is_first))
        ]
        self.places = np.concatenate([self.places[:0], *sharing])

    def _part(
        self, level: int, places: NDArray[np.int32], is_first: NDArray[np.bool_], values_of: _ValuesOf
    ) -> NDArray[np.int32]:
        """Part the groups at `places`, each of which begins where `is_first`; return who still shares."""
        values, has_level = values_of(self.order[places])
        keys = np.cumsum(is_first, dtype=np.uint64)
        keys -= _ONE
        keys <<= _ONE
        keys |= has_level
        keys <<= _HALF_BITS
        keys |= values
        del values
        if np.array_equal(_is_new(keys), is_first):
            return places[has_level]
        sorting, is_sharing, is_new = _siblings(keys)
        self.order[places] = self.order[places][sorting]
        parted = places[is_new]
        self.parted_at[parted] = np.minimum(self.parted_at[parted], level)
        return places[is_sharing]


def _chunks(starts: NDArray[np.intp], count: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of whole groups, which begin at `starts`: as many as `_siblings` takes, or a larger one alone."""
    bounds = np.append(starts, count)
    at = 0
    while at < len(starts):
        fits = int(np.searchsorted(bounds, bounds[at] + _CHUNK_ROWS, side="right")) - 1
        after = max(fits, at + 1)
        yield int(bounds[at]), int(bounds[after])
        at = after


def _siblings(keys: NDArray[np.uint64]) -> tuple[NDArray[np.uint32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the permutation that parts groups.

    Also returns which rows, permuted, share their level with another, and which are told from the row before.

    Args:
        keys: The row's group, a bit that says whether it has the level, and in the lower half its value there. Used
            up. Sorting numbers in place, with a row's number in the lowest bits, takes half of what sorting indices
            takes, in time and memory.
    """
    bits = np.uint64(len(keys).bit_length())
    keys <<= bits
    keys |= np.arange(len(keys), dtype=np.uint32)
    keys.sort()
    rows = _lowest(keys, bits)
    keys >>= bits
    is_new = _is_new(keys)
    is_lonely = is_new.copy()
    is_lonely[:-1] &= is_new[1:]
    keys >>= _HALF_BITS
    rank = _lowest(keys, _ONE).astype(np.uint8)  # 0 ends here, 1 shares nothing more, 2 does
    rank += (rank == 1) & ~is_lonely
    keys >>= _ONE
    keys <<= _TWO
    keys |= rank
    keys <<= bits
    # The first row of those that share a value, which is their shortest; each by itself where it is lonely.
    first = np.arange(len(keys), dtype=np.uint32)
    first *= is_new
    keys |= rows[np.maximum.accumulate(first, out=first)]
    keys <<= bits
    keys |= rows
    keys.sort()
    rows = _lowest(keys, bits)
    keys >>= bits
    is_new = _is_new(keys)
    keys >>= bits
    return rows, _lowest(keys, _TWO) >> 1 != 0, is_new


def _lowest(keys: NDArray[np.uint64], bits: np.uint64) -> NDArray[np.uint32]:
    """Return the lowest bits of `keys`, at most 32."""
    lowest = keys.astype(np.uint32)
    lowest &= np.uint32((_ONE << bits) - _ONE)
    return lowest


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
