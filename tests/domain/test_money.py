from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.money import metered_cost_micros, split_by_weight


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**9), min_size=1, max_size=50))
def test_a_split_loses_nothing_and_no_part_is_a_micro_off_its_share(total: int, weights: list[int]) -> None:
    parts = split_by_weight(total, weights)

    assert sum(parts) == total
    if sum(weights):
        for part, weight in zip(parts, weights, strict=True):
            assert abs(part * sum(weights) - total * weight) < sum(weights)
            assert weight or part == 0


@given(st.integers(0, 10**10), st.lists(st.integers(0, 10**11), min_size=2, max_size=20))
def test_the_price_of_a_life_does_not_depend_on_where_it_is_cut(rate: int, cuts: list[int]) -> None:
    ordered = sorted(cuts)
    pieces = [metered_cost_micros(rate, start, stop) for start, stop in pairwise(ordered)]

    assert sum(pieces) == metered_cost_micros(rate, ordered[0], ordered[-1])


def test_weights_of_nothing_share_evenly_and_what_is_over_goes_to_the_earlier() -> None:
    assert split_by_weight(5, [0, 0, 0]) == [2, 2, 1]
    assert split_by_weight(1, [1, 1]) == [1, 0]
    assert split_by_weight(10, [0, 3, 0]) == [0, 10, 0]
