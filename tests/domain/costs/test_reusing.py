from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.costs.amounts import NAMES, Amounts
from pipeline.domain.costs.reusing import AttemptSpan, AttemptWork, cache_credit
from pipeline.domain.ids import BatchId, PackId, WorkerId
from pipeline.domain.shares import TOKENS_ALIKE, UnitCosts

START = datetime(2026, 11, 20, 10, tzinfo=UTC)
SPAN = AttemptSpan(
    pack_id=PackId("pack_1"),
    lease_token=3,
    worker_id=WorkerId("wrk_1"),
    start=START,
    stop=START + timedelta(minutes=5),
    currency="USD",
)


def work(batch: str, cost: int, *, rows: int = 1, inputs: int = 0, outputs: int = 0) -> AttemptWork:
    return AttemptWork(
        batch_id=BatchId(batch), rows=rows, input_tokens=inputs, output_tokens=outputs, cost=Amounts.cost(cost)
    )


def test_reused_tokens_are_worth_what_an_input_token_of_their_batch_cost() -> None:
    costs = UnitCosts(row_picoseconds=0, input_token_picoseconds=1, output_token_picoseconds=4)
    works = [work("batch_a", 1_000, inputs=300, outputs=175), work("batch_b", 500, inputs=100)]

    found = cache_credit(SPAN, works, costs, 200)

    assert found is not None
    assert (found.key, found.method, found.worker_id) == ("cache:pack_1:3", "cache_credit_v1", "wrk_1")
    assert found.detail == {"tokens_cached": {"batch_a": 150, "batch_b": 50}}
    assert [(entry.account, entry.amounts.effective_micros) for entry in found.entries] == [
        ("batch:batch_a", 150),
        ("batch:batch_a", -150),
        ("batch:batch_b", 250),
        ("batch:batch_b", -250),
    ]


def test_what_is_worth_nothing_is_not_posted() -> None:
    assert cache_credit(SPAN, [work("batch_a", 0, inputs=10)], TOKENS_ALIKE, 10) is None
    assert cache_credit(SPAN, [work("batch_a", 9, outputs=10)], TOKENS_ALIKE, 10) is None
    assert cache_credit(SPAN, [work("batch_a", 9, inputs=10)], TOKENS_ALIKE, 0) is None
    free = UnitCosts(row_picoseconds=5, input_token_picoseconds=0, output_token_picoseconds=0)
    assert cache_credit(SPAN, [work("batch_a", 9, inputs=10)], free, 10) is None


_FIGURES = st.integers(0, 10**9)
_WORKS = st.lists(
    st.tuples(st.integers(0, 10**4), _FIGURES, _FIGURES, st.tuples(*[_FIGURES] * 5)), min_size=1, max_size=5
)
_COSTS = st.tuples(*[st.integers(0, 10**12)] * 3).filter(any)


@given(_WORKS, _COSTS, _FIGURES)
def test_no_account_changes_and_no_credit_is_above_what_was_paid(
    figures: list[tuple[int, int, int, tuple[int, ...]]], costs: tuple[int, int, int], tokens_cached: int
) -> None:
    works = [
        AttemptWork(
            batch_id=BatchId(f"batch_{number}"),
            rows=rows,
            input_tokens=inputs,
            output_tokens=outputs,
            cost=Amounts.of((*cost, 0)),
        )
        for number, (rows, inputs, outputs, cost) in enumerate(figures)
    ]
    row, input_token, output_token = costs
    unit_costs = UnitCosts(
        row_picoseconds=row, input_token_picoseconds=input_token, output_token_picoseconds=output_token
    )

    found = cache_credit(SPAN, works, unit_costs, tokens_cached)

    sums: dict[str, Amounts] = defaultdict(Amounts)
    for entry in found.entries if found else ():
        sums[entry.account] += entry.amounts
    assert not any(sums.values())
    paid = {f"batch:{each.batch_id}": each.cost for each in works}
    for reused, credit in zip(found.entries[::2], found.entries[1::2], strict=True) if found else ():
        assert credit.amounts == -reused.amounts
        assert all(0 <= getattr(reused.amounts, name) <= getattr(paid[reused.account], name) for name in NAMES)
