"""Half-open integer ranges: rows of a shard as sorted, disjoint (start, stop) pairs."""

from __future__ import annotations

from collections.abc import Iterable

Ranges = tuple[tuple[int, int], ...]


def ranges_of(positions: Iterable[int]) -> Ranges:
    """Return the ranges that hold exactly `positions` (any order, no duplicates)."""
    found: list[tuple[int, int]] = []
    for position in sorted(positions):
        if found and found[-1][1] == position:
            found[-1] = (found[-1][0], position + 1)
        else:
            assert not found or position > found[-1][1], f"row {position} twice"
            found.append((position, position + 1))
    return tuple(found)


def count_rows(ranges: Ranges) -> int:
    """Return how many positions the ranges hold."""
    return sum(stop - start for start, stop in ranges)


def halve(slices: list[tuple[int, Ranges]]) -> tuple[list[tuple[int, Ranges]], list[tuple[int, Ranges]]]:
    """Split (shard_id, ranges) pairs into two of equal row counts, order kept, first half larger."""
    rows_first = (sum(count_rows(ranges) for _, ranges in slices) + 1) // 2
    first: list[tuple[int, Ranges]] = []
    second: list[tuple[int, Ranges]] = []
    for shard_id, ranges in slices:
        head, tail = _cut(ranges, rows_first)
        rows_first -= count_rows(head)
        first += [(shard_id, head)] if head else []
        second += [(shard_id, tail)] if tail else []
    return first, second


def _cut(ranges: Ranges, rows: int) -> tuple[Ranges, Ranges]:
    head: list[tuple[int, int]] = []
    tail: list[tuple[int, int]] = []
    for start, stop in ranges:
        middle = min(stop, start + rows)
        if middle > start:
            head.append((start, middle))
        if stop > middle:
            tail.append((middle, stop))
        rows -= middle - start
    return tuple(head), tuple(tail)
