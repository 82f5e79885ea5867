"""The system's clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class SystemClock:
    """`Clock` on the machine's own."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic_us(self) -> int:
        """Return microseconds on a clock that never steps back."""
        return time.monotonic_ns() // 1000
