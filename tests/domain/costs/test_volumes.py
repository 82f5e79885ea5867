"""Stored bytes: charged while they are kept, by the calendar month."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.costs.prices import picos_of
from pipeline.domain.costs.volumes import StorageBill, StoragePrice

GP3 = picos_of("0.08")
GIB = 1024**3


def kept(start: datetime, *later: tuple[datetime, str], gib: int = 100) -> StorageBill:
    prices = [StoragePrice(effective_at=start, unit_price_picos=GP3)]
    prices += [StoragePrice(effective_at=at, unit_price_picos=picos_of(units)) for at, units in later]
    return StorageBill(size_bytes=gib * GIB, start=start, prices=prices)


@pytest.mark.parametrize("month", [1, 2, 4, 12])
def test_a_volume_kept_for_any_calendar_month_costs_its_price(month: int) -> None:
    start = datetime(2026, month, 1, tzinfo=UTC)

    assert kept(start).until((start + timedelta(days=31)).replace(day=1)) == 8_000_000


def test_a_stopped_machine_still_pays_for_its_volume() -> None:
    made = datetime(2026, 4, 1, tzinfo=UTC)
    stopped, started = made + timedelta(hours=6), made + timedelta(hours=18)

    # 12 hours of 30 days.
    assert kept(made, gib=120).between(stopped, started) == 9_600_000 // 60


def test_a_month_is_one_of_utc_wherever_the_clock_stands() -> None:
    start = datetime(2026, 3, 1, 1, tzinfo=timezone(timedelta(hours=1)))

    assert kept(start).until(datetime(2026, 4, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == 8_000_000


def test_a_price_that_changes_counts_from_then_on() -> None:
    start = datetime(2026, 4, 1, tzinfo=UTC)
    halved = kept(start, (datetime(2026, 4, 16, tzinfo=UTC), "0.04"))

    assert halved.until(datetime(2026, 5, 1, tzinfo=UTC)) == 6_000_000


@settings(deadline=None)
@given(
    st.datetimes(min_value=datetime(2026, 1, 1), max_value=datetime(2026, 12, 1)),  # noqa: DTZ001 -- hypothesis wants them so
    st.lists(st.integers(min_value=0, max_value=90 * 86_400 * 10**6), min_size=1, max_size=6),
    st.integers(min_value=1, max_value=5000),
)
def test_costs_of_adjacent_spans_sum_to_that_of_all(begins: datetime, offsets: list[int], gib: int) -> None:
    start = begins.replace(tzinfo=UTC)
    bill = kept(start, (start + timedelta(days=20), "0.081234567"), gib=gib)
    cuts = [start, *(start + timedelta(microseconds=offset) for offset in sorted(offsets))]

    parts = [bill.between(begin, end) for begin, end in pairwise(cuts)]

    assert sum(parts) == bill.until(cuts[-1])
    assert all(part >= 0 for part in parts)
