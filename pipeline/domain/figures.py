"""Figures as people read them: numbers with their nouns, money, durations, instants."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from pipeline.domain.money import MICROS_PER_UNIT

_SIGNS: Final[Mapping[str, str]] = MappingProxyType({"USD": "$", "EUR": "€", "GBP": "£"})
_DECIMALS_MIN: Final = 2
_DECIMALS_MAX: Final = 6
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400


def money(micros: int, currency: str = "USD") -> str:
    """Return an exact amount with as many decimals as it needs, two at least: `$0.000123`."""
    units, rest = divmod(abs(micros), MICROS_PER_UNIT)
    decimals = f"{rest:0{_DECIMALS_MAX}d}".rstrip("0").ljust(_DECIMALS_MIN, "0")
    sign = "-" if micros < 0 else ""
    return f"{sign}{_SIGNS.get(currency, currency + ' ')}{units:,}.{decimals}"


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


def share(part: float) -> str:
    """Return a share from 0 to 1 in percent."""
    return f"{part * 100:.1f} %"


def moment(at: datetime) -> str:
    """Return an instant in this machine's zone, to the second."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
