from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.ranges import Ranges, count_rows, halve, ranges_of

positions = st.sets(st.integers(0, 200), max_size=60)


def rows_of(ranges: Ranges) -> list[int]:
    return [row for start, stop in ranges for row in range(start, stop)]


@given(positions, st.randoms())
def test_ranges_hold_exactly_their_positions_whatever_the_order(rows: set[int], chance: object) -> None:
    shuffled = list(rows)
    getattr(chance, "shuffle")(shuffled)  # noqa: B009 -- hypothesis types it as object

    ranges = ranges_of(shuffled)

    assert rows_of(ranges) == sorted(rows)
    assert count_rows(ranges) == len(rows)
    # Neither empty nor touching: as few ranges as can be.
    assert all(start < stop for start, stop in ranges)
    assert all(before[1] < after[0] for before, after in pairwise(ranges))


def test_a_row_named_twice_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="row 3 twice"):
        ranges_of([3, 1, 3])


@given(st.lists(positions.filter(bool), min_size=1, max_size=5))
def test_halves_share_the_rows_in_order_and_evenly(shards: list[set[int]]) -> None:
    slices = [(number, ranges_of(rows)) for number, rows in enumerate(shards)]

    first, second = halve(slices)

    def flat(half: list[tuple[int, Ranges]]) -> list[tuple[int, int]]:
        return [(shard, row) for shard, ranges in half for row in rows_of(ranges)]

    assert flat(first) + flat(second) == flat(slices)
    assert len(flat(first)) - len(flat(second)) in {0, 1}
    assert all(ranges for _, ranges in first + second)
