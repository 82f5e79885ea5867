from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.errors import UsageError
from pipeline.entrypoints.cli.figures import counted, duration, micros_of, money, price_per_million, rate, size


@pytest.mark.parametrize(
    ("micros", "currency", "shown"),
    [
        (0, "USD", "$0.00"),
        (123, "USD", "$0.000123"),
        (1_500_000, "USD", "$1.50"),
        (1_234_567_890_000, "USD", "$1,234,567.89"),
        (-20_000, "EUR", "-€0.02"),
        (1_000_001, "CHF", "CHF 1.000001"),
    ],
)
def test_money_is_exact_and_no_longer_than_it_needs(micros: int, currency: str, shown: str) -> None:
    assert money(micros, currency) == shown


@given(st.integers(min_value=1, max_value=10**15))
def test_money_that_is_shown_is_read_back_the_same(micros: int) -> None:
    assert micros_of(money(micros).removeprefix("$").replace(",", "")) == micros


@pytest.mark.parametrize("text", ["", "abc", "0", "-1", "nan", "inf", "1e400", "1e12", "0.0000001", "1,50"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        micros_of(text)


def test_a_price_needs_tokens() -> None:
    assert price_per_million(3, 192) == 15_625
    assert price_per_million(3, 0) is None


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (61, "1 min 01 s"), (3_700, "1 h 01 min"), (90_000, "1 d 01 h")],
)
def test_a_duration_has_its_two_largest_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_the_rest_reads_well() -> None:
    assert size(512) == "512 B"
    assert size(1536) == "1.5 KiB"
    assert size(3 * 1024**4) == "3.0 TiB"
    assert rate(12.34) == "12.3"
    assert rate(1234.5) == "1,234"
    assert counted(1, "row") == "1 row"
    assert counted(2000, "row") == "2,000 rows"
