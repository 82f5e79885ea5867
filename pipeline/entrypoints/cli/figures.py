"""Figures as people read them, and the one figure people write: money."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Final

from pipeline.domain.errors import UsageError
from pipeline.domain.money import MICROS_PER_UNIT

_SIGNS: Final[Mapping[str, str]] = MappingProxyType({"USD": "$", "EUR": "€", "GBP": "£"})
_DECIMALS_MIN: Final = 2
_DECIMALS_MAX: Final = 6
#: A billion units: past it a budget is a typing error.
_BUDGET_MICROS_MAX: Final = 1_000_000_000 * MICROS_PER_UNIT
_TOKENS_PER_PRICE: Final = 1_000_000
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400
_KIB: Final = 1024


def money(micros: int, currency: str = "USD") -> str:
    """Return an exact amount with as many decimals as it needs, two at least: `$0.000123`."""
    units, rest = divmod(abs(micros), MICROS_PER_UNIT)
    decimals = f"{rest:0{_DECIMALS_MAX}d}".rstrip("0").ljust(_DECIMALS_MIN, "0")
    sign = "-" if micros < 0 else ""
    return f"{sign}{_SIGNS.get(currency, currency + ' ')}{units:,}.{decimals}"


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


def count(number: int) -> str:
    """Return a number with its thousands apart."""
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, in the right number: `1 row`, `2 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float) -> str:
    """Return a duration in its two largest units."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02d} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02d} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR:02d} h"


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


def share(part: float) -> str:
    """Return a share from 0 to 1 in percent."""
    return f"{part * 100:.1f} %"


def moment(at: datetime) -> str:
    """Return an instant in this machine's zone, to the second."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
