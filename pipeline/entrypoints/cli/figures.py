"""Figures as people read them, and the one figure people write: money."""

from __future__ import annotations

from typing import Final

from pipeline.domain.figures import count, counted, duration, moment, money, share
from pipeline.domain.money import micros_of

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

_TOKENS_PER_PRICE: Final = 1_000_000
_KIB: Final = 1024


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
