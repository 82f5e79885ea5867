"""Rates of requests: how many may come, and what is said of those that may not.

The rule is GCRA: each request moves the moment at which a bucket is empty again ahead by one interval, and one that would
move it further ahead than `burst` intervals from now is refused and moves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_US_PER_SECOND: Final = 1_000_000
_US_PER_MINUTE: Final = 60 * _US_PER_SECOND
_US_PER_MS: Final = 1_000
#: Past this an interval is shorter than a microsecond, which Redis's clock cannot tell.
PER_MINUTE_MAX: Final = _US_PER_MINUTE


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How fast requests may come."""

    per_minute: int
    #: At once, after a rest.
    burst: int

    @property
    def interval_us(self) -> int:
        """Return the time that one request takes up, in microseconds, rounded up: never more than the rate."""
        return -(-_US_PER_MINUTE // self.per_minute)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a bucket gave."""

    #: How many of the requests that came together may go on; the first ones.
    allowed: int
    #: How many more may follow at once.
    remaining: int
    #: Until the bucket is full again, in microseconds.
    reset_us: int
    #: Until another may come, in microseconds; 0: at once.
    retry_us: int


def whole_seconds(microseconds: int) -> int:
    """Return a wait in whole seconds, rounded up, and 1 at least: who waits this long is not refused for it."""
    return max(1, -(-microseconds // _US_PER_SECOND))


def duration(microseconds: int) -> str:
    """Return a time as OpenAI's headers have it: `6ms`, `1s`, `6m0s`, `1h2m3s`; rounded up."""
    if microseconds < _US_PER_SECOND:
        return f"{-(-microseconds // _US_PER_MS)}ms" if microseconds <= _US_PER_SECOND - _US_PER_MS else "1s"
    seconds = -(-microseconds // _US_PER_SECOND)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
