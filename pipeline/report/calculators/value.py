"""Money at different times: what a sum of the future is worth today."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from typing import Final

#: As clouds count: 8,760 hours over twelve months.
HOURS_PER_MONTH: Final = 730
MONTHS_MAX: Final = 1200
_HUNDRED: Final = Decimal(100)


def monthly_rate(discount_percent_per_year: Decimal) -> Decimal:
    """Return the rate of a month that compounds to the rate of a year."""
    return (1 + discount_percent_per_year / _HUNDRED) ** (Decimal(1) / 12) - 1


def annuity(rate: Decimal, months: int) -> Decimal:
    """Return what one unit at the end of each of so many months is worth today; without interest, their number."""
    return (1 - (1 + rate) ** -months) / rate if rate else Decimal(months)


def present(value: Decimal, rate: Decimal, months: int) -> Decimal:
    """Return what a sum after so many months is worth today."""
    return value / (1 + rate) ** months


def months_until(needed: Decimal, per_month: Decimal) -> int | None:
    """Return the first month at whose end so much is together; None: not in a hundred years."""
    if needed <= 0:
        return 0
    if per_month <= 0 or needed > per_month * MONTHS_MAX:
        return None
    return int((needed / per_month).to_integral_value(ROUND_CEILING))


def months_formula(needed: str, per_month: str) -> str:
    """Return `months_until` for a sheet, of two names there."""
    never = f"IF({per_month}<=0,TRUE,{needed}>{per_month}*{MONTHS_MAX})"
    return f'IF({needed}<=0,0,IF({never},"never",ROUNDUP({needed}/{per_month},0)))'


#: The same in a sheet, with the inputs' names.
RATE_FORMULA: Final = "(1+discount_percent_per_year/100)^(1/12)-1"
ANNUITY_FORMULA: Final = "IF(rate_percent_per_month=0,horizon_months,(1-(1+rate_percent_per_month/100)^-horizon_months)/(rate_percent_per_month/100))"
