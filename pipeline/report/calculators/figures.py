"""Figures of calculators as people read them."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from pipeline.domain.figures import count, money
from pipeline.report.calculators.fields import Kind

#: From a hundred units on, cents are exact enough to read; documents have every micro-unit.
_CENTS_FROM_MICROS: Final = 100_000_000
_CENT_MICROS: Final = 10_000
_NOTHING: Final = "-"


def figure(kind: Kind, value: object) -> str:
    """Return a value for people, without its unit but for the currency's sign."""
    match value:
        case None:
            return _NOTHING
        case bool():
            return "yes" if value else "no"
        case int() if kind is Kind.AMOUNT:
            is_large = abs(value) >= _CENTS_FROM_MICROS
            return money(round(value / _CENT_MICROS) * _CENT_MICROS if is_large else value)
        case int():
            return count(value)
        case Decimal():
            return _number(value)
        case _:
            return str(value)


def _number(value: Decimal) -> str:
    magnitude = abs(value)
    decimals = 0 if magnitude >= 1000 else 1 if magnitude >= 10 else 3  # noqa: PLR2004 -- about three digits
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def unit_beside(kind: Kind, unit: str) -> str:
    """Return what of a unit stands beside a figure: the currency is in the figure."""
    return unit.removeprefix("USD") if kind is Kind.AMOUNT else unit
