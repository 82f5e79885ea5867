from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.costs.splitting import split_amounts, split_signed

_MICROS = st.integers(-(10**15), 10**15)
_COSTS = st.lists(st.integers(0, 10**12), min_size=6, max_size=6).map(Amounts.of)


@given(st.lists(_MICROS, min_size=6, max_size=6).map(Amounts.of), st.lists(_COSTS, min_size=1, max_size=9))
def test_nothing_is_lost_in_any_column(total: Amounts, shares: list[Amounts]) -> None:
    parts = split_amounts(total, shares)

    assert len(parts) == len(shares)
    assert Amounts.total(parts) == total


@given(st.lists(_COSTS, min_size=1, max_size=9))
def test_what_the_shares_sum_to_is_split_into_themselves(shares: list[Amounts]) -> None:
    assert split_amounts(Amounts.total(shares), shares) == shares


@given(_MICROS, st.lists(st.integers(0, 10**6), min_size=1, max_size=9))
def test_what_is_given_back_is_split_as_what_is_owed(micros: int, weights: list[int]) -> None:
    assert split_signed(-micros, weights) == [-part for part in split_signed(micros, weights)]


def test_a_column_that_was_free_is_split_by_what_it_really_cost() -> None:
    shares = [Amounts(effective_micros=1), Amounts(effective_micros=3)]

    parts = split_amounts(Amounts(billed_micros=100), shares)

    assert [part.billed_micros for part in parts] == [25, 75]
