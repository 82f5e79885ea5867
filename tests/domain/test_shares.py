from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.ids import BatchId
from pipeline.domain.shares import TOKENS_ALIKE, UNIT_COST_MAX, UnitCosts

unit_costs = (
    st.tuples(*[st.integers(0, 10) | st.integers(0, UNIT_COST_MAX)] * 3)
    .filter(any)
    .map(
        lambda each: UnitCosts(
            row_picoseconds=each[0], input_token_picoseconds=each[1], output_token_picoseconds=each[2]
        )
    )
)
counts = st.tuples(st.integers(1, 10_000), st.integers(0, 10**6), st.integers(0, 10**6))
works = st.dictionaries(st.sampled_from([BatchId(f"batch_{n}") for n in range(8)]), counts, min_size=1)
totals = st.integers(0, 10**3) | st.integers(0, 10**12)


@given(totals, unit_costs, works)
def test_shares_sum_to_the_cost_and_none_is_a_micro_off(
    total: int, costs: UnitCosts, of: dict[BatchId, tuple[int, int, int]]
) -> None:
    amounts = costs.split(total, of)

    weights = dict(zip(of, costs.weights(of.values()), strict=True))
    whole = sum(weights.values())
    assert amounts.keys() == of.keys()
    assert sum(amounts.values()) == total
    assert whole > 0
    assert all(abs(amounts[batch] * whole - total * weight) < whole for batch, weight in weights.items())


@given(totals, unit_costs, works, st.integers(0, 2), st.integers(1, 10**6), st.data())
def test_whose_rows_are_more_or_longer_never_pays_less_for_it(
    total: int,
    costs: UnitCosts,
    of: dict[BatchId, tuple[int, int, int]],
    feature: int,
    more: int,
    data: st.DataObject,
) -> None:
    batch = data.draw(st.sampled_from(sorted(of)))
    grown = list(of[batch])
    grown[feature] += more

    before = costs.split(total, of)
    after = costs.split(total, of | {batch: (grown[0], grown[1], grown[2])})

    assert after[batch] >= before[batch]


@given(totals, unit_costs, works, counts)
def test_equal_rows_pay_equally_but_for_a_micro_that_cannot_be_halved(
    total: int, costs: UnitCosts, of: dict[BatchId, tuple[int, int, int]], same: tuple[int, int, int]
) -> None:
    amounts = costs.split(total, of | {BatchId("batch_x"): same, BatchId("batch_y"): same})

    assert amounts[BatchId("batch_x")] - amounts[BatchId("batch_y")] in {0, 1}


@given(totals, unit_costs, works, st.randoms(use_true_random=False))
def test_shares_do_not_depend_on_the_order_in_which_batches_are_told(
    total: int, costs: UnitCosts, of: dict[BatchId, tuple[int, int, int]], chance: object
) -> None:
    told = list(of.items())
    chance.shuffle(told)  # type: ignore[attr-defined]

    assert costs.split(total, dict(told)) == costs.split(total, of)


@given(totals, st.integers(1, 10**6), works)
def test_only_proportions_of_costs_matter(total: int, factor: int, of: dict[BatchId, tuple[int, int, int]]) -> None:
    costs = UnitCosts(row_picoseconds=3, input_token_picoseconds=1, output_token_picoseconds=10)
    scaled = UnitCosts(row_picoseconds=3 * factor, input_token_picoseconds=factor, output_token_picoseconds=10 * factor)

    assert scaled.split(total, of) == costs.split(total, of)


@given(totals.filter(lambda total: total > 100), st.integers(1, 1000), st.integers(1, 1000))
def test_long_prompts_do_not_pay_for_the_long_answers_beside_them(total: int, inputs: int, outputs: int) -> None:
    costs = UnitCosts(row_picoseconds=0, input_token_picoseconds=1, output_token_picoseconds=10)

    amounts = costs.split(total, {BatchId("prompts"): (1, inputs, 0), BatchId("answers"): (1, 0, outputs)})

    assert abs(amounts[BatchId("prompts")] * (inputs + 10 * outputs) - total * inputs) < inputs + 10 * outputs


def test_the_example_of_the_documentation() -> None:
    costs = UnitCosts.of_seconds(row=0.002, input_token=0.0002, output_token=0.002)

    amounts = costs.split(1_000, {BatchId("summaries"): (10, 9_000, 100), BatchId("stories"): (10, 200, 1_000)})

    assert amounts == {"summaries": 495, "stories": 505}


def test_where_no_row_costs_anything_rows_count_and_without_rows_all_are_alike() -> None:
    assert TOKENS_ALIKE.split(100, {BatchId("a"): (1, 0, 0), BatchId("b"): (3, 0, 0)}) == {"a": 25, "b": 75}
    assert TOKENS_ALIKE.split(5, {BatchId("b"): (0, 0, 0), BatchId("a"): (0, 0, 0)}) == {"a": 3, "b": 2}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((0.0, 1e-3, 1e-2), (0, 10**9, 10**10)),
        ((1e-15, 0.0, 1e-13), (0, 1, 1)),
        ((1e9, 0.0, 0.0), (UNIT_COST_MAX, 0, 0)),
    ],
)
def test_predicted_seconds_become_whole_numbers_that_fit(
    seconds: tuple[float, float, float], expected: tuple[int, int, int]
) -> None:
    costs = UnitCosts.of_seconds(row=seconds[0], input_token=seconds[1], output_token=seconds[2])

    assert (costs.row_picoseconds, costs.input_token_picoseconds, costs.output_token_picoseconds) == expected
