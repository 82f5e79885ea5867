"""Money is integer micro-units; splitting it loses nothing."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Final

from pipeline.domain.errors import UsageError

MICROS_PER_UNIT: Final = 1_000_000
_MICROSECONDS_PER_HOUR: Final = 3_600_000_000
_DECIMALS_MAX: Final = 6
#: A billion units: past it a budget is a typing error.
_BUDGET_MICROS_MAX: Final = 1_000_000_000 * MICROS_PER_UNIT


def metered_cost_micros(rate_micros_per_hour: int, start_us: int, stop_us: int) -> int:
    """Return what the span of a worker's life from `start_us` to `stop_us` costs.

    Offsets count microseconds since the worker started. The cost is a difference of two floors of
    the running total, so adjacent spans telescope: whatever the cuts, their costs sum to the floor
    of the whole life's price, and no fraction is lost or billed twice.
    """
    assert 0 <= start_us <= stop_us, f"span runs backwards: {start_us} to {stop_us}"
    assert rate_micros_per_hour >= 0
    total_at_stop = rate_micros_per_hour * stop_us // _MICROSECONDS_PER_HOUR
    total_at_start = rate_micros_per_hour * start_us // _MICROSECONDS_PER_HOUR
    return total_at_stop - total_at_start


def split_by_weight(total_micros: int, weights: Sequence[int]) -> list[int]:
    """Split `total_micros` by weight with nothing lost: the parts sum to the whole.

    Largest-remainder rule (Hamilton), ties to the earlier part, so a rerun gives the same parts.
    All-zero weights share evenly.
    """
    assert total_micros >= 0
    assert weights, "there must be someone to charge"
    assert all(weight >= 0 for weight in weights)
    whole = sum(weights)
    shares = list(weights) if whole else [1] * len(weights)
    whole = whole or len(weights)
    parts = [total_micros * share // whole for share in shares]
    remainders = [total_micros * share % whole for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda index: (-remainders[index], index))
    for index in by_remainder[: total_micros - sum(parts)]:
        parts[index] += 1
    assert sum(parts) == total_micros
    return parts


def amount(micros: int) -> str:
    """Return micro-units as a decimal amount of units, with nothing lost: 3582 is `0.003582`, 1500000 is `1.50`."""
    sign, whole = ("-", -micros) if micros < 0 else ("", micros)
    units, fraction = divmod(whole, MICROS_PER_UNIT)
    digits = f"{fraction:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{units}.{digits}"


def micros_of(text: str) -> int:
    """Return the micro-units of an amount such as `1.50`, or raise `UsageError`."""
    try:
        units = Decimal(text)
    except InvalidOperation:
        units = Decimal("NaN")
    if not units.is_finite() or not 0 < units <= Decimal(_BUDGET_MICROS_MAX) / MICROS_PER_UNIT:
        raise UsageError(f"{text!r} is not an amount of money", hint="write a positive number such as 1.50")
    micros = units * MICROS_PER_UNIT
    if micros != int(micros):
        raise UsageError(f"{text!r} has more than {_DECIMALS_MAX} decimals", hint="the smallest amount is 0.000001")
    return int(micros)
