"""The clock's port: the only way a decision learns the time."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for people and records, monotonic time for measuring."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""

    def monotonic_us(self) -> int:
        """Return microseconds on a clock that never steps back; only differences mean anything."""
