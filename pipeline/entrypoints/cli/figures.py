"""Figures as people read them, and the one figure people write: money."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Final

from pipeline.domain.errors import UsageError
from pipeline.domain.figures import count, counted, duration, moment, money, share
from pipeline.domain.money import MICROS_PER_UNIT

__all__ = [
    "count",
    "counted",
    "duration",
    "micros_of",
    "moment",
    "money",
    "price_per_million",
    "rate",
    "share",
    "size",
]

_DECIMALS_MAX: Final = 6
#: A billion units: past it a budget is a typing error.
_BUDGET_MICROS_MAX: Final = 1_000_000_000 * MICROS_PER_UNIT
_TOKENS_PER_PRICE: Final = 1_000_000
_KIB: Final = 1024


def micros_of(text: str) -> int:
    """Return the micro-units of an amount such as `1.50`, or raise `UsageError`."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or not 0 < amount <= Decimal(_BUDGET_MICROS_MAX) / MICROS_PER_UNIT:
        raise UsageError(f"{text!r} is not an amount of money", hint="write a positive number such as 1.50")
    micros = amount * MICROS_PER_UNIT
    if micros != int(micros):
        raise UsageError(f"{text!r} has more than {_DECIMALS_MAX} decimals", hint="the smallest amount is 0.000001")
    return int(micros)


def price_per_million(cost_micros: int, tokens: int) -> int | None:
    """Return the micro-units that a million tokens cost at this rate, rounded down; None without tokens."""
    return cost_micros * _TOKENS_PER_PRICE // tokens if tokens else None


def size(size_bytes: int) -> str:
    """Return a size in the unit that reads best."""
    amount = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < _KIB:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= _KIB
    return f"{amount:.1f} TiB"


def rate(per_second: float) -> str:
    """Return a speed with as much precision as it deserves."""
    return f"{per_second:,.1f}" if per_second < 100 else f"{per_second:,.0f}"  # noqa: PLR2004 -- three digits either way
