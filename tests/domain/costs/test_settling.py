from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.costs.adjusting import expected_on
from pipeline.domain.costs.amounts import COST_NAMES, Amounts
from pipeline.domain.costs.bills import WorkerLife, total_of
from pipeline.domain.costs.settling import AccruedSpan, billed_by_account, settlements
from pipeline.domain.costs.transactions import Account
from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import WorkerEnd
from tests.storage.bills import FlatBill

_RATES = st.builds(Amounts, **{name: st.integers(0, 10**10) for name in COST_NAMES})
_ACCOUNTS = [Account("batch:one"), Account("batch:two"), Account("overhead:idle")]
_SPANS = st.lists(
    st.tuples(st.integers(1, 10**10), st.lists(st.integers(0, 10**9), min_size=3, max_size=3)), max_size=9
)


def life_of(length_us: int, rates: Amounts) -> WorkerLife:
    return WorkerLife(
        worker_id=WorkerId("wrk_1"),
        pool="local",
        market="spot",
        provider=None,
        instance_type=None,
        region=None,
        zone=None,
        currency="USD",
        rates=rates,
        started_at=datetime(2026, 11, 20, 22, 10, 1, 7, tzinfo=UTC),
        metered_until_us=length_us,
        end_cause=WorkerEnd.STOPPED,
    )


@given(_RATES, _SPANS)
def test_a_life_is_billed_in_full_and_settled_once(rates: Amounts, written: list[tuple[int, list[int]]]) -> None:
    spans, at_us = [], 0
    for length_us, micros in written:
        accrued = {account: Amounts.cost(each) for account, each in zip(_ACCOUNTS, micros, strict=True)}
        spans.append(AccruedSpan(start_us=at_us, stop_us=at_us + length_us, accrued=accrued))
        at_us += length_us
    life = life_of(at_us, rates)
    bill = replace(FlatBill(rates=rates), minimum=Amounts.cost(5), rounding=Amounts.cost(2))

    billed = billed_by_account(bill, life, spans)
    posted = settlements(bill, life, billed=billed, posted={}, number=1)

    assert Amounts.total(billed.values()) == total_of(bill, life)
    owed = Amounts.total(
        entry.amounts for each in posted for entry in each.entries if entry.account == "supplier:local"
    )
    assert owed == -total_of(bill, life)
    assert [each.key for each in posted] == [f"settlement:wrk_1:{number + 1}" for number in range(len(posted))]
    assert settlements(bill, life, billed=billed, posted=billed, number=9) == []


@given(_RATES, st.integers(0, 5 * 86_400 * 10**6))
def test_the_days_of_a_life_sum_to_its_bill(rates: Amounts, length_us: int) -> None:
    life = life_of(length_us, rates)
    bill = replace(FlatBill(rates=rates), minimum=Amounts.cost(5))

    days = [life.started_at.date() + timedelta(days=day) for day in range(8)]

    assert Amounts.total(expected_on(bill, life, day) for day in days) == total_of(bill, life)
