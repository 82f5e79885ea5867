"""Prices to the pico."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pipeline.domain.costs.prices import (
    UNIT_PRICE_PICOS_MAX,
    Item,
    Price,
    PriceSource,
    PriceUnit,
    picos_of,
    price_text,
    rate_micros,
)
from pipeline.domain.errors import UsageError


@pytest.mark.parametrize(
    ("text", "picos"),
    [("1.006", 1_006_000_000_000), ("0.0000004", 400_000), ("0", 0), ("1e-12", 1), (" 10000 ", UNIT_PRICE_PICOS_MAX)],
)
def test_a_price_is_read_to_the_pico_and_written_back(text: str, picos: int) -> None:
    assert picos_of(text) == picos
    assert picos_of(price_text(picos)) == picos


@pytest.mark.parametrize("text", ["", "dear", "-1", "NaN", "Infinity", "10000.01", "1e-13", "1,5"])
def test_what_is_no_price_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        picos_of(text)

    assert raised.value.hint


def test_a_rate_is_the_nearest_micro_unit() -> None:
    assert [rate_micros(picos) for picos in (1_499_999, 1_500_000, 1_006_000_000_000)] == [1, 2, 1_006_000]


def test_what_no_price_can_be_is_refused() -> None:
    item = Item(provider="aws", name="g5.xlarge", unit=PriceUnit.HOUR)
    now = datetime(2026, 1, 1, tzinfo=UTC)

    for picos in (-1, UNIT_PRICE_PICOS_MAX + 1):
        with pytest.raises(UsageError, match="no price"):
            Price(
                item=item,
                unit_price_picos=picos,
                currency="USD",
                effective_at=now,
                source=PriceSource.OVERRIDE,
                as_of=now,
                origin="test",
            )
    with pytest.raises(UsageError, match="no region"):
        Item(provider="aws", name="g5.xlarge", unit=PriceUnit.HOUR, zone="use1-az1")
