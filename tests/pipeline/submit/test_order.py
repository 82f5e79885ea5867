from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise, takewhile
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.domain.endpoints import Endpoint
from pipeline.submit.order import Locality, cuts, locality_order, template_of
from pipeline.submit.prefixes import levels_of
from pipeline.submit.spool import RaggedRows

UNPARTED = 2**16 - 1

#: Levels of one row, the first before the further ones.
Trail = tuple[int, ...]

trails = st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple)
rows_of_trails = st.lists(st.tuples(trails, st.integers(0, 4)), max_size=40)


def ragged(rows: Iterable[Sequence[int]]) -> RaggedRows:
    kept = list(rows)
    counts = np.array([len(row) for row in kept], dtype=np.uint16)
    return RaggedRows(
        counts=counts,
        starts=np.cumsum(counts, dtype=np.uint32) - counts,
        values=np.array([value for row in kept for value in row], dtype=np.uint32),
    )


def ordered(rows: Sequence[Trail], lengths: Sequence[int]) -> Locality:
    firsts = np.array([row[0] for row in rows], dtype=np.uint32)
    return locality_order(firsts, ragged(row[1:] for row in rows), np.array(lengths, dtype=np.uint32))


def walked(rows: Sequence[Trail], lengths: Sequence[int], places: Sequence[int], level: int = 0) -> list[int]:
    """Return `places` as a walk of the tree of their levels."""
    by_length = sorted(places, key=lambda place: (lengths[place], place))
    if len(places) == 1:
        return by_length
    ended = [place for place in by_length if len(rows[place]) == level]
    subtrees: dict[int, list[int]] = {}
    for place in by_length:
        if len(rows[place]) > level:
            subtrees.setdefault(rows[place][level], []).append(place)
    lonely = [subtree[0] for subtree in subtrees.values() if len(subtree) == 1]
    shared = [walked(rows, lengths, subtree, level + 1) for subtree in subtrees.values() if len(subtree) > 1]
    return [*ended, *lonely, *(place for subtree in shared for place in subtree)]


def shared_levels(one: Trail, other: Trail) -> int:
    return (
        UNPARTED
        if one == other
        else sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    )


@given(rows_of_trails)
def test_the_order_is_a_walk_of_the_tree_of_prefixes_with_the_shortest_first(rows: list[tuple[Trail, int]]) -> None:
    levels, lengths = [trail for trail, _ in rows], [length for _, length in rows]

    found = ordered(levels, lengths)

    assert found.permutation.tolist() == walked(levels, lengths, range(len(rows)))


@given(rows_of_trails)
def test_each_row_is_parted_from_the_one_before_at_the_first_level_they_do_not_share(
    rows: list[tuple[Trail, int]],
) -> None:
    levels = [trail for trail, _ in rows]

    found = ordered(levels, [length for _, length in rows])

    at = found.permutation.tolist()
    assert found.parted_at[1:].tolist() == [shared_levels(levels[a], levels[b]) for a, b in pairwise(at)]
    assert found.parted_at[:1].tolist() == [0][: len(rows)]


@given(rows_of_trails)
def test_the_values_of_check_sums_change_nothing(rows: list[tuple[Trail, int]]) -> None:
    lengths = [length for _, length in rows]
    other = {0: 2**32 - 1, 1: 7, 2: 0}

    found = ordered([trail for trail, _ in rows], lengths)
    renamed = ordered([tuple(other[value] for value in trail) for trail, _ in rows], lengths)

    assert found.permutation.tolist() == renamed.permutation.tolist()
    assert found.parted_at.tolist() == renamed.parted_at.tolist()


def test_more_groups_than_fit_one_key_are_parted_all_the_same() -> None:
    random = Random(1)
    rows = [(random.randrange(60_000) << 16, random.randrange(2) << 31) for _ in range(150_000)]
    lengths = [random.randrange(1000) for _ in rows]

    found = ordered(rows, lengths)

    assert found.permutation.tolist() == walked(rows, lengths, range(len(rows)))


words = st.sampled_from(["x" * 70, "y" * 70, "x" * 300, "z" * 30])
conversations = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), words), min_size=1, max_size=5)


@given(st.lists(conversations, min_size=1, max_size=25))
def test_rows_that_share_more_are_never_apart_by_one_that_shares_less(given: list[list[tuple[str, str]]]) -> None:
    levels = levels_of(Endpoint.CHAT_COMPLETIONS)
    trails: list[Trail] = []
    for conversation in given:
        first, further = levels({"messages": [{"role": role, "content": text} for role, text in conversation]})
        trails.append((first, *further))

    at = ordered(trails, [sum(len(text) for _, text in conversation) for conversation in given]).permutation.tolist()

    assert sorted(at) == list(range(len(given)))
    near = [shared_levels(trails[a], trails[b]) for a, b in pairwise(at)]
    for low, high in combinations(range(len(at)), 2):
        assert shared_levels(trails[at[low]], trails[at[high]]) == min(near[low:high])


def test_lonely_rows_are_sorted_by_length_and_then_by_place() -> None:
    found = ordered([(place, place) for place in range(5)], [3, 1, 2, 1, 3])

    assert found.permutation.tolist() == [1, 3, 2, 0, 4]


def test_a_longer_conversation_stands_behind_what_it_continues() -> None:
    rows = [(1, 2, 3), (5,), (1, 2), (6,), (1, 2, 3, 4), (1,)]

    found = ordered(rows, [300, 10, 200, 20, 400, 100])

    assert [rows[at] for at in found.permutation] == [(5,), (6,), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]


def _cuts(lengths: Sequence[int], parted_at: Sequence[int], rows: int, size: int) -> list[tuple[int, int]]:
    parted: NDArray[np.uint16] = np.array(parted_at, dtype=np.uint16)
    return cuts(np.array(lengths, dtype=np.uint32), parted, rows_max=rows, bytes_max=size)


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 3)), max_size=300),
    st.integers(1, 90),
    st.integers(50, 3000),
)
def test_cuts_follow_on_one_another_and_are_about_as_long_as_allowed(
    given: list[tuple[int, int]], rows: int, size: int
) -> None:
    lengths, parted_at = [length for length, _ in given], [parted for _, parted in given]

    found = _cuts(lengths, parted_at, rows, size)

    assert [row for start, stop in found for row in range(start, stop)] == list(range(len(lengths)))
    for start, stop in found:
        assert 1 <= stop - start <= rows
        assert sum(lengths[start:stop]) <= size
        if stop < len(lengths):
            fits = max(n for n in range(start, len(lengths) + 1) if n - start <= rows and sum(lengths[start:n]) <= size)
            candidates = range(fits - (fits - start) // 32, fits + 1)
            assert stop == max(candidates, key=lambda n: (-parted_at[n], n)) if fits < len(lengths) else stop == fits


def test_a_cut_falls_where_neighbours_share_least_and_else_as_late_as_it_may() -> None:
    parted_at = [0] + [2] * 199
    parted_at[95], parted_at[98] = 0, 1

    assert _cuts([1] * 200, parted_at, 100, 10**6) == [(0, 98), (98, 198), (198, 200)]


def test_the_template_is_the_beginning_that_all_rows_have() -> None:
    assert template_of(np.array([7, 7], dtype=np.uint32)) == 7
    assert template_of(np.array([7, 8], dtype=np.uint32)) == 0
    assert template_of(np.array([7], dtype=np.uint32)) == 0
